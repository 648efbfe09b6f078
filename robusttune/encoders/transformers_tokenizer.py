"""The fast tokenizer of a text model: where it is, and whether it is whole and belongs to the model."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from functools import cache
from importlib.util import find_spec
from typing import Any

from lightning.pytorch.utilities import rank_zero_only
from transformers import AutoTokenizer, PreTrainedTokenizerFast
from transformers.models.auto.tokenization_auto import TOKENIZER_MAPPING_NAMES, tokenizer_class_from_name

from robusttune.encoders.base import TextEncoder
from robusttune.encoders.hub import PREFETCH, offline
from robusttune.encoders.positions import count_positions
from robusttune.encoders.remote_code import find_file, read_json, refuse_remote_code
from robusttune.encoders.tokenization import Tokenizer
from robusttune.encoders.transformers_common import load_config, location
from robusttune.encoders.weights import fetching, model_folder
from robusttune.errors import RobustTuneError

log = logging.getLogger(__name__)

FILE = "tokenizer.json"
OTHER_FORMATS = ("tokenizer.model", "tiktoken.model", "tekken.json")  # that transformers reads for any class
GENERIC = ("PreTrainedTokenizerFast", "TokenizersBackend")  # classes that take a file as it is
SLOW = {"siglip": "SiglipTokenizer"}  # which transformers does not name where sentencepiece is missing
UNLIMITED = 1e9  # what tokenizers without a maximum say is 1e30
LEAST_WORDS = 10  # ordinary tokens; an empty tokenizer that transformers makes up has up to 2
UNUSED_SHARE = 0.5  # share of a model's embeddings without a token above which another tokenizer is likely


def fast_tokenizer(settings: TextEncoder, max_length: int | None) -> Tokenizer:
    """Return the model's own tokenizer.

    Args:
        settings: Text encoder whose tokenizer is loaded.
        max_length: Maximum number of tokens per text; None for as many as the model takes.

    Raises:
        RobustTuneError: The model has no fast tokenizer, or one of another model, or takes fewer tokens.
    """
    config = load_config(settings)
    backend = _from_pretrained(_find(settings))
    _check_vocabulary(backend, config)
    limits = [limit for limit in (count_positions(config), backend.model_max_length) if limit and 0 < limit < UNLIMITED]
    longest = int(min(limits)) if limits else None
    least = backend.num_special_tokens_to_add() + 1  # with fewer nothing would be cut at all
    length = longest if max_length is None else max_length
    if length is None:
        raise RobustTuneError(f"{settings.name!r} takes texts of any length: set text_encoder.max_length")
    if length < least or (longest is not None and length > longest):
        most = f"from {least} to {longest}" if longest is not None else f"of at least {least}"
        raise RobustTuneError(f"max_length {length} does not fit {settings.name!r}: give a number {most}")
    return Tokenizer(
        backend.backend_tokenizer, length, backend.pad_token_id or 0, pads_left=backend.padding_side == "left"
    )


def _find(settings: TextEncoder) -> TextEncoder:
    """Return the settings by which a tokenizer is loaded: the given ones, or, if the weights have none, ``name``'s."""
    missing = _missing_files(settings)
    if not missing:
        return settings
    if settings.weights in ("pretrained", "random"):
        raise _no_tokenizer(settings, missing)
    named = replace(settings, weights="pretrained")
    try:
        missing_too = _missing_files(named)
    except RobustTuneError:
        raise _no_tokenizer(settings, missing) from None
    if missing_too:
        raise _no_tokenizer(settings, missing)
    _say_once(f"{settings.weights} has no tokenizer, and that of {settings.name} is used")
    return named


@cache
@rank_zero_only
def _say_once(message: str) -> None:
    log.warning(message)


def _no_tokenizer(settings: TextEncoder, missing: str) -> RobustTuneError:
    place = location(settings)["pretrained_model_name_or_path"]
    lacks = f"{place} has no tokenizer (it lacks {missing})"
    save = "save it there (tokenizer.save_pretrained)"
    if settings.weights not in ("pretrained", "random"):
        in_cache = offline() and not model_folder(settings.name).is_dir()
        return RobustTuneError(
            f"{lacks}: {save}, or {PREFETCH if in_cache else 'give the name of a model that has one'}"
        )
    if model_folder(place).is_dir():
        return RobustTuneError(f"{lacks}: {save}")
    if offline():
        return RobustTuneError(f"the tokenizer of {place} is not in the cache: {PREFETCH}")
    return RobustTuneError(f"{lacks}: choose a model that has one")


