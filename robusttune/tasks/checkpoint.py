"""Checkpoint files: their format number, the digest that seals them, and how they are read."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from robusttune.errors import RobustTuneError
from robusttune.regular_files import what_is_at
from robusttune.types import Facts

KEY = "robusttune"
FORMAT = 1  # raised whenever a checkpoint of the version before can no longer be read
ABOUT = {"format", "digest", "task", "settings", "facts", "image_encoder", "text_encoder", "inputs", "sha256"}
INSTEAD = "give one that `robusttune fit` wrote"


def seal(checkpoint: dict[str, Any]) -> None:
    """Add the format number and a digest of everything in the checkpoint to its metadata."""
    checkpoint[KEY] = {**checkpoint[KEY], "format": FORMAT}
    checkpoint[KEY]["digest"] = digest_of(checkpoint)


def digest_of(checkpoint: dict[str, Any]) -> str:
    """Return the SHA-256 of the metadata, weights and training state in a checkpoint, as hexadecimal digits."""
    metadata = {name: value for name, value in checkpoint[KEY].items() if name != "digest"}
    found = hashlib.sha256()
    for part in _bytes_of({**checkpoint, KEY: metadata}):
        found.update(part)
    return found.hexdigest()


def _bytes_of(value: Any) -> Iterator[bytes | memoryview]:
    """Yield bytes that differ wherever two values of plain data and tensors differ."""
    if isinstance(value, Tensor):
        yield f"tensor {value.dtype} {tuple(value.shape)}\n".encode()
        yield value.detach().cpu().reshape(-1).contiguous().view(torch.uint8).numpy().data
    elif isinstance(value, dict):
        yield f"dict {len(value)}\n".encode()
        for key in sorted(value, key=repr):
            yield from _bytes_of(key)
            yield from _bytes_of(value[key])
    elif isinstance(value, list | tuple):
        yield f"list {len(value)}\n".encode()
        for item in value:
            yield from _bytes_of(item)
    elif isinstance(value, str):
        written = value.encode("utf-8", "surrogatepass")
        yield b"str %d\n%s" % (len(written), written)
    elif value is None or isinstance(value, bool | int | float):
        yield f"{type(value).__name__} {value!r}\n".encode()
    else:  # Its repr may hold an address, which is another one after reading.
        yield f"{type(value).__name__}\n".encode()


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint of this project onto the CPU; nothing in the file is executed.

    Raises:
        RobustTuneError: the file is missing, damaged, changed, of another format, holds more than tensors and plain
            data, or is of another kind.
    """
    checkpoint: dict[str, Any] = read_plain(Path(path), "a checkpoint of robusttune")
    about = checkpoint.get(KEY) if isinstance(checkpoint, dict) else None
    if not isinstance(about, dict) or "task" not in about:
        raise RobustTuneError(f"{path} is no checkpoint of robusttune: {INSTEAD}")
    _refuse_other_formats(path, about.get("format"))
    if not about.keys() >= ABOUT or "state_dict" not in checkpoint or about["digest"] != digest_of(checkpoint):
        raise RobustTuneError(
            f"{path} is not as it was written (its digest does not fit what it holds): use an unchanged copy"
        )
    if about["facts"].keys() != set(Facts._fields):
        raise RobustTuneError(f"{path} is no checkpoint of robusttune: {INSTEAD}")
    return checkpoint


def _refuse_other_formats(path: str | Path, found: Any) -> None:
    if found == FORMAT:
        return
    if isinstance(found, int) and found > FORMAT:
        raise RobustTuneError(
            f"{path} has checkpoint format {found}, and this version of robusttune reads format {FORMAT}: "
            "update robusttune"
        )
    raise RobustTuneError(
        f"{path} was written by an older version of robusttune (checkpoint format {found or 'without number'}, "
        f"expected {FORMAT}): train again with this version"
    )


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
