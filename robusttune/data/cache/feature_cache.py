"""The cache as the data module uses it: sides go in, sides of features come out."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Literal

import torch

from robusttune.data.cache.build import Builder, Request
from robusttune.data.cache.cached import Cached
from robusttune.data.cache.digests import file_digests
from robusttune.data.cache.fingerprint import describe, fingerprint
from robusttune.data.cache.store import Store
from robusttune.data.images import UnreadableImageError
from robusttune.data.modalities import RawModality
from robusttune.encoders import Encoder, FrozenEncoder
from robusttune.paths import cache_home, user_path
from robusttune.ranks import rank

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Running:
    """How an encoder is run.

    Attributes:
        precision: as the Trainer names it.
        context: of the encoder's forward pass.
        workers: loader processes on this rank.
        threads: that read files on this rank.
    """

    precision: str
    context: Callable[[], AbstractContextManager[Any]]
    workers: int
    threads: int


class FeatureCache:
    """A folder of features.

    Args:
        place: the folder, or ``auto`` for one in the user's cache.
        dtype: in which features are kept.
    """

    def __init__(self, place: str, dtype: Literal["bfloat16", "float32"]) -> None:
        self.root = cache_home() / "features" if place == "auto" else user_path(place)
        self.dtype: torch.dtype = getattr(torch, dtype)

    def fill(
        self,
        what: Literal["images", "texts"],
        settings: Encoder,
        encoder: FrozenEncoder,
        sides: Sequence[RawModality],
        running: Running,
        stop_at_unreadable: bool,
    ) -> tuple[list[Cached], list[str]]:
        """Compute what is not there; every rank must take part.

        Args:
            what: the sides are.
            settings: of the encoder.
            encoder: where it is to run.
            sides: with a limited number of views.
            running: see `Running`.
            stop_at_unreadable: whether an image that cannot be read ends it.

        Returns:
            The sides with features in the place of inputs, and a sentence for each image that could not be read.

        Raises:
            RobustTuneError: the folder cannot be written, or the disk has no room.
        """
        about = describe(settings, encoder, running.precision, self.dtype)
        name = fingerprint(about)
        store = Store(self.root / f"{what}-{name[:16]}", name, encoder.widths)
        keys = self._keys(sides, running.threads)
        wanted: dict[bytes, Request] = {}
        unreadable: list[str] = []
        for side, found in zip(sides, keys, strict=True):
            for (row, view), key in found.items():
                if key is None:
                    unreadable.append(_why(side, row, view))
                else:
                    wanted.setdefault(key, Request(key, side, row, view))
        if not (unreadable and stop_at_unreadable):
            builder = Builder(
                what,
                store,
                about,
                encoder,
                self.dtype,
                running.context,
                running.workers if what == "images" else 0,  # a process more costs more than to tokenise
                running.threads,
                stop_at_unreadable,
            )
            items = list(wanted.values())
            if what == "images":  # variants of an image one after the other, so that it is read once
                items.sort(key=lambda item: item.row)
            unreadable += builder.fill(items)
        return [_cached(side, store, found) for side, found in zip(sides, keys, strict=True)], unreadable

    def _keys(self, sides: Sequence[RawModality], threads: int) -> list[dict[tuple[int, int], bytes | None]]:
        """By side, the key of each (row, view) that there is."""
        files = sorted({path for side in sides for path in side.files()})
        digests = file_digests(files, self.root / "files.arrow", threads)
        if digests.changed and rank() == 0:
            log.warning(
                "%d image files are not what they were, the first is %s: their features are computed anew",
                len(digests.changed),
                digests.changed[0],
            )
        inputs = [
            [(row, view) for row in range(len(side)) if side.has(row) for view in range(side.views or 0)]
            for side in sides
        ]
        return [
            dict(zip(mine, side.keys(mine, digests.of), strict=True)) for side, mine in zip(sides, inputs, strict=True)
        ]


def _cached(side: RawModality, store: Store, keys: dict[tuple[int, int], bytes | None]) -> Cached:
    inputs = [(row, view) for row in range(len(side)) for view in range(side.views or 0)]
    places = store.places(keys.get(which) for which in inputs)
    return Cached(side, store, places.reshape(len(side), -1))


def _why(side: RawModality, row: int, view: int) -> str:
    try:
        side.read(row, view)
    except UnreadableImageError as error:
        return str(error)
    return f"the image of row {row} could not be read when it was looked for"
