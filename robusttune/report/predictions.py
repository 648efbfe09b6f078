"""The predictions of a run for each test sample, read from Parquet files into arrays."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from robusttune.errors import RobustTuneError

COLUMNS = ("condition", "id", "label", "prediction")
NONE = -1  # index of a class that is not among the class names


@dataclass(frozen=True)
class Predictions:
    """The predictions of a run for N samples under K conditions, with C classes.

    The samples are sorted by id.

    Attributes:
        conditions: Names of the K conditions.
        ids: Ids of the N samples.
        samples: Hash of ids and labels. Two runs have the same hash if they were tested on the same samples.
        class_names: Names of the C classes.
        multilabel: Flag for samples with several labels.
        label: Class indices, shape (N,), int; in multi-label data class flags, shape (N, C), bool. An index is -1
            for a class that is not in ``class_names``.
        prediction: Predicted class indices, shape (K, N), int; in multi-label data class flags, shape (K, N, C), bool.
        table: Whole content of the files, in their order.
        rows: Row of the table for each condition and sample, shape (K, N), int.
    """

    conditions: list[str]
    ids: list[str]
    samples: str
    class_names: list[str]
    multilabel: bool
    label: NDArray[Any]
    prediction: NDArray[Any]
    table: pa.Table
    rows: NDArray[np.int64]

    def column(self, name: str) -> NDArray[Any]:
        """Return a column of the table by condition and sample.

        Args:
            name: Name of a column; in multi-label data, of one that holds a list with one number per class.

        Returns:
            Values, shape (K, N); in multi-label data shape (K, N, C).
        """
        values = self.table[name].combine_chunks()
        if not self.multilabel:
            return np.asarray(values.to_numpy(zero_copy_only=False))[self.rows]
        flat = np.asarray(values.flatten().to_numpy(zero_copy_only=False))
        return flat.reshape(len(values), len(self.class_names))[self.rows]

    @cached_property
    def correct(self) -> NDArray[np.bool_]:
        """Return whether each prediction equals the label, shape (K, N), for data with a single label per sample."""
        return np.asarray(self.prediction == self.label)


def read_predictions(path: Path) -> Predictions:
    """Read the predictions that `robusttune test` has written.

    Args:
        path: Folder of Parquet files, ``report/test.parquet`` in the folder of a run.

    Raises:
        RobustTuneError: The files have another format, or its conditions do not have the same samples.
    """
    try:
        return _predictions(pa.concat_tables([pq.read_table(shard) for shard in sorted(path.glob("*.parquet"))]))
    except (ValueError, TypeError, KeyError, AttributeError, IndexError, pa.ArrowException):
        raise RobustTuneError(
            f"{path} is not what this version of robusttune test writes: test the run again, or leave it out"
        ) from None


def _predictions(table: pa.Table) -> Predictions:
    metadata = json.loads(table.schema.metadata[b"robusttune"])
    names, multilabel = list(map(str, metadata["class_names"])), bool(metadata["multilabel"])
    condition, conditions = _codes(table["condition"])
    sample, ids = _codes(table["id"])
    rank_of_id = np.empty(len(ids), np.int64)
    rank_of_id[sorted(range(len(ids)), key=ids.__getitem__)] = np.arange(len(ids))
    rows = np.lexsort((rank_of_id[sample], condition)).reshape(len(conditions), len(ids))
    if (rank_of_id[sample][rows] != np.arange(len(ids))).any():
        raise ValueError("conditions are of other samples")
    read = _class_flags if multilabel else _class_indices
    label, prediction = read(table["label"], names)[rows[0]], read(table["prediction"], names)[rows]
    sorted_ids = pa.array(ids).take(pa.array(np.argsort(rank_of_id))).to_pylist()
    digest = hashlib.sha256(json.dumps(sorted_ids).encode())
    digest.update(json.dumps(table["label"].take(pa.array(rows[0])).to_pylist()).encode())
    return Predictions(conditions, sorted_ids, digest.hexdigest(), names, multilabel, label, prediction, table, rows)


def _codes(column: pa.ChunkedArray) -> tuple[NDArray[np.int64], list[str]]:
    """Return the index of each row's value, shape (R,), and the distinct values."""
    encoded = column.cast(pa.string()).combine_chunks().dictionary_encode()
    return np.asarray(encoded.indices.to_numpy(zero_copy_only=False)), encoded.dictionary.to_pylist()


def _class_indices(column: pa.ChunkedArray, names: list[str]) -> NDArray[Any]:
    """Return the class index of each row, shape (R,); `NONE` for a name that is not in ``names``."""
    found = pc.index_in(column.cast(pa.string()).combine_chunks(), value_set=pa.array(names, pa.string()))
    return np.asarray(pc.fill_null(found, NONE).to_numpy(zero_copy_only=False))


def _class_flags(column: pa.ChunkedArray, names: list[str]) -> NDArray[Any]:
    """Return which classes each row has, shape (R, C), bool; names that are not in ``names`` are ignored."""
    lists = column.combine_chunks()
    parents = np.asarray(pc.list_parent_indices(lists).to_numpy(zero_copy_only=False))
    found = pc.index_in(pc.list_flatten(lists).cast(pa.string()), value_set=pa.array(names, pa.string()))
    classes = np.asarray(pc.fill_null(found, NONE).to_numpy(zero_copy_only=False))
    flags = np.zeros((len(lists), len(names)), bool)
    known = classes != NONE
    flags[parents[known], classes[known]] = True
    return flags
