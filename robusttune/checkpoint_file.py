"""Checkpoint files: the format number, the digest of the content, and safe reading."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from robusttune.errors import RobustTuneError
from robusttune.paths import user_path
from robusttune.regular_files import describe_path
from robusttune.types import Facts

KEY = "robusttune"  # key of this project's metadata in a checkpoint
FORMAT = 2  # Raise it whenever checkpoints of the version before can no longer be read.
ABOUT = {"format", "digest", "task", "settings", "facts", "image_encoder", "text_encoder", "inputs", "sha256"}
INSTEAD = "give one that `robusttune fit` wrote"


def seal(checkpoint: dict[str, Any]) -> None:
    """Add the format number and a digest of the whole checkpoint to its metadata, in place."""
    checkpoint[KEY] = {**checkpoint[KEY], "format": FORMAT}
    checkpoint[KEY]["digest"] = digest_of(checkpoint)


def digest_of(checkpoint: dict[str, Any]) -> str:
    """Return the SHA-256 of the metadata, weights and training state in a checkpoint, as hexadecimal digits.

    A digest that the metadata already contains is left out.
    """
    metadata = {name: value for name, value in checkpoint[KEY].items() if name != "digest"}
    digest = hashlib.sha256()
    for part in _bytes_of({**checkpoint, KEY: metadata}):
        digest.update(part)
    return digest.hexdigest()


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
    else:  # Leave out the repr of other objects: it may contain an address, which differs after reading.
        yield f"{type(value).__name__}\n".encode()


def checkpoint_path(path: str | Path) -> Path:
    """Return the checkpoint that a path means: for the folder of a run, its best checkpoint.

    Raises:
        RobustTuneError: The path is a folder without ``checkpoints/best.ckpt``.

    Example:
        >>> checkpoint_path("runs/demo/0/checkpoints/last.ckpt").as_posix()
        'runs/demo/0/checkpoints/last.ckpt'
    """
    own = user_path(path)
    if not own.is_dir():
        return own
    best = own / "checkpoints" / "best.ckpt"
    if best.exists():
        return best
    runs = sorted(folder.name for folder in own.glob("[0-9]*") if (folder / "checkpoints" / "best.ckpt").exists())
    remedy = f"such as {own / runs[-1]}" if runs else "that has finished an epoch"
    raise RobustTuneError(f"{own} has no checkpoints/best.ckpt: give the folder of one run, {remedy}")


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint of this project onto the CPU. No code in the file is executed.

    Returns:
        The checkpoint. Its metadata is found under `KEY`, its weights under ``state_dict``.

    Raises:
        RobustTuneError: The file is missing or damaged, was changed, has another format number, contains more than
            tensors and plain data, or is no checkpoint of this project.
    """
    checkpoint: dict[str, Any] = read_plain(Path(path), "a checkpoint of robusttune")
    metadata = checkpoint.get(KEY) if isinstance(checkpoint, dict) else None
    if not isinstance(metadata, dict) or "task" not in metadata:
        raise RobustTuneError(f"{path} is no checkpoint of robusttune: {INSTEAD}")
    _refuse_other_formats(path, metadata.get("format"))
    if not metadata.keys() >= ABOUT or "state_dict" not in checkpoint or metadata["digest"] != digest_of(checkpoint):
        raise RobustTuneError(
            f"{path} is not as it was written (its digest does not fit what it holds): use an unchanged copy"
        )
    if metadata["facts"].keys() != set(Facts._fields):
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
    """Read a file that `torch.save` has written, onto the CPU. No code in the file is executed.

    Args:
        path: Path of the file.
        instead: Noun phrase for the error message: the kind of file to use instead.

    Raises:
        RobustTuneError: The file is missing, damaged, or contains more than tensors and plain data.
    """
    problem = describe_path(path)
    if problem is not None:
        raise RobustTuneError(f"the checkpoint {path!s:.300} {problem}: give the path of {instead}")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise RobustTuneError(
            f"{path} holds more than tensors and plain data, and is not loaded: use {instead}"
        ) from None
    except PermissionError as error:
        raise RobustTuneError(f"{path} cannot be read ({error.strerror}): change its permissions") from None
    except Exception:  # For a damaged file torch raises RuntimeError, EOFError, OSError, ValueError, KeyError, ...
        raise RobustTuneError(f"{path} is damaged or no checkpoint: use another one") from None
