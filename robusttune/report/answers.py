"""What a run answered, sample by sample, as arrays."""

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
NONE = -1  # the number of a class that there is not


@dataclass(frozen=True)
class Answers:
    """Of N samples under K conditions, told apart among C classes.

    Attributes:
        conditions: K names.
        samples: a hash of ids and labels: that of two runs is the same where their samples are.
        class_names: C names.
        multilabel: whether samples have several labels.
        label: (N,) int, numbers of classes; (N, C) bool in multi-label data. Samples are in the order of their ids.
        prediction: (K, N) int; (K, N, C) bool in multi-label data.
        table: the whole file, in its own order.
        rows: (K, N) rows of the file.
    """

    conditions: list[str]
    samples: str
    class_names: list[str]
    multilabel: bool
    label: NDArray[Any]
    prediction: NDArray[Any]
    table: pa.Table
    rows: NDArray[np.int64]

    def column(self, name: str) -> NDArray[Any]:
        """A column of the file, (K, N), or (K, N, C) for one of lists with a number a class."""
        values = self.table[name].combine_chunks()
        if not self.multilabel:
            return np.asarray(values.to_numpy(zero_copy_only=False))[self.rows]
        flat = np.asarray(values.flatten().to_numpy(zero_copy_only=False))
        return flat.reshape(len(values), len(self.class_names))[self.rows]

    @cached_property
    def correct(self) -> NDArray[np.bool_]:
        """(K, N) whether the answer is the label; of single labels."""
        return np.asarray(self.prediction == self.label)


def read_answers(path: Path) -> Answers:
    """Read a file that `robusttune test` has written.

    Raises:
        RobustTuneError: it is another file, or its conditions are not of the same samples.
    """
    try:
        return _answers(pq.read_table(path))
    except (ValueError, TypeError, KeyError, AttributeError, IndexError, pa.ArrowException):
        raise RobustTuneError(
            f"{path} is not what this version of robusttune test writes: test the run again, or leave it out"
        ) from None


def _answers(table: pa.Table) -> Answers:
    about = json.loads(table.schema.metadata[b"robusttune"])
    names, multilabel = list(map(str, about["class_names"])), bool(about["multilabel"])
    condition, conditions = _codes(table["condition"])
    sample, ids = _codes(table["id"])
    by_id = np.empty(len(ids), np.int64)
    by_id[sorted(range(len(ids)), key=ids.__getitem__)] = np.arange(len(ids))
    rows = np.lexsort((by_id[sample], condition)).reshape(len(conditions), len(ids))
    if (by_id[sample][rows] != np.arange(len(ids))).any():
        raise ValueError("conditions are of other samples")
    read = _hot if multilabel else _numbers
    label, prediction = read(table["label"], names)[rows[0]], read(table["prediction"], names)[rows]
    in_order = pa.array(ids).take(pa.array(np.argsort(by_id)))
    digest = hashlib.sha256(json.dumps(in_order.to_pylist()).encode())
    digest.update(json.dumps(table["label"].take(pa.array(rows[0])).to_pylist()).encode())
    return Answers(conditions, digest.hexdigest(), names, multilabel, label, prediction, table, rows)


def _codes(column: pa.ChunkedArray) -> tuple[NDArray[np.int64], list[str]]:
    """Numbers of the values, and the values."""
    encoded = column.cast(pa.string()).combine_chunks().dictionary_encode()
    return np.asarray(encoded.indices.to_numpy(zero_copy_only=False)), encoded.dictionary.to_pylist()


def _numbers(column: pa.ChunkedArray, names: list[str]) -> NDArray[Any]:
    """(R,) the class of each row."""
    found = pc.index_in(column.cast(pa.string()).combine_chunks(), value_set=pa.array(names, pa.string()))
    return np.asarray(pc.fill_null(found, NONE).to_numpy(zero_copy_only=False))


def _hot(column: pa.ChunkedArray, names: list[str]) -> NDArray[Any]:
    """(R, C) which classes each row has."""
    lists = column.combine_chunks()
    parents = np.asarray(pc.list_parent_indices(lists).to_numpy(zero_copy_only=False))
    found = pc.index_in(pc.list_flatten(lists).cast(pa.string()), value_set=pa.array(names, pa.string()))
    classes = np.asarray(pc.fill_null(found, NONE).to_numpy(zero_copy_only=False))
    hot = np.zeros((len(lists), len(names)), bool)
    known = classes != NONE
    hot[parents[known], classes[known]] = True
    return hot
