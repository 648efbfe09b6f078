"""A feature cache that encodes only a few inputs and extrapolates the time and disk space for all of them."""

from __future__ import annotations

import hashlib
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
from robusttune.data.cache.build import Builder
from robusttune.data.cache.digests import file_digests
from robusttune.data.cache.fingerprint import describe, fingerprint
from robusttune.data.cache.index import ABSENT
from robusttune.data.cache.keys import Keys, first_occurrences
from robusttune.data.cache.requests import Request, Requests
from robusttune.data.cache.store import Store
from robusttune.data.modalities import RawModality
from robusttune.encoders import Encoder, FrozenEncoder
from robusttune.planning.flops import counted_flops

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
        self._counted: dict[str, Keys] = {}
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
        inputs = np.flatnonzero(requests.readable)
        inputs = inputs[first_occurrences(requests.keys[inputs])]
        unreadable: list[str] = []
        if what not in self._samples:
            store = Store(self.root / folder, name, encoder.widths)
            workers = running.workers if what == "images" else 0
            builder = Builder(
                *(what, store, about, encoder, self.dtype, running.context, workers, running.threads),
                stop_at_unreadable,
            )
            self._samples[what], unreadable = self._encode(builder, requests, inputs)
        planned = Store(self.planned / folder, name, encoder.widths)
        planned.look(running.threads)
        self._count(what, requests, inputs, planned, encoder)
        return [_with_sampled_features(modality, self._samples[what]) for modality in modalities], unreadable

    def _requests(self, modalities: Sequence[RawModality], folder: Path, threads: int) -> Requests:
        """Return all inputs.

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
        return Requests.of(modalities, digests)

    def _encode(self, builder: Builder, requests: Requests, inputs: NDArray[np.int64]) -> tuple[_Sample, list[str]]:
        """Encode growing chunks of random inputs until one takes long enough to measure the time per input.

        Args:
            builder: Builder that encodes inputs into the temporary folder.
            requests: All inputs.
            inputs: Numbers of the different readable inputs.

        Returns:
            The encoded inputs, and a sentence for each unreadable image among them.
        """
        rest = np.random.default_rng(0).permutation(inputs)
        first = rest[:FIRST]
        bytes_per_input = _bytes_of(requests, first, builder.encoder, self.dtype.itemsize) // FIRST
        done: list[int] = []
        unreadable: list[str] = []
        size, elapsed, seconds = FIRST, 0.0, 0.0
        while (
            len(rest)
            and elapsed < SECONDS
            and len(done) * bytes_per_input < ROOM
            and not (unreadable and builder.stop_at_unreadable)
        ):
            chunk, rest = rest[:size], rest[size:]
            start = perf_counter()
            unreadable += builder.fill(requests.only(chunk)).unreadable
            seconds = (perf_counter() - start) / len(chunk)
            elapsed = 0.0 if size == FIRST else seconds * len(chunk)  # the first chunk is the warm-up
            done += chunk.tolist()
            size *= GROWTH
        locations = builder.store.locations(requests.keys[done])
        encoded = first[builder.store.locations(requests.keys[first]) != ABSENT]
        flops = _flops([requests[number] for number in encoded.tolist()], builder.encoder)
        return _Sample(builder.store, locations[locations != ABSENT], seconds, flops), unreadable

    def _count(
        self,
        what: Literal["images", "texts"],
        requests: Requests,
        inputs: NDArray[np.int64],
        planned: Store,
        encoder: FrozenEncoder,
    ) -> None:
        """Append the cost of the inputs that no earlier call of `fill` had; ``planned`` is the planned cache."""
        counted = self._counted.get(what, np.zeros((0, 2), np.uint64))
        keys = np.concatenate([counted, requests.keys[inputs]])
        first = first_occurrences(keys)
        new = inputs[first[first >= len(counted)] - len(counted)]
        self._counted[what] = keys[first]
        missing, sample = new[planned.locations(requests.keys[new]) == ABSENT], self._samples[what]
        sizes = [_bytes_of(requests, numbers, encoder, self.dtype.itemsize) for numbers in (new, missing)]
        seconds = sample.seconds * len(missing)
        self.found.append(Features(what, len(new), sizes[0], len(missing), sizes[1], seconds, sample.flops))


def _with_sampled_features(modality: RawModality, sample: _Sample) -> CachedModality:
    """Return the modality with the features of a random encoded input in place of each input."""
    shape = (len(modality), modality.views or 0)
    if not len(sample.locations):
        return CachedModality(modality, sample.store, np.full(shape, ABSENT))
    return CachedModality(modality, sample.store, np.random.default_rng(0).choice(sample.locations, shape))


def _bytes_of(requests: Requests, numbers: NDArray[np.int64], encoder: FrozenEncoder, itemsize: int) -> int:
    """Return the size of the inputs' features in bytes, from their token lengths, without encoding them."""
    lengths, counts = np.unique(requests.lengths(numbers), return_counts=True)
    pairs = zip(lengths.tolist(), counts.tolist(), strict=True)
    numbers_in_all: int = sum(encoder.feature_count(length) * count for length, count in pairs)
    return numbers_in_all * itemsize


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


def _digest(path: str) -> bytes:
    """Return a stand-in for the digest of a file's contents: the hash of its path."""
    return hashlib.blake2b(path.encode(errors="surrogatepass"), digest_size=16).digest()
