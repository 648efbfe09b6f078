"""What is in a checkpoint file besides Lightning's own, and how it is read."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch

from robusttune.errors import RobustTuneError
from robusttune.regular_files import what_is_at
from robusttune.types import Facts

KEY = "robusttune"
ABOUT = {"task", "settings", "facts", "image_encoder", "text_encoder", "inputs", "sha256"}  # what is told under it


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """A checkpoint of this project, on the CPU; nothing in the file is executed.

    Raises:
        RobustTuneError: the file is missing, damaged, holds more than tensors and plain data, or is of another kind.
    """
    checkpoint: dict[str, Any] = read_plain(Path(path), "a checkpoint of robusttune")
    about = checkpoint.get(KEY) if isinstance(checkpoint, dict) else None
    whole = isinstance(about, dict) and "state_dict" in checkpoint and about.keys() >= ABOUT
    if not whole or about["facts"].keys() != set(Facts._fields):  # type: ignore[index]
        raise RobustTuneError(f"{path} is no checkpoint of robusttune: give one that `robusttune fit` wrote")
    return checkpoint


def read_plain(path: Path, instead: str) -> Any:
    """What torch has saved in a file, on the CPU; nothing in the file is executed.

    Args:
        path: of the file.
        instead: what to give instead of a file that cannot be used.

    Raises:
        RobustTuneError: the file is missing, damaged, or holds more than tensors and plain data.
    """
    what = what_is_at(path)
    if what is not None:
        raise RobustTuneError(f"the checkpoint {path!s:.300} {what}: give the path of {instead}")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise RobustTuneError(
            f"{path} holds more than tensors and plain data, and is not loaded: use {instead}"
        ) from None
    except PermissionError as error:
        raise RobustTuneError(f"{path} cannot be read ({error.strerror}): see to it that you may") from None
    except Exception:  # of a damaged file torch says RuntimeError, EOFError, OSError, ValueError, KeyError, ...
        raise RobustTuneError(f"{path} is damaged or no checkpoint: use another one") from None
