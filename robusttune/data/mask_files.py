"""Files with masks of missing modalities: by sample id in Parquet, or published arrays with one code per row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet
import torch
from numpy.typing import NDArray

from robusttune.corruption.masks import Mask, as_column
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
    parts = [pa.table({"id": ids, "image": shown[:, 0], "text": shown[:, 1]}) for ids, shown in mask.sorted()]
    table = pa.concat_tables(parts).replace_schema_metadata({**about, "hash": mask.hash})
    with atomic_write(path) as partial:
        pa.parquet.write_table(table, partial)


def read_mask(
    path: Path,
    ids: Sequence[str] | pa.ChunkedArray,
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
        Mask of the samples in ``ids``, in their order.

    Raises:
        RobustTuneError: The file is unreadable, belongs to another split or other samples, was altered, or has a code
            without a meaning.
    """
    if path.suffix not in (".parquet", ".pt", ".npy") or not path.is_file():
        raise RobustTuneError(f"{path} is no .parquet, .pt, .npy file: give a table of a mask to data.missing")
    if (codes is None) == (path.suffix != ".parquet"):
        has = "by id, and has no codes: leave out" if codes else f"of codes: say what they mean, {USUAL}, in"
        raise RobustTuneError(f"{path} is a table {has} data.missing's codes")
    ids = as_column(ids)
    with guard_against_changes(path):
        shown = (
            _by_id(path, ids, split) if codes is None else _by_row(path, codes, *(rows or (range(len(ids)), len(ids))))
        )
    return Mask(ids, shown)


def _by_id(path: Path, ids: pa.ChunkedArray, split: str) -> NDArray[np.bool_]:
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
    known, has_nulls = pc.unique(table["id"]), any(table[name].null_count for name in ("id", "image", "text"))
    places = pc.index_in(ids, known)  # rows of the table, if its ids are unique
    if places.null_count or len(known) < len(table) or has_nulls:
        absent = ids.filter(places.is_null())
        problem = (
            f"lacks {len(absent)} of {counted(len(ids), 'sample')}, the first is {absent[0].as_py()!r}"
            if len(absent)
            else "is ambiguous"
        )
        raise RobustTuneError(f"the mask {path} {problem}: give the mask of this data")
    about = {key.decode(): value.decode() for key, value in (table.schema.metadata or {}).items()}
    if about.get("split", split) != split:  # ids such as row numbers would match any split
        raise RobustTuneError(f"{path} is the mask of the {about['split']} split, not of {split}: give that of {split}")
    shown: NDArray[np.bool_] = np.stack([np.asarray(table[modality]) for modality in ("image", "text")], axis=1)
    content = Mask(table["id"], shown)
    if about.get("hash", content.hash) != content.hash:
        raise RobustTuneError(f"{path} was altered: its mask is {content.hash}, not {about['hash']}: write it again")
    return shown[np.asarray(places, dtype=np.int64)]


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
    shown = np.zeros((len(table), 2), dtype=bool)
    for code, meaning in codes.items():
        shown[table == code] = SHOWN[meaning]
    return shown[np.asarray(rows, dtype=np.int64)]
