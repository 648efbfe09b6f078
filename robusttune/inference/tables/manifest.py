"""The manifest of predictions: what they were computed from, and the rows of each part."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from robusttune.errors import RobustTuneError
from robusttune.inference.tables.plan import PARTS, Part
from robusttune.paths import partial_of, sync
from robusttune.settings import differences

NAME = "manifest.json"
FORMAT = 1  # Raise it whenever the columns or the manifest of predictions change.
WORDS = {"checkpoint": "another checkpoint", "input": "another input", "settings": "other settings"}


def take_folder(folder: Path, identity: Mapping[str, Any], parts: Sequence[Part]) -> None:
    """Create the folder of predictions with its manifest, or check that it belongs to the same prediction.

    Several processes may do this at the same time.

    Args:
        folder: Folder of the predictions.
        identity: Checkpoint, input and settings of the prediction, as plain data; see `WORDS` for the keys.
        parts: Parts of the output.

    Raises:
        RobustTuneError: The folder cannot be written, or has other predictions, or a part in it is damaged.
    """
    rows = [{"file": part.name, "first_row": part.start, "rows": part.rows} for part in parts]
    manifest = {"format": FORMAT, **identity, "rows": parts[-1].stop, "parts": rows}
    if folder.exists() and not folder.is_dir():
        raise RobustTuneError(f"{folder!s:.300} is no folder: give --out a folder for the predictions")
    try:
        (folder / PARTS).mkdir(parents=True, exist_ok=True)
        found = folder / NAME
        if not found.exists():
            _refuse_unknown_parts(folder)
            _write(found, manifest)
        _refuse_another(folder, json.loads(json.dumps(manifest)), json.loads(found.read_text(encoding="utf-8")))
    except OSError as error:
        raise cannot_write(folder, error) from error
    except ValueError:
        raise RobustTuneError(f"{folder / NAME!s:.300} is damaged: give another --out, or remove the folder") from None
    for part in parts:
        _check_part(folder / part.name, part.rows)


def cannot_write(folder: Path, error: OSError) -> RobustTuneError:
    """Return the error for a folder of predictions that cannot be written."""
    reason = os.strerror(error.errno) if error.errno else str(error)  # pyarrow writes a whole sentence to strerror
    return RobustTuneError(
        f"the predictions in {folder!s:.300} cannot be written ({reason}): make room, or give another --out; the same "
        "command then continues after the last finished part"
    )


def _write(path: Path, manifest: Mapping[str, Any]) -> None:
    """Write the manifest, unless another process has just done so."""
    partial = partial_of(path)
    try:
        partial.write_text(json.dumps(manifest, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        sync(partial)
        try:
            path.hardlink_to(partial)  # Unlike a renaming, it never replaces the manifest of another process.
        except FileExistsError:
            return
        except OSError:  # The file system has no hard links.
            partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _refuse_unknown_parts(folder: Path) -> None:
    other = next(folder.glob(f"{PARTS}/part-*.parquet"), None)
    if other is not None:
        raise RobustTuneError(
            f"{folder!s:.300} has {other.relative_to(folder)} and no {NAME}: give --out an empty folder"
        )


def _refuse_another(folder: Path, ours: dict[str, Any], theirs: Any) -> None:
    """Raise an error if the manifest of a folder is that of another prediction."""
    if not isinstance(theirs, dict) or theirs.get("format") != FORMAT:
        raise RobustTuneError(f"{folder!s:.300} was written by another version of robusttune: give another --out")
    for key, word in WORDS.items():
        lines = differences(ours[key], theirs.get(key))
        if lines:
            raise RobustTuneError(
                f"{folder!s:.300} has the predictions of {word} ({'; '.join(lines[:3]):.300}): give another --out"
            )
    if ours != theirs:
        raise RobustTuneError(f"{folder!s:.300} has the predictions of another run: give another --out")


def _check_part(path: Path, rows: int) -> None:
    """Check that the file of a part is whole, if it exists."""
    try:
        found = pq.read_metadata(path).num_rows
    except FileNotFoundError:
        return
    except (OSError, pa.ArrowException):
        found = None
    if found != rows:
        raise RobustTuneError(f"{path!s:.300} is damaged: remove it, and the same command computes it again")
