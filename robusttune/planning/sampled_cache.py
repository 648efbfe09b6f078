"""A feature cache that encodes only a few inputs and extrapolates the time and disk space for all of them."""

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

from robusttune.data.cache import CachedModality, EncodingSettings, FeatureCache
from robusttune.data.cache.build import Builder, Request
from robusttune.data.cache.digests import file_digests
from robusttune.data.cache.fingerprint import describe, fingerprint
from robusttune.data.cache.shard import SUFFIX, DamagedShardError, Shard
from robusttune.data.cache.store import ABSENT, Store
from robusttune.data.modalities import RawModality
from robusttune.encoders import Encoder, FrozenEncoder
from robusttune.planning.flops import counted_flops
from robusttune.types import Widths

FIRST, GROWTH = 8, 4  # number of inputs in the first chunk, and factor from each chunk to the next
SECONDS = 3.0  # encoding time of a chunk that is long enough for a reliable measurement
ROOM = 1 << 29  # most bytes on disk for the encoded inputs


@dataclass
class Features:
    """The disk space and computing time of the features of some inputs.

    Attributes:
        what: Modality of the inputs, ``images`` or ``texts``.
        inputs: Number of different inputs.
        bytes: Size of the features of all inputs.
        missing: Number of inputs whose features are not in the cache yet.
        missing_bytes: Size of the features of the missing inputs.
        seconds: Time to compute the missing features on one device.
        flops: Mean operations per input.
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
    """The inputs that were encoded to extrapolate from them.

    Attributes:
        store: Store with their features.
        locations: Locations of the features in the store, shape (n,).
        seconds: Time per input.
        flops: Mean operations per input.
    """

    store: Store
    locations: NDArray[np.int64]
    seconds: float
    flops: int


class SampledCache(FeatureCache):
    """A feature cache that encodes a few inputs into a temporary folder and returns their features for all inputs.

    Training with it reads the cache as a real run would, so its speed can be measured. The features of most inputs are
    those of other inputs, so the results of the training mean nothing.

    Args:
        cache: Cache of the planned run. It is read to find missing features; nothing is written to it.
        folder: Existing folder for the features and for file digests. It may be deleted afterwards.

    Attributes:
        found: Disk space and time of each call of `fill`. Inputs of an earlier call are not counted again.
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
        running: EncodingSettings,
        stop_at_unreadable: bool,
    ) -> tuple[list[CachedModality], list[str]]:
        """Encode a few inputs and return their features for all inputs; see `FeatureCache.fill` for the arguments.

        Only unreadable images among the encoded inputs are reported.
        """
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
        return [_with_sampled_features(modality, self._samples[what]) for modality in modalities], unreadable

    def _requests(self, modalities: Sequence[RawModality], folder: Path, threads: int) -> list[Request]:
        """Return a request for each different input.

        Image files are identified by their contents only if the planned cache may hold some of them. Otherwise their
        paths identify them, because reading all files would take long.
        """
        files = sorted({path for modality in modalities for path in modality.files()})
        digests: dict[str, bytes | None] = {path: _digest(path) for path in files}
        if folder.exists():
            memory = self.root / "files.arrow"
            if not memory.exists() and (self.planned / memory.name).exists():
                shutil.copyfile(self.planned / memory.name, memory)
            digests = file_digests(files, memory, threads).by_path
        requests: dict[bytes, Request] = {}
        for modality in modalities:
            rows = (row for row in range(len(modality)) if modality.has(row))
            inputs = [(row, view) for row in rows for view in range(modality.views or 0)]
            for (row, view), key in zip(inputs, modality.keys(inputs, digests), strict=True):
                if key is not None:
                    requests.setdefault(key, Request(key, modality, row, view))
        return list(requests.values())

    def _encode(self, builder: Builder, requests: list[Request]) -> tuple[_Sample, list[str]]:
        """Encode growing chunks of random inputs until one takes long enough to measure the time per input.

        Returns:
            The encoded inputs, and a sentence for each unreadable image among them.
        """
        rest = random.Random(0).sample(requests, len(requests))
        first = rest[:FIRST]
        bytes_per_input = _bytes_of(first, builder.encoder, self.dtype.itemsize) // FIRST
        keys: list[bytes] = []
        unreadable: list[str] = []
        size, elapsed, seconds = FIRST, 0.0, 0.0
        while (
            rest
            and elapsed < SECONDS
            and len(keys) * bytes_per_input < ROOM
            and not (unreadable and builder.stop_at_unreadable)
        ):
            chunk, rest = rest[:size], rest[size:]
            start = perf_counter()
            unreadable += builder.fill(chunk)
            seconds = (perf_counter() - start) / len(chunk)
            elapsed = 0.0 if size == FIRST else seconds * len(chunk)  # the first chunk is the warm-up
            keys += [item.key for item in chunk]
            size *= GROWTH
        locations = builder.store.locations(keys)
        flops = _flops([item for item in first if item.key in builder.store], builder.encoder)
        return _Sample(builder.store, locations[locations != ABSENT], seconds, flops), unreadable

    def _count(
        self, what: Literal["images", "texts"], requests: list[Request], cached: set[bytes], encoder: FrozenEncoder
    ) -> None:
        """Append the cost of the inputs that no earlier call of `fill` had; ``cached`` holds the keys in the cache."""
        new = [item for item in requests if (what, item.key) not in self._counted]
        self._counted |= {(what, item.key) for item in new}
        missing, sample = [item for item in new if item.key not in cached], self._samples[what]
        sizes = [_bytes_of(items, encoder, self.dtype.itemsize) for items in (new, missing)]
        seconds = sample.seconds * len(missing)
        self.found.append(Features(what, len(new), sizes[0], len(missing), sizes[1], seconds, sample.flops))


