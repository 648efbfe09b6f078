"""Loading of a text model's fast tokenizer, with checks that it is complete and belongs to the model."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, PreTrainedTokenizerFast
from transformers.models.auto.tokenization_auto import TOKENIZER_MAPPING_NAMES, tokenizer_class_from_name

from robusttune.encoders.base import TextEncoder
from robusttune.encoders.hub import PREFETCH, offline
from robusttune.encoders.positions import count_positions
from robusttune.encoders.remote_code import find_file, read_json, refuse_remote_code
from robusttune.encoders.saved_files import TOKENIZER_FILES, copy_files
from robusttune.encoders.siglip_tokenizer import SLOW, VOCABULARY, fast_form, lower_cased
from robusttune.encoders.tokenization import Tokenizer
from robusttune.encoders.transformers_common import load_config, location
from robusttune.encoders.weights import fetching, model_folder
from robusttune.errors import RobustTuneError
from robusttune.ranks import is_rank_zero

log = logging.getLogger(__name__)

FILE = "tokenizer.json"
OTHER_FORMATS = ("tokenizer.model", "tiktoken.model", "tekken.json")  # read by transformers for any tokenizer class
GENERIC = ("PreTrainedTokenizerFast", "TokenizersBackend")  # classes that read any tokenizer.json
UNLIMITED = 1e9  # tokenizers without a maximum length report 1e30
LEAST_WORDS = 10  # tokens that are not special; an empty tokenizer created by transformers has at most 2
UNUSED_SHARE = 0.5  # fraction of embeddings without a token above which the tokenizer probably belongs to another model


def fast_tokenizer(settings: TextEncoder, max_length: int | None) -> Tokenizer:
    """Return the model's own tokenizer.

    Args:
        settings: Text encoder whose tokenizer is loaded.
        max_length: Maximum number of tokens per text; None for the model's own maximum.

    Raises:
        RobustTuneError: The model has no fast tokenizer, its tokenizer belongs to another model, or the model takes
            fewer than ``max_length`` tokens.
    """
    config = load_config(settings)
    backend = lower_cased(_from_pretrained(_settings_of_tokenizer(settings)), config)
    _check_vocabulary(backend, config)
    limits = [limit for limit in (count_positions(config), backend.model_max_length) if limit and 0 < limit < UNLIMITED]
    longest = int(min(limits)) if limits else None
    least = backend.num_special_tokens_to_add() + 1  # a smaller maximum would leave no room for a token of the text
    length = longest if max_length is None else max_length
    if length is None:
        raise RobustTuneError(f"{settings.name!r} takes texts of any length: set text_encoder.max_length")
    if length < least or (longest is not None and length > longest):
        most = f"from {least} to {longest}" if longest is not None else f"of at least {least}"
        raise RobustTuneError(f"max_length {length} does not fit {settings.name!r}: give a number {most}")
    return Tokenizer(
        backend.backend_tokenizer, length, backend.pad_token_id or 0, pads_left=backend.padding_side == "left"
    )


def save_tokenizer(settings: TextEncoder, folder: Path) -> None:
    """Copy the files of a model's tokenizer, which `fast_tokenizer` then finds in the folder."""
    own = _settings_of_tokenizer(settings)
    copy_files(location(own), own, TOKENIZER_FILES, folder)


def _settings_of_tokenizer(settings: TextEncoder) -> TextEncoder:
    """Return settings that name a model with a tokenizer.

    They are the given ones, or, if the folder of local weights has no tokenizer, those of the published model ``name``.

    Raises:
        RobustTuneError: Neither has a tokenizer.
    """
    missing = _missing_files(settings)
    if not missing:
        return settings
    if settings.weights in ("pretrained", "random"):
        raise _no_tokenizer(settings, missing)
    published = replace(settings, weights="pretrained")
    try:
        missing_too = _missing_files(published)
    except RobustTuneError:
        raise _no_tokenizer(settings, missing) from None
    if missing_too:
        raise _no_tokenizer(settings, missing)
    _warn_once(f"{settings.weights} has no tokenizer, and that of {settings.name} is used")
    return published


@cache
def _warn_once(message: str) -> None:
    if is_rank_zero():
        log.warning(message)


def _no_tokenizer(settings: TextEncoder, missing: str) -> RobustTuneError:
    """Return the error for a model without a tokenizer, with the remedy that fits its location."""
    source = location(settings)["pretrained_model_name_or_path"]
    lacks = f"{source} has no tokenizer (it lacks {missing})"
    save = "save it there (tokenizer.save_pretrained)"
    if settings.weights not in ("pretrained", "random"):
        in_cache = offline() and not model_folder(settings.name).is_dir()
        return RobustTuneError(
            f"{lacks}: {save}, or {PREFETCH if in_cache else 'give the name of a model that has one'}"
        )
    if model_folder(source).is_dir():
        return RobustTuneError(f"{lacks}: {save}")
    if offline():
        return RobustTuneError(f"the tokenizer of {source} is not in the cache: {PREFETCH}")
    return RobustTuneError(f"{lacks}: choose a model that has one")


