"""What was not as it should be, and was put up with: counted, and told at the end."""

from __future__ import annotations

import logging
from typing import NamedTuple

from robusttune.ranks import on_rank_zero
from robusttune.types import Batch, Split

log = logging.getLogger(__name__)


class Found(NamedTuple):
    """In one split, each once however often it was drawn.

    Attributes:
        unreadable: a sentence for each image file that could not be read.
        cut: ids of samples whose text was cut.
    """

    unreadable: set[str]
    cut: set[str]


class Tally:
    """Counts over batches, epochs, workers and ranks."""

    def __init__(self) -> None:
        self.found: dict[Split, Found] = {}

    def add(self, batch: Batch) -> None:
        found = self.found.setdefault(batch.split, Found(set(), set()))
        found.unreadable.update(batch.unreadable)
        found.cut.update(batch.cut)

    def tell(self) -> None:
        """Log what was found since the last time; every rank must take part."""
        found, self.found = self.found, {}
        on_rank_zero(found, lambda parts: _tell(_merge(parts)))

    def tell_alone(self) -> None:
        """Log what was found on this rank: where a run fails, the others may not take part."""
        found, self.found = self.found, {}
        _tell(found)


def _merge(parts: list[dict[Split, Found]]) -> dict[Split, Found]:
    merged: dict[Split, Found] = {}
    for part in parts:
        for split, found in part.items():
            whole = merged.setdefault(split, Found(set(), set()))
            whole.unreadable.update(found.unreadable)
            whole.cut.update(found.cut)
    return merged


def _tell(found: dict[Split, Found]) -> None:
    for split, (unreadable, cut) in found.items():
        if unreadable:
            what = "image files could not be read and were taken for absent; the first:"
            log.warning("%s: %d %s %s", split, len(unreadable), what, min(unreadable))
        if cut:
            what = "texts were longer than text_encoder.max_length and were cut; the first is that of sample"
            log.warning("%s: %d %s %r", split, len(cut), what, min(cut))
