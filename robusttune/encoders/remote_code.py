"""Refusal of models that need their own Python code: downloaded code is never run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from transformers.utils import cached_file

from robusttune.encoders.weights import code_error

# For each auto class, the files whose `auto_map` may name the model's own code in place of a class of transformers.
FILES = {
    "AutoConfig": ("config.json",),
    "AutoModel": ("config.json",),
    "AutoTokenizer": ("tokenizer_config.json",),
    "AutoImageProcessor": ("preprocessor_config.json", "processor_config.json", "config.json"),
}
FORMER_NAMES = {"AutoFeatureExtractor": "AutoImageProcessor"}


def refuse_remote_code(location: dict[str, Any], *classes: str) -> None:
    """Check that a model needs no code other than that of transformers.

    Args:
        location: Arguments of ``from_pretrained`` that say where the model is.
        classes: Names of the auto classes that are to be loaded, such as ``AutoModel``.

    Raises:
        RobustTuneError: The model names Python code for one of these classes in its ``auto_map``.
    """
    for file in dict.fromkeys(file for name in classes for file in FILES[name]):
        named = {FORMER_NAMES.get(key, key) for key, code in _auto_map(location, file).items() if code}
        if named & {*classes}:
            raise code_error(location["pretrained_model_name_or_path"])


def find_file(location: dict[str, Any], name: str) -> str | None:
    """Return the path of one of a model's files, downloading it if necessary, or None if the model has no such file.

    Args:
        location: Arguments of ``from_pretrained`` that say where the model is.
        name: Name of the file, such as ``config.json``.
    """
    place, revision = location["pretrained_model_name_or_path"], location.get("revision")
    found: str | None = cached_file(place, name, revision=revision, _raise_exceptions_for_missing_entries=False)
    return found


def read_json(location: dict[str, Any], name: str) -> dict[str, Any]:
    """Return the content of one of a model's JSON files, or an empty dictionary if it is missing or damaged.

    Args:
        location: Arguments of ``from_pretrained`` that say where the model is.
        name: Name of the file, such as ``config.json``.
    """
    path = find_file(location, name)
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8")) if path is not None else None
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _auto_map(location: dict[str, Any], file: str) -> dict[str, Any]:
    found = read_json(location, file).get("auto_map")
    if isinstance(found, list):  # the format of old tokenizers
        return {"AutoTokenizer": found}
    return found if isinstance(found, dict) else {}
