"""All settings and versions that the features of an input depend on, as plain data and as a hash."""

from __future__ import annotations

import hashlib
import json
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from robusttune import __version__, encoders
from robusttune.code_hash import code_hash
from robusttune.encoders import Encoder, FrozenEncoder
from robusttune.encoders.weights import model_folder
from robusttune.settings import plain, to_plain

LIBRARIES = ("timm", "transformers", "tokenizers", "pillow")


def describe(settings: Encoder, encoder: FrozenEncoder, precision: str, dtype: torch.dtype) -> dict[str, Any]:
    """Describe everything that the features depend on, as plain data.

    The location of the weights is left out, since a folder may move; the hash of the weights identifies them.

    Args:
        settings: Settings of the encoder.
        encoder: Encoder with loaded weights.
        precision: Precision of the forward pass, as the Trainer names it.
        dtype: Number format of the stored features.

    Returns:
        Dictionary that can be written as JSON.
    """
    configured = to_plain(settings)
    args = {name: value for name, value in configured["init_args"].items() if name not in ("weights", "revision")}
    if model_folder(settings.name).is_dir():
        del args["name"]
    return {
        "encoder": {"class_path": configured["class_path"], "init_args": args},
        "inputs": plain(settings.inputs()),
        "weights": encoder.sha256,
        "architecture": _hash(encoder.architecture),
        "precision": precision,
        "dtype": str(dtype).removeprefix("torch."),
        "code": code_version(),
    }


def fingerprint(about: dict[str, Any]) -> str:
    """Return the SHA-256 of a description, as hexadecimal digits.

    Args:
        about: Result of `describe`.

    Example:
        >>> fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1})
        True
    """
    return _hash(json.dumps(about, sort_keys=True))


@cache
def code_version() -> dict[str, str]:
    """Return the versions of the libraries that compute features, and of this package, with a hash of its code.

    Example:
        >>> sorted(code_version())
        ['pillow', 'robusttune', 'timm', 'tokenizers', 'transformers']
    """
    files = [*sorted(Path(encoders.__file__).parent.glob("*.py")), Path(__file__).parents[1] / "images.py"]
    return {"robusttune": f"{__version__} {code_hash(*files)[:12]}", **{name: version(name) for name in LIBRARIES}}


def _hash(text: str) -> str:
    """Return the SHA-256 of a text, as hexadecimal digits."""
    return hashlib.sha256(text.encode()).hexdigest()
