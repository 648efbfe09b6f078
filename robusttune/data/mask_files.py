"""Files with masks of missing modalities: by sample id in Parquet, or published arrays with one code per row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import torch
from numpy.typing import NDArray

from robusttune.corruption.missing import Mask
from robusttune.counting import counted
from robusttune.data.sources.files import guard_against_changes
from robusttune.errors import RobustTuneError
from robusttune.paths import atomic_write

SHOWN = {"complete": (True, True), "no_image": (False, True), "no_text": (True, False)}
USUAL = "{0: complete, 1: no_text, 2: no_image}"


def write_mask(path: Path, mask: Mask, about: Mapping[str, str]) -> None:
    """Write a mask to a Parquet file for `read_mask`. The file is replaced atomically.

    Args:
        path: Path of the Parquet file. Its folder is created if it does not exist.
        mask: Mask to write.
        about: Metadata of the file, such as its split and protocol. The hash of the mask is added.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.table({"id": mask.ids, "image": mask.present[:, 0], "text": mask.present[:, 1]})
    with atomic_write(path) as partial:
        pa.parquet.write_table(table.replace_schema_metadata({**about, "hash": mask.hash}), partial)


def read_mask(
    path: Path,
    ids: Sequence[str],
    codes: Mapping[int, str] | None,
    split: str,
    rows: tuple[Sequence[int], int] | None = None,
) -> Mask:
    """Read a mask from a file.

    Args:
        path: Path of a ``.parquet`` file with a mask by sample id, or of a ``.pt`` or ``.npy`` array with one code per
            row.
        ids: Ids of the split's samples, in the order of its rows.
        codes: Meaning of the codes of an array: ``complete``, ``no_image`` or ``no_text``; None for a Parquet file.
        split: Split of the samples. A file that was written for another split is refused.
        rows: Row of each sample in an array, and the number of its rows; None if each sample is a row.

    Returns:
        Mask of the samples in ``ids``, sorted by id.

    Raises:
        RobustTuneError: The file is unreadable, belongs to another split or other samples, was altered, or has a code
            without a meaning.
    """
    if path.suffix not in (".parquet", ".pt", ".npy") or not path.is_file():
        raise RobustTuneError(f"{path} is no .parquet, .pt, .npy file: give a table of a mask to data.missing")
    if (codes is None) == (path.suffix != ".parquet"):
        has = "by id, and has no codes: leave out" if codes else f"of codes: say what they mean, {USUAL}, in"
        raise RobustTuneError(f"{path} is a table {has} data.missing's codes")
    with guard_against_changes(path):
        shown = (
            _by_id(path, ids, split) if codes is None else _by_row(path, codes, *(rows or (range(len(ids)), len(ids))))
        )
    order = sorted(range(len(ids)), key=ids.__getitem__)
    return Mask([ids[row] for row in order], shown[order])


def _by_id(path: Path, ids: Sequence[str], split: str) -> NDArray[np.bool_]:
    """Read a Parquet mask; return the presence of image and text for each id, shape (N, 2), bool."""
    try:
        table = pa.parquet.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise RobustTuneError(f"{path} is no readable Parquet file ({error!s:.120}): write it again") from None
    types = {name: str(table.schema.field(name).type) for name in table.column_names}
    if {name: types.get(name) for name in ("id", "image", "text")} != {"id": "string", "image": "bool", "text": "bool"}:
        raise RobustTuneError(
            f"{path} needs the columns id (string), image and text (bool), but has {types}: write them"
        )
    presence = zip(table["image"].to_pylist(), table["text"].to_pylist(), strict=True)
    found = dict(zip(table["id"].to_pylist(), presence, strict=True))
    absent = [sample_id for sample_id in ids if sample_id not in found]
    if absent or len(found) < len(table) or any(None in shown for shown in found.values()):
        problem = (
            f"lacks {len(absent)} of {counted(len(ids), 'sample')}, the first is {absent[0]!r}"
            if absent
            else "is ambiguous"
        )
        raise RobustTuneError(f"the mask {path} {problem}: give the mask of this data")
    about = {key.decode(): value.decode() for key, value in (table.schema.metadata or {}).items()}
    if about.get("split", split) != split:  # ids such as row numbers would match any split
        raise RobustTuneError(f"{path} is the mask of the {about['split']} split, not of {split}: give that of {split}")
    entries = sorted(found.items())
    content = Mask([sample_id for sample_id, _ in entries], np.array([shown for _, shown in entries], dtype=bool))
    if about.get("hash", content.hash) != content.hash:
        raise RobustTuneError(f"{path} was altered: its mask is {content.hash}, not {about['hash']}: write it again")
    return np.array([found[sample_id] for sample_id in ids], dtype=bool).reshape(-1, 2)


def _by_row(path: Path, codes: Mapping[int, str], rows: Sequence[int], count: int) -> NDArray[np.bool_]:
    """Read an array of ``count`` codes; return the presence of image and text for each of ``rows``, shape (N, 2)."""
    try:
        values: Any = torch.load(path, weights_only=True) if path.suffix == ".pt" else np.load(path)
        table = np.asarray(values)
    except Exception as error:  # a damaged pickle can raise any exception
        raise RobustTuneError(f"{path} is no table of numbers ({error!s:.120}): give another one") from None
    if table.shape != (count,):
        raise RobustTuneError(
            f"{path} is a table of shape {table.shape}, and the split has {counted(count, 'row')}: give the table "
            "of this copy of the data"
        )
    unknown = sorted({float(code) for code in np.unique(table)} - {float(code) for code in codes})
    if unknown:
        counts = ", ".join(f"{code:g} {int((table == code).sum())} times" for code in unknown[:3])
        raise RobustTuneError(
            f"{path} has codes that data.missing's codes do not contain ({counts}): add their meaning"
        )
    if len(set(codes.values())) < len(codes):
        raise RobustTuneError(f"two codes of {path} mean the same, {dict(codes)}: usual is {USUAL}")
    shown = np.array([SHOWN[codes[int(code)]] for code in table.tolist()], dtype=bool).reshape(-1, 2)
    return shown[np.asarray(rows, dtype=np.int64)]
