"""Counts of tolerated problems (unreadable images, texts that were cut), which are logged at the end of a stage."""

from __future__ import annotations

import logging
from typing import NamedTuple

from robusttune.counting import counted
from robusttune.ranks import on_rank_zero
from robusttune.types import Batch, Split

log = logging.getLogger(__name__)


class Found(NamedTuple):
    """The problems in one split. Each problem counts once, even if its sample is drawn several times.

    Attributes:
        unreadable: Error messages, one for each image file that could not be read.
        cut: Ids of samples whose text was cut.
    """

    unreadable: set[str]
    cut: set[str]


class Tally:
    """A collector of problems over batches, epochs, workers and ranks.

    Attributes:
        found: Problems of each split since the last log message.
    """

    def __init__(self) -> None:
        self.found: dict[Split, Found] = {}

    def add(self, batch: Batch) -> None:
        """Add the problems of a batch."""
        found = self.found.setdefault(batch.split, Found(set(), set()))
        found.unreadable.update(batch.unreadable)
        found.cut.update(batch.cut)

    def log(self) -> None:
        """Log the problems of all ranks since the last call, and reset the counts; every rank must take part."""
        found, self.found = self.found, {}
        on_rank_zero(found, lambda parts: _log_found(_merge(parts)))

    def log_local(self) -> None:
        """Log the problems of this rank alone: after a failure, other ranks may no longer take part."""
        found, self.found = self.found, {}
        _log_found(found)


def _merge(parts: list[dict[Split, Found]]) -> dict[Split, Found]:
    """Return the union of the problems of all ranks."""
    merged: dict[Split, Found] = {}
    for part in parts:
        for split, found in part.items():
            whole = merged.setdefault(split, Found(set(), set()))
            whole.unreadable.update(found.unreadable)
            whole.cut.update(found.cut)
    return merged


def _log_found(found: dict[Split, Found]) -> None:
    """Log a warning for each split and kind of problem."""
    for split, (unreadable, cut) in found.items():
        if unreadable:
            files = counted(len(unreadable), "image file")
            log.warning("%s: %s unreadable, treated as absent; the first: %s", split, files, min(unreadable))
        if cut:
            texts = counted(len(cut), "text")
            log.warning("%s: %s cut to text_encoder.max_length; the first is that of sample %r", split, texts, min(cut))
