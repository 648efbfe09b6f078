"""A feature cache of a few inputs, which stand in for all others: what a whole one would take, and how it is read."""

from __future__ import annotations

import hashlib
import random
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from robusttune.data.cache import Cached, FeatureCache, Running
from robusttune.data.cache.build import Builder, Request
from robusttune.data.cache.digests import file_digests
from robusttune.data.cache.fingerprint import describe, fingerprint
from robusttune.data.cache.shard import SUFFIX, DamagedShardError, Shard
from robusttune.data.cache.store import ABSENT, Store
from robusttune.data.modalities import RawModality
from robusttune.encoders import Encoder, FrozenEncoder
from robusttune.planning.flops import counted_flops
from robusttune.types import Widths

FIRST, GROWTH = 8, 4  # inputs that are encoded to see how long it takes; then four times as many, and so on
SECONDS = 3.0  # of encoding that are long enough to tell
ROOM = 1 << 29  # bytes that the few inputs may take


@dataclass
class Features:
    """What the features of some inputs take.

    Attributes:
        what: ``images`` or ``texts``.
        inputs: how many there are, those that are alike once.
        bytes: of their features.
        missing: inputs that the cache does not have.
        missing_bytes: of their features.
        seconds: to compute what is missing, on one device.
        flops: of one input.
    """

    what: Literal["images", "texts"]
    inputs: int
    bytes: int
    missing: int
    missing_bytes: int
    seconds: float
    flops: int


@dataclass
class _Sample:
    """What was encoded: locations in a store, and seconds and operations of one input."""

    store: Store
    locations: NDArray[np.int64]
    seconds: float
    flops: int


class SampledCache(FeatureCache):
    """Encodes a few inputs into a folder of its own, and hands them over for all.

    Args:
        cache: that is planned. It is looked at, and nothing is written to it.
        folder: that exists, for the few and for notes; it may be deleted afterwards.

    Attributes:
        found: what each `fill` would have taken; inputs that came up in an earlier one do not count again.
    """

    def __init__(self, cache: FeatureCache, folder: Path) -> None:
        self.root = folder
        self.dtype = cache.dtype
        self.planned = cache.root
        self.found: list[Features] = []
        self._counted: set[tuple[str, bytes]] = set()
        self._samples: dict[str, _Sample] = {}

    def fill(
        self,
        what: Literal["images", "texts"],
        settings: Encoder,
        encoder: FrozenEncoder,
        modalities: Sequence[RawModality],
        running: Running,
        stop_at_unreadable: bool,
    ) -> tuple[list[Cached], list[str]]:
        """See `FeatureCache.fill`; only inputs that were encoded can be unreadable."""
        about = describe(settings, encoder, running.precision, self.dtype)
        name = fingerprint(about)
        folder = f"{what}-{name[:16]}"
        requests = self._requests(modalities, self.planned / folder, running.threads)
        unreadable: list[str] = []
        if what not in self._samples:
            store = Store(self.root / folder, name, encoder.widths)
            workers = running.workers if what == "images" else 0
            builder = Builder(
                *(what, store, about, encoder, self.dtype, running.context, workers, running.threads),
                stop_at_unreadable,
            )
            self._samples[what], unreadable = self._encode(builder, requests)
        self._count(what, requests, _keys_in(self.planned / folder, name, encoder.widths), encoder)
        return [_standing_in(modality, self._samples[what]) for modality in modalities], unreadable

    def _requests(self, modalities: Sequence[RawModality], folder: Path, threads: int) -> list[Request]:
        """Inputs, those that are alike once; files are read to tell them apart only if any may be in the cache."""
        files = sorted({path for modality in modalities for path in modality.files()})
        digests: dict[str, bytes | None] = {path: _digest(path) for path in files}
        if folder.exists():
            memory = self.root / "files.arrow"
            if not memory.exists() and (self.planned / memory.name).exists():
                shutil.copyfile(self.planned / memory.name, memory)
            digests = file_digests(files, memory, threads).by_path
        requests: dict[bytes, Request] = {}
        for modality in modalities:
            present = [row for row in range(len(modality)) if modality.has(row)]
            inputs = [(row, view) for row in present for view in range(modality.views or 0)]
            for (row, view), key in zip(inputs, modality.keys(inputs, digests), strict=True):
                if key is not None:
                    requests.setdefault(key, Request(key, modality, row, view))
        return list(requests.values())

    def _encode(self, builder: Builder, requests: list[Request]) -> tuple[_Sample, list[str]]:
        """More and more inputs, until it took long enough to tell how long each takes."""
        rest = random.Random(0).sample(requests, len(requests))
        first = rest[:FIRST]
        each = _bytes_of(first, builder.encoder, self.dtype.itemsize) // FIRST
        keys: list[bytes] = []
        unreadable: list[str] = []
        size, took, seconds = FIRST, 0.0, 0.0
        while rest and took < SECONDS and len(keys) * each < ROOM and not (unreadable and builder.stop_at_unreadable):
            taken, rest = rest[:size], rest[size:]
            begun = perf_counter()
            unreadable = builder.fill(taken)
            seconds = (perf_counter() - begun) / len(taken)
            took = 0.0 if size == FIRST else seconds * len(taken)  # the first ones are to warm up
            keys += [item.key for item in taken]
            size *= GROWTH
        locations = builder.store.locations(keys)
        flops = _flops([item for item in first if item.key in builder.store], builder.encoder)
        return _Sample(builder.store, locations[locations != ABSENT], seconds, flops), unreadable

    def _count(
        self, what: Literal["images", "texts"], requests: list[Request], there: set[bytes], encoder: FrozenEncoder
    ) -> None:
        """Note what it would take to compute what is not there, and did not come up before."""
        new = [item for item in requests if (what, item.key) not in self._counted]
        self._counted |= {(what, item.key) for item in new}
        missing, sample = [item for item in new if item.key not in there], self._samples[what]
        sizes = [_bytes_of(items, encoder, self.dtype.itemsize) for items in (new, missing)]
        seconds = sample.seconds * len(missing)
        self.found.append(Features(what, len(new), sizes[0], len(missing), sizes[1], seconds, sample.flops))