def _missing_files(settings: TextEncoder) -> str:
    """Return the names of missing files without which transformers would create a tokenizer that knows no words.

    The result is empty if nothing is missing.

    Raises:
        RobustTuneError: The model cannot be looked up, or an installed package is not able to read its files.
    """
    config = load_config(settings)
    with fetching(settings.name, settings.weights):
        source = location(settings)
        refuse_remote_code(source, "AutoTokenizer")
        tokenizer_config = read_json(source, "tokenizer_config.json")
        kind = _tokenizer_class(tokenizer_config, config)
        is_siglip = getattr(kind, "__name__", None) == SLOW
        if "sentencepiece" in getattr(kind, "_backends", ()) and not is_siglip:  # a placeholder
            raise _no_fast_form(settings, kind)
        versions = tokenizer_config.get("fast_tokenizer_files")
        if any(find_file(source, name) for name in [FILE, *(versions if isinstance(versions, list) else [])]):
            return ""
        files = [VOCABULARY] if is_siglip else _vocabulary_files(kind)
        found = [name for name in files if find_file(source, name)]
        if len(found) < len(files) or not files:
            found = [name for name in OTHER_FORMATS if find_file(source, name)]
        pieces = [name for name in found if name.endswith(".model") and name != "tiktoken.model"]
        if pieces and not (find_spec("sentencepiece") and find_spec("google.protobuf")):
            raise RobustTuneError(
                f"the tokenizer of {source['pretrained_model_name_or_path']} is a SentencePiece model ({pieces[0]}), "
                "which needs packages that are not installed: pip install 'robusttune[sentencepiece]'"
            )
        return "" if found else " or ".join([FILE, " and ".join(files)][: 1 + bool(files)])


def _tokenizer_class(tokenizer_config: dict[str, Any], config: Any) -> Any:
    """Return the tokenizer class that transformers chooses, or None if it knows no class for the model.

    Args:
        tokenizer_config: Contents of ``tokenizer_config.json``.
        config: Configuration of the model.
    """
    class_name = tokenizer_config.get("tokenizer_class") or getattr(config, "tokenizer_class", None)
    if class_name is None:
        class_name = TOKENIZER_MAPPING_NAMES.get(config.model_type, GENERIC[0])
        if isinstance(class_name, tuple):  # transformers 4 names the slow and the fast class
            class_name = class_name[1] or class_name[0]
        if class_name is None and config.model_type == "siglip":  # not named if sentencepiece is missing
            class_name = SLOW
    return tokenizer_class_from_name(class_name) if isinstance(class_name, str) else None


def _vocabulary_files(kind: Any) -> list[str]:
    """Return the names of the files that a tokenizer class reads if there is no ``tokenizer.json``."""
    files = getattr(kind, "vocab_files_names", {})
    return [name for key, name in files.items() if key not in ("tokenizer_file", "tokenizer_config_file")]


def _no_fast_form(settings: TextEncoder, kind: Any) -> RobustTuneError:
    """Return the error for a tokenizer class without a fast (Rust) implementation."""
    source = location(settings)["pretrained_model_name_or_path"]
    return RobustTuneError(f"the tokenizer of {source} ({kind.__name__}) has no fast form: choose another model")


def _from_pretrained(settings: TextEncoder) -> Any:
    """Load the tokenizer with transformers.

    Raises:
        RobustTuneError: A package is missing, or the tokenizer is not a fast one or belongs to another model.
    """
    source = location(settings)
    name = source["pretrained_model_name_or_path"]
    with fetching(settings.name, settings.weights):
        try:
            backend = AutoTokenizer.from_pretrained(**source, use_fast=True, trust_remote_code=False)
        except ImportError as error:
            reason = str(error).strip().split("\n")[0].rstrip(".:")
            raise RobustTuneError(
                f"the tokenizer of {name} needs a package that is not installed ({reason}): install it"
            ) from error
        if type(backend).__name__ == SLOW:
            return fast_form(backend)
        if not isinstance(backend, PreTrainedTokenizerFast):
            raise _no_fast_form(settings, type(backend))
        if _is_of_its_class(source, backend):
            return backend
        if read_json(source, "tokenizer_config.json").get("tokenizer_class") in GENERIC:
            return PreTrainedTokenizerFast.from_pretrained(**source)
    raise RobustTuneError(
        f"{name} has a {FILE} of another model, which is not one of a {type(backend).__name__}: "
        "save the model's own there (tokenizer.save_pretrained)"
    )


def _is_of_its_class(source: dict[str, Any], backend: Any) -> bool:
    """Return True if transformers' class fits the kind of model in ``tokenizer.json``.

    Such a class takes only the vocabulary from the file. If the file is of another kind (word pieces read as byte
    pairs, for example), the resulting tokenizer splits most words into characters.
    """
    if type(backend) is PreTrainedTokenizerFast:
        return True
    model = read_json(source, FILE).get("model")
    kind = model.get("type") if isinstance(model, dict) else None
    return kind in (None, type(backend.backend_tokenizer.model).__name__)


def _check_vocabulary(backend: Any, config: Any) -> None:
    """Check that a tokenizer knows words, and that the model has an embedding for each of its tokens.

    Raises:
        RobustTuneError: The tokenizer has almost no words, or tokens without an embedding.
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
        _warn_once(
            f"the tokenizer of {backend.name_or_path!r} has {len(vocabulary):,} tokens, and the model embeddings of "
            f"{rows:,}: check that it is the model's own"
        )
