"""The columns of predictions, and the writer of one part."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from robusttune.errors import RobustTuneError
from robusttune.inference.prediction import reaches
from robusttune.inference.tables.inputs import Piece
from robusttune.paths import partial_of, sync

PRESENT = np.array(["none", "text", "image", "both"], dtype=object)  # by 2 * has image + has text
VALUES = 4_000_000  # probabilities that are in memory before they are written


@dataclass(frozen=True)
class ResultColumns:
    """The columns of predictions.

    All have ``id``, ``prediction`` (a class; in multi-label data the list of classes whose probability reaches the
    threshold), ``probability`` (of the most probable class), ``modalities`` (``both``, ``image``, ``text`` or
    ``none``) and ``unreadable`` (the reason why a part of the row could not be used, or null). Then follow the
    probability of each class, ``p_<class>``; or ``top_classes`` and ``top_probabilities``, lists in descending order;
    and the columns that are copied from the input.

    Attributes:
        classes: Names of the C classes, in label order.
        multilabel: Flag, True if a sample may have any number of classes.
        top_k: Number of classes in the lists; None for one column per class.
        kept: Types of the columns that are copied, by name.
        threshold: Threshold of multi-label predictions, see `reaches`.

    Raises:
        RobustTuneError: ``top_k`` is out of range, or a copied column has the name of another one.

    Example:
        >>> ResultColumns(["cat", "dog"], multilabel=False, top_k=None).schema.names[-3:]
        ['unreadable', 'p_cat', 'p_dog']
    """

    classes: Sequence[str]
    multilabel: bool
    top_k: int | None
    kept: Mapping[str, pa.DataType] = field(default_factory=dict)
    threshold: float | NDArray[np.float32] = 0.5

    def __post_init__(self) -> None:
        if self.top_k is not None and not 1 <= self.top_k <= len(self.classes):
            raise RobustTuneError(f"--top_k is {self.top_k}, and there are {len(self.classes)} classes: give 1 to all")
        names = self.schema.names
        twice = [name for name in self.kept if names.count(name) > 1]
        if twice:
            raise RobustTuneError(
                f"the input has a column {twice[0]!r:.80}, as the predictions have: rename it, or leave it out of "
                "--columns"
            )

    @cached_property
    def schema(self) -> pa.Schema:
        """Return the names and types of the columns."""
        text, number = pa.string(), pa.float32()
        fields = [("id", text), ("prediction", pa.list_(text) if self.multilabel else text), ("probability", number)]
        fields += [("modalities", text), ("unreadable", text)]
        if self.top_k is None:
            fields += [(f"p_{name}", number) for name in self.classes]
        else:
            fields += [("top_classes", pa.list_(text)), ("top_probabilities", pa.list_(number))]
        return pa.schema([*fields, *self.kept.items()])

    def table(
        self,
        ids: pa.Array,
        probabilities: NDArray[np.float32],
        present: NDArray[np.bool_],
        unreadable: Sequence[str | None],
        kept: Mapping[str, pa.Array],
    ) -> pa.Table:
        """Return the predictions of ``B`` samples as a table.

        Args:
            ids: Identifiers.
            probabilities: Class probabilities, shape (B, C), float32.
            present: Flags that the sample has an image and that it has a text, shape (B, 2).
            unreadable: Reason why a part of the sample could not be used, or None.
            kept: Columns that are copied from the input.
        """
        names = pa.array(self.classes, pa.string())
        best = probabilities.argmax(1)
        columns = [
            ids,
            _lists(reaches(probabilities, present, self.threshold), names)
            if self.multilabel
            else names.take(pa.array(best)),
            pa.array(probabilities[np.arange(len(best)), best]),
            pa.array(PRESENT[2 * present[:, 0] + present[:, 1]], pa.string()),
            pa.array(unreadable, pa.string()),
        ]
        if self.top_k is None:
            columns += [pa.array(column) for column in np.ascontiguousarray(probabilities.T)]
        else:
            order = np.argsort(-probabilities, axis=1, kind="stable")[:, : self.top_k]
            ends = pa.array(np.arange(len(order) + 1, dtype=np.int32) * self.top_k)
            ordered = np.take_along_axis(probabilities, order, 1)
            columns.append(pa.ListArray.from_arrays(ends, names.take(pa.array(order.ravel()))))
            columns.append(pa.ListArray.from_arrays(ends, pa.array(ordered.ravel())))
        return pa.table([*columns, *(kept[name] for name in self.kept)], self.schema)


class PartWriter:
    """The writer of one part. Its file appears under its name when it is complete, never before.

    Args:
        folder: Folder of the predictions.
        piece: Samples of the part.
        columns: Columns of the predictions.

    Attributes:
        rows: Number of predictions so far.
    """

    def __init__(self, folder: Path, piece: Piece, columns: ResultColumns) -> None:
        self.path = folder / piece.part.name
        self.piece = piece
        self.rows = 0
        self._columns = columns
        self._waiting: list[pa.Table] = []
        self._partial = partial_of(self.path)
        self._files = ExitStack()
        self._file: pq.ParquetWriter | None = None
        for left in self.path.parent.glob(f".{self.path.name}.*.partial"):
            left.unlink(missing_ok=True)  # A process that was killed while writing left it.

    def add(
        self, probabilities: NDArray[np.float32], present: NDArray[np.bool_], unreadable: Iterable[tuple[int, str]]
    ) -> list[str | None]:
        """Add the predictions of the next ``B`` samples, and return the reason for each that could not be used whole.

        Args:
            probabilities: Class probabilities, shape (B, C), float32.
            present: Flags that the sample has an image and that it has a text, shape (B, 2).
            unreadable: Rows of images that could not be read, from 0, with the reasons.
        """
        size = len(probabilities)
        reasons = self.piece.problems[self.rows : self.rows + size]
        for row, reason in unreadable:
            reasons[row] = f"{reasons[row]}; {reason}" if reasons[row] else reason
        kept = {name: values.slice(self.rows, size) for name, values in self.piece.kept.items()}
        table = self._columns.table(self.piece.ids.slice(self.rows, size), probabilities, present, reasons, kept)
        self._waiting.append(table)
        self.rows += size
        if sum(map(len, self._waiting)) * probabilities.shape[1] > VALUES:
            self._write()
        return reasons

    @property
    def is_complete(self) -> bool:
        """Return whether all rows of the part have their predictions."""
        return self.rows == self.piece.part.rows

    def finish(self) -> None:
        """Write the rest, and give the file its name."""
        self._write()
        self._files.close()
        sync(self._partial)
        self._partial.replace(self.path)

    def discard(self) -> None:
        """Remove the file, which is not complete."""
        self._files.close()
        self._partial.unlink(missing_ok=True)

    def _write(self) -> None:
        if self._file is None:
            self._file = self._files.enter_context(pq.ParquetWriter(self._partial, self._columns.schema))
        if self._waiting:
            self._file.write_table(pa.concat_tables(self._waiting).combine_chunks())
        self._waiting = []


def _lists(chosen: NDArray[np.bool_], names: pa.Array) -> pa.ListArray:
    """Return a list of class names per sample, given a mask of the chosen classes, shape (B, C)."""
    ends = np.concatenate([[0], chosen.sum(1).cumsum()]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(ends), names.take(pa.array(chosen.nonzero()[1])))