def _standing_in(side: RawModality, sample: _Sample) -> Cached:
    """The side, with any of what was encoded in the place of each input."""
    shape = (len(side), side.views or 0)
    if not len(sample.locations):
        return Cached(side, sample.store, np.full(shape, ABSENT))
    return Cached(side, sample.store, np.random.default_rng(0).choice(sample.locations, shape))


def _bytes_of(items: list[Request], encoder: FrozenEncoder, itemsize: int) -> int:
    """As the cache itself tells it before it is filled."""
    by_modality: dict[int, tuple[RawModality, list[tuple[int, int]]]] = {}
    for item in items:
        by_modality.setdefault(id(item.modality), (item.modality, []))[1].append((item.row, item.view))
    lengths = (length for modality, inputs in by_modality.values() for length in modality.lengths(inputs))
    return sum(encoder.numbers(length) for length in lengths) * itemsize


def _flops(items: list[Request], encoder: FrozenEncoder) -> int:
    """Of an input, the mean over these."""
    if not items:
        return 0
    values: Any = items[0].modality.collate([item.modality.read(item.row, item.view) for item in items]).values
    device = encoder.anchor.device
    values = values.to(device) if isinstance(values, Tensor) else values.map(lambda tensor: tensor.to(device))
    with torch.no_grad(), counted_flops() as flops:
        encoder(values)
    return flops.total // len(items)


def _keys_in(folder: Path, name: str, widths: Widths) -> set[bytes]:
    """What a folder of a cache says that it has; its checksums are left to a fit."""
    keys: set[bytes] = set()
    for path in folder.glob(f"*{SUFFIX}"):
        try:
            keys |= {*Shard.read(path, name, widths).keys}
        except (DamagedShardError, FileNotFoundError):
            continue
    return keys


def _digest(path: str) -> bytes:
    return hashlib.blake2b(path.encode(errors="surrogatepass"), digest_size=16).digest()