def _missing_files(settings: TextEncoder) -> str:
    """Return the names of files without which transformers would make up a tokenizer that knows no words.

    Raises:
        RobustTuneError: The model cannot be looked up, or its files cannot be read with what is installed.
    """
    config = load_config(settings)
    with fetching(settings.name, settings.weights):
        place = location(settings)
        refuse_remote_code(place, "AutoTokenizer")
        about = read_json(place, "tokenizer_config.json")
        kind = _tokenizer_class(about, config)
        if "sentencepiece" in getattr(kind, "_backends", ()):  # what transformers has in its place
            raise _no_fast_form(settings, kind)
        versions = about.get("fast_tokenizer_files")
        if any(find_file(place, name) for name in [FILE, *(versions if isinstance(versions, list) else [])]):
            return ""
        files = _vocabulary_files(kind)
        found = [name for name in files if find_file(place, name)]
        if len(found) < len(files) or not files:
            found = [name for name in OTHER_FORMATS if find_file(place, name)]
        pieces = [name for name in found if name.endswith(".model") and name != "tiktoken.model"]
        if pieces and not (find_spec("sentencepiece") and find_spec("google.protobuf")):
            raise RobustTuneError(
                f"the tokenizer of {place['pretrained_model_name_or_path']} is a SentencePiece model ({pieces[0]}), "
                "which two packages read that are not installed: pip install sentencepiece protobuf"
            )
        return "" if found else " or ".join([FILE, " and ".join(files)][: 1 + bool(files)])


def _tokenizer_class(about: dict[str, Any], config: Any) -> Any:
    """Return the class that transformers chooses for a tokenizer, or None where it takes any file.

    Args:
        about: Contents of ``tokenizer_config.json``.
        config: Configuration of the model.
    """
    named = about.get("tokenizer_class") or getattr(config, "tokenizer_class", None)
    if named is None:
        named = TOKENIZER_MAPPING_NAMES.get(config.model_type, GENERIC[0])
        if isinstance(named, tuple):  # of transformers 4: the slow and the fast class
            named = named[1] or named[0]
        named = SLOW.get(config.model_type, named) if named is None else named
    return tokenizer_class_from_name(named) if isinstance(named, str) else None


def _vocabulary_files(kind: Any) -> list[str]:
    """Return the names of the files that a tokenizer's class reads if there is no ``tokenizer.json``."""
    files = getattr(kind, "vocab_files_names", {})
    return [name for key, name in files.items() if key not in ("tokenizer_file", "tokenizer_config_file")]


def _no_fast_form(settings: TextEncoder, kind: Any) -> RobustTuneError:
    place = location(settings)["pretrained_model_name_or_path"]
    return RobustTuneError(f"the tokenizer of {place} ({kind.__name__}) has no fast form: choose another model")


def _from_pretrained(settings: TextEncoder) -> Any:
    place = location(settings)
    name = place["pretrained_model_name_or_path"]
    with fetching(settings.name, settings.weights):
        try:
            backend = AutoTokenizer.from_pretrained(**place, use_fast=True, trust_remote_code=False)
        except ImportError as error:
            reason = str(error).strip().split("\n")[0].rstrip(".:")
            raise RobustTuneError(
                f"the tokenizer of {name} needs a package that is not installed ({reason}): install it"
            ) from error
        if not isinstance(backend, PreTrainedTokenizerFast):
            raise _no_fast_form(settings, type(backend))
        if _is_of_its_class(place, backend):
            return backend
        if read_json(place, "tokenizer_config.json").get("tokenizer_class") in GENERIC:
            return PreTrainedTokenizerFast.from_pretrained(**place)
    raise RobustTuneError(
        f"{name} has a {FILE} of another model, which is not one of a {type(backend).__name__}: "
        "save the model's own there (tokenizer.save_pretrained)"
    )


def _is_of_its_class(place: dict[str, Any], backend: Any) -> bool:
    """Return whether a class of transformers has read a ``tokenizer.json`` of its own kind.

    Such a class takes the vocabulary alone from the file. From another kind of file (word pieces as byte pairs, say)
    it makes a tokenizer that cuts most words into characters.
    """
    if type(backend) is PreTrainedTokenizerFast:
        return True
    model = read_json(place, FILE).get("model")
    kind = model.get("type") if isinstance(model, dict) else None
    return kind in (None, type(backend.backend_tokenizer.model).__name__)


def _check_vocabulary(backend: Any, config: Any) -> None:
    """Check that a tokenizer knows words, and none that the model has no embedding of.

    Raises:
        RobustTuneError: It does not.
    """
    vocabulary = backend.get_vocab()
    special = {*backend.all_special_tokens, *map(str, backend.added_tokens_decoder.values())}
    words = len(vocabulary.keys() - special)
    if words < LEAST_WORDS:
        raise RobustTuneError(
            f"the tokenizer of {backend.name_or_path!r} is empty or damaged, it has {words} tokens besides special "
            "ones: save the model's own there (tokenizer.save_pretrained)"
        )
    rows = getattr(getattr(config, "text_config", config), "vocab_size", None)
    if rows is None:
        return
    beyond = sorted((number, token) for token, number in vocabulary.items() if number >= rows)
    if beyond:
        raise RobustTuneError(
            f"the tokenizer of {backend.name_or_path!r} has {len(beyond)} tokens beyond the {rows} that the model has "
            f"embeddings of, the first is {json.dumps(beyond[0][1], ensure_ascii=False)}: give the model's own "
            "tokenizer, or weights with as many embeddings (model.resize_token_embeddings)"
        )
    if len(vocabulary) < rows * (1 - UNUSED_SHARE):
        _say_once(
            f"the tokenizer of {backend.name_or_path!r} has {len(vocabulary):,} tokens, and the model embeddings of "
            f"{rows:,}: check that it is the model's own"
        )
