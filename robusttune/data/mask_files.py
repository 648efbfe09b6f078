"""Masks of missing modalities as files: by id in Parquet, or as the tables of codes that are in circulation."""

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
from robusttune.data.sources.files import unchanged
from robusttune.errors import RobustTuneError
from robusttune.paths import whole_file

SHOWN = {"complete": (True, True), "no_image": (False, True), "no_text": (True, False)}
USUAL = "{0: complete, 1: no_text, 2: no_image}"


def write_mask(path: Path, mask: Mask, about: Mapping[str, str]) -> None:
    """Write a mask that `read_mask` reads, whole or not at all.

    Args:
        path: a Parquet file; its folder is made.
        mask: to be written.
        about: what else is to be known of it, kept as the file's metadata, with its hash.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.table({"id": mask.ids, "image": mask.shown[:, 0], "text": mask.shown[:, 1]})
    with whole_file(path) as partial:
        pa.parquet.write_table(table.replace_schema_metadata({**about, "hash": mask.hash}), partial)


def read_mask(path: Path, ids: Sequence[str], codes: Mapping[int, str] | None, split: str) -> Mask:
    """The mask that a file has.

    Args:
        path: of a ``.parquet`` file by id, or of a ``.pt`` or ``.npy`` file of codes by row.
        ids: of the split's samples, in the order of its rows.
        codes: what codes mean; none for a file by id.
        split: that the samples are of.

    Raises:
        RobustTuneError: the file is of another kind, split or samples, was altered, or has a code without a meaning.
    """
    if path.suffix not in (".parquet", ".pt", ".npy") or not path.is_file():
        raise RobustTuneError(f"{path} is no .parquet, .pt, .npy file: give a table of a mask to data.missing")
    if (codes is None) == (path.suffix != ".parquet"):
        has = "by id, and has no codes: leave out" if codes else f"of codes: say what they mean, {USUAL}, in"
        raise RobustTuneError(f"{path} is a table {has} data.missing's codes")
    with unchanged(path):
        shown = _by_id(path, ids, split) if codes is None else _by_row(path, ids, codes)
    order = sorted(range(len(ids)), key=ids.__getitem__)
    return Mask([ids[row] for row in order], shown[order])


def _by_id(path: Path, ids: Sequence[str], split: str) -> NDArray[np.bool_]:
    try:
        table = pa.parquet.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise RobustTuneError(f"{path} is no readable Parquet file ({error!s:.120}): write it again") from None
    types = {name: str(table.schema.field(name).type) for name in table.column_names}
    if {name: types.get(name) for name in ("id", "image", "text")} != {"id": "string", "image": "bool", "text": "bool"}:
        raise RobustTuneError(f"{path} has not the columns id (string), image and text (bool), but {types}: write them")
    sides = zip(table["image"].to_pylist(), table["text"].to_pylist(), strict=True)
    found = dict(zip(table["id"].to_pylist(), sides, strict=True))
    lacking = [sample_id for sample_id in ids if sample_id not in found]
    if lacking or len(found) < len(table) or any(None in shown for shown in found.values()):
        what = f"lacks {len(lacking)} of {len(ids)} samples, the first is {lacking[0]!r}" if lacking else "is ambiguous"
        raise RobustTuneError(f"the mask {path} {what}: give the mask of this data")
    about = {key.decode(): value.decode() for key, value in (table.schema.metadata or {}).items()}
    if about.get("split", split) != split:  # ids that are row numbers would fit any split
        raise RobustTuneError(f"{path} is the mask of the {about['split']} split, not of {split}: give that of {split}")
    whole = sorted(found.items())
    content = Mask([sample_id for sample_id, _ in whole], np.array([sides for _, sides in whole], dtype=bool))
    if about.get("hash", content.hash) != content.hash:
        raise RobustTuneError(f"{path} was altered: its mask is {content.hash}, not {about['hash']}: write it again")
    return np.array([found[sample_id] for sample_id in ids], dtype=bool).reshape(-1, 2)


def _by_row(path: Path, ids: Sequence[str], codes: Mapping[int, str]) -> NDArray[np.bool_]:
    try:
        values: Any = torch.load(path, weights_only=True) if path.suffix == ".pt" else np.load(path)
        table = np.asarray(values)
    except Exception as error:  # a pickle can go wrong in any way
        raise RobustTuneError(f"{path} is no table of numbers ({error!s:.120}): give another one") from None
    if table.shape != (len(ids),):
        raise RobustTuneError(
            f"{path} is a table of shape {table.shape}, and the split has {len(ids)} rows: it is of other data, or of "
            "another copy"
        )
    unknown = sorted({float(code) for code in np.unique(table)} - {float(code) for code in codes})
    if unknown:
        counts = ", ".join(f"{code:g} {int((table == code).sum())} times" for code in unknown[:3])
        raise RobustTuneError(
            f"{path} has codes that data.missing's codes give no meaning ({counts}): say what they are"
        )
    if len(set(codes.values())) < len(codes):
        raise RobustTuneError(f"two codes of {path} mean the same, {dict(codes)}: usual is {USUAL}")
    return np.array([SHOWN[codes[int(code)]] for code in table.tolist()], dtype=bool).reshape(-1, 2)
