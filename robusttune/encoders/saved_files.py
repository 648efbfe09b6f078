"""Files of a transformers model that are saved beside its weights, so that the model is loaded without a network."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

from torch import nn
from transformers.utils import cached_file

from robusttune.encoders.base import Encoder
from robusttune.encoders.remote_code import find_file
from robusttune.encoders.transformers_common import location
from robusttune.encoders.weights import fetching

PROCESSOR_FILES = ("preprocessor_config.json", "processor_config.json")
TOKENIZER_FILES = (
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("vocab.txt", "vocab.json", "merges.txt", "bpe.codes"),
    *("spiece.model", "sentencepiece.bpe.model", "spm.model", "tokenizer.model", "tiktoken.model", "tekken.json"),
)


def save_model(model: Any, settings: Encoder, folder: Path) -> None:
    """Write the weights and the configuration of a model, and the files of its image processor.

    Args:
        model: Model of transformers, as it was loaded.
        settings: Settings that the model was loaded from.
        folder: Folder that is created.
    """
    assert isinstance(model, nn.Module)
    model.save_pretrained(folder)  # type: ignore[operator]
    copy_files(location(settings), settings, PROCESSOR_FILES, folder)


def copy_files(source: dict[str, Any], settings: Encoder, names: tuple[str, ...], folder: Path) -> None:
    """Copy those of a model's files that it has.

    Args:
        source: Arguments of ``from_pretrained`` that say where the model is.
        settings: Settings of the encoder, for error messages.
        names: Names of files.
        folder: Folder that they are copied to.

    Raises:
        RobustTuneError: A file cannot be fetched.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with fetching(settings.name, settings.weights):
        for name in names:
            found = find_file(source, name)
            if found is not None:
                shutil.copyfile(found, folder / name)


def licence_of(source: dict[str, Any]) -> str | None:
    """Return the licence in the metadata of a model's ``README.md``, or None if it has none. Nothing is fetched.

    Args:
        source: Arguments of ``from_pretrained`` that say where the model is.
    """
    place = source["pretrained_model_name_or_path"]
    found = cached_file(
        *(place, "README.md"),
        revision=source.get("revision"),
        local_files_only=True,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_gated_repo=False,
        _raise_exceptions_for_connection_errors=False,
    )
    text = "" if found is None else Path(found).read_text(encoding="utf-8", errors="replace")
    front = re.match(r"---\n(.*?)\n---", text, re.DOTALL)
    licence = re.search(r"^license:\s*([\w.-]+)\s*$", front[1], re.MULTILINE) if front else None
    return licence[1] if licence else None
