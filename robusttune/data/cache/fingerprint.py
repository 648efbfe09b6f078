"""What decides what the features of an input are, as plain data and as a hash."""

from __future__ import annotations

import hashlib
import json
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from robusttune import __version__, encoders
from robusttune.encoders import Encoder, FrozenEncoder
from robusttune.encoders.weights import model_folder
from robusttune.paths import code_hash
from robusttune.settings import plain, to_plain

LIBRARIES = ("timm", "transformers", "tokenizers", "pillow")


def describe(settings: Encoder, encoder: FrozenEncoder, precision: str, dtype: torch.dtype) -> dict[str, Any]:
    """Everything that decides what the features are.

    Where weights come from is not among it: a folder may move, and their hash tells.

    Args:
        settings: of the encoder.
        encoder: the encoder itself.
        precision: in which it is run, as the Trainer has it.
        dtype: in which its features are kept.
    """
    own = to_plain(settings)
    args = {name: value for name, value in own["init_args"].items() if name not in ("weights", "revision")}
    if model_folder(settings.name).is_dir():
        del args["name"]
    return {
        "encoder": {"class_path": own["class_path"], "init_args": args},
        "inputs": plain(settings.inputs()),
        "weights": encoder.sha256,
        "architecture": _hash(encoder.architecture),
        "precision": precision,
        "dtype": str(dtype).removeprefix("torch."),
        "code": code_version(),
    }


def fingerprint(about: dict[str, Any]) -> str:
    """A hash of what `describe` gives."""
    return _hash(json.dumps(about, sort_keys=True))


@cache
def code_version() -> dict[str, str]:
    """Versions of this package and of the libraries that make features, and a hash of the code that does."""
    files = [*sorted(Path(encoders.__file__).parent.glob("*.py")), Path(__file__).parents[1] / "images.py"]
    return {"robusttune": f"{__version__} {code_hash(*files)[:12]}", **{name: version(name) for name in LIBRARIES}}


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
