"""The logits of the samples that a process evaluates, kept in memory or, if they are many, in a temporary file."""

from __future__ import annotations

import os
import tempfile
import weakref
from collections.abc import Iterator
from typing import IO, Any

import torch
from torch import Tensor

from robusttune.errors import RobustTuneError
from robusttune.evaluation.classes import Classes
from robusttune.evaluation.scores import Scores

IN_MEMORY = 256_000_000  # bytes of logits in memory; more of them are written to a file
AT_ONCE = 1_000_000  # numbers of one view in a block: 4 MB


class ScoreStore:
    """A store of the scores of one process.

    Its memory is bounded by `IN_MEMORY` and by the largest batch, apart from ids, labels and flags of the samples.

    Args:
        classes: Classes of the evaluation.

    Attributes:
        sample_id: Ids of the N samples, in the order in which they were added.
    """

    def __init__(self, classes: Classes) -> None:
        self.sample_id: list[str] = []
        none = torch.zeros(0, len(classes.names), dtype=torch.bool)
        self._labels = [none if classes.multilabel else torch.zeros(0, dtype=torch.int64)]
        self._present = [torch.zeros(0, 2, dtype=torch.bool)]
        self._finite = [torch.zeros(0, dtype=torch.bool)]
        self._pieces: list[_Piece] = []
        self._in_memory = 0
        self._file: IO[bytes] | None = None

    def __len__(self) -> int:
        return len(self.sample_id)

    @property
    def label(self) -> Tensor:
        """Return class indices, shape (N,), int64, or class flags, shape (N, C), bool, in multi-label data."""
        return torch.cat(self._labels)

    @property
    def present(self) -> Tensor:
        """Return flags that a sample has an image and that it has a text, shape (N, 2), bool."""
        return torch.cat(self._present)

    @property
    def finite(self) -> Tensor:
        """Return flags of samples whose logits are all finite, shape (N,), bool."""
        return torch.cat(self._finite)

    def add(self, scores: Scores) -> None:
        """Add the scores of a batch.

        Raises:
            RobustTuneError: The temporary file cannot be written.
        """
        self.sample_id += scores.sample_id
        self._finite.append(torch.stack([view.isfinite().all(1) for view in scores.logits]).all(0))
        self._labels.append(scores.label if scores.label.dim() == 1 else scores.label.bool())
        self._present.append(scores.present)
        piece = _Piece(scores.logits, None if scores.unknown is scores.logits else scores.unknown)
        self._pieces.append(piece)
        self._in_memory += piece.size
        if self._in_memory > IN_MEMORY:
            self._write()

    def blocks(self) -> Iterator[Block]:
        """Yield the samples in blocks of about `AT_ONCE` numbers a view, in the order in which they were added."""
        pieces: list[_Piece] = []
        start = numbers = 0
        for piece in self._pieces:
            pieces.append(piece)
            numbers += piece.rows * piece.classes
            if numbers >= AT_ONCE:
                yield Block(start, pieces)
                start, pieces, numbers = start + sum(part.rows for part in pieces), [], 0
        if pieces:
            yield Block(start, pieces)

    def _write(self) -> None:
        """Move the logits that are in memory to the file."""
        try:
            if self._file is None:
                self._file = tempfile.TemporaryFile(prefix="robusttune-logits-")  # noqa: SIM115, see the next line
                weakref.finalize(self, self._file.close)
            for piece in self._pieces:
                piece.write(self._file)
            self._file.flush()
        except OSError as error:
            folder, reason = tempfile.gettempdir(), os.strerror(error.errno or 0)
            raise RobustTuneError(
                f"the logits of this evaluation do not fit into {folder} ({reason}): set TMPDIR to a folder with "
                "more room, or evaluate fewer conditions"
            ) from error
        self._in_memory = 0


class Block:
    """Some consecutive samples of a store.

    Attributes:
        rows: Range of the samples in the store.
    """

    def __init__(self, start: int, pieces: list[_Piece]) -> None:
        self.rows = slice(start, start + sum(piece.rows for piece in pieces))
        self._pieces = pieces

    def logits(self, view: int) -> Tensor:
        """Return the logits of the samples in a view, shape (n, C)."""
        return self._read(view, unknown=False)

    def unknown(self, view: int) -> Tensor:
        """Return the logits without knowledge of base and new classes, shape (n, C)."""
        return self._read(view, unknown=True)

    @property
    def is_known(self) -> bool:
        """Return whether `unknown` equals `logits`."""
        return all(piece.is_known for piece in self._pieces)

    def _read(self, view: int, unknown: bool) -> Tensor:
        """Return logits of all pieces in one tensor, without copies of the pieces."""
        rows = [piece.rows for piece in self._pieces]
        whole = torch.empty(sum(rows), self._pieces[0].classes)
        for piece, part in zip(self._pieces, torch.split(whole, rows), strict=True):
            piece.read(view, unknown, part)
        return whole


class _Piece:
    """The logits of a batch, shape (W, n, C), in memory or in a file."""

    def __init__(self, logits: Tensor, unknown: Tensor | None) -> None:
        self.views, self.rows, self.classes = logits.shape
        self.is_known = unknown is None
        self._tensors: list[Tensor] | None = [logits] if unknown is None else [logits, unknown]
        self._file: Any = None
        self._offset = 0

    @property
    def size(self) -> int:
        """Return the number of bytes of logits in memory."""
        return 0 if self._tensors is None else sum(tensor.nbytes for tensor in self._tensors)

    def write(self, file: IO[bytes]) -> None:
        """Move the logits to the end of a file, unless they are in it."""
        if self._tensors is not None:
            self._offset = file.seek(0, os.SEEK_END)
            for tensor in self._tensors:
                file.write(tensor.contiguous().numpy().data)
            self._file, self._tensors = file, None

    def read(self, view: int, unknown: bool, into: Tensor) -> None:
        """Copy the logits of a view into a tensor, shape (n, C)."""
        part = 1 if unknown and not self.is_known else 0
        if self._tensors is not None:
            into.copy_(self._tensors[part][view])
            return
        length = 4 * self.rows * self.classes  # bytes of a view in float32
        start = self._offset + (part * self.views + view) * length
        if os.preadv(self._file.fileno(), [into.numpy().data], start) != length:
            raise RobustTuneError("the temporary file of logits cannot be read: check the disk of TMPDIR")