def _with_sampled_features(modality: RawModality, sample: _Sample) -> CachedModality:
    """Return the modality with the features of a random encoded input in place of each input."""
    shape = (len(modality), modality.views or 0)
    if not len(sample.locations):
        return CachedModality(modality, sample.store, np.full(shape, ABSENT))
    return CachedModality(modality, sample.store, np.random.default_rng(0).choice(sample.locations, shape))


def _bytes_of(items: list[Request], encoder: FrozenEncoder, itemsize: int) -> int:
    """Return the size of the inputs' features in bytes, from their token lengths, without encoding them."""
    by_modality: dict[int, tuple[RawModality, list[tuple[int, int]]]] = {}
    for item in items:
        by_modality.setdefault(id(item.modality), (item.modality, []))[1].append((item.row, item.view))
    lengths = (length for modality, inputs in by_modality.values() for length in modality.lengths(inputs))
    return sum(encoder.feature_count(length) for length in lengths) * itemsize


def _flops(items: list[Request], encoder: FrozenEncoder) -> int:
    """Return the mean operations per input, 0 for no inputs. All inputs are encoded in one batch."""
    if not items:
        return 0
    values: Any = items[0].modality.collate([item.modality.read(item.row, item.view) for item in items]).values
    device = encoder.anchor.device
    values = values.to(device) if isinstance(values, Tensor) else values.map(lambda tensor: tensor.to(device))
    with torch.no_grad(), counted_flops() as flops:
        encoder(values)
    return flops.total // len(items)


def _keys_in(folder: Path, name: str, widths: Widths) -> set[bytes]:
    """Return the keys of the inputs in a folder of the cache, without verifying the checksums as a fit does."""
    keys: set[bytes] = set()
    for path in folder.glob(f"*{SUFFIX}"):
        try:
            keys |= {*Shard.read(path, name, widths).keys}
        except (DamagedShardError, FileNotFoundError):
            continue
    return keys


def _digest(path: str) -> bytes:
    """Return a stand-in for the digest of a file's contents: the hash of its path."""
    return hashlib.blake2b(path.encode(errors="surrogatepass"), digest_size=16).digest()
