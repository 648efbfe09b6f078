"""The Poisson bootstrap: resamples in which each sample has a random weight that follows from its id.

A resample of N of N samples draws each one about Poisson(1) times. With weights from a hash of the sample's id, each
process weighs its own samples, and sums are added over the processes (Chamandy et al., "Estimating uncertainty for
massive data streams", 2012). So the resamples depend neither on the number of processes nor on the order of samples.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from math import exp, factorial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from robusttune.mixing import GOLDEN, mixed

RESAMPLES = 1000
PER_HASH = 4  # weights from the 64 bits of one hash
LEVELS = 2**16  # values of the 16 bits behind a weight


def id_hashes(ids: Sequence[str]) -> NDArray[np.uint64]:
    """Return a hash of each sample id, shape (N,), the same on every machine."""
    digests = (hashlib.blake2b(i.encode(errors="surrogatepass"), digest_size=8).digest() for i in ids)
    return np.frombuffer(b"".join(digests), "<u8").astype(np.uint64)


def poisson_weights(hashes: NDArray[np.uint64], first: int, count: int, seed: int = 0) -> Tensor:
    """Return how often each sample is in some resamples: independent draws from the Poisson distribution of mean 1.

    Args:
        hashes: Hashes of the ids of N samples, see `id_hashes`.
        first: Number of the first resample, from 0, a multiple of 4.
        count: Number of resamples.
        seed: Seed of the weights.

    Returns:
        Weights, shape (N, count), uint8.

    Example:
        >>> weights = poisson_weights(id_hashes([f"{number}" for number in range(100)]), 0, 200).double()
        >>> round(float(weights.mean()), 1), round(float(weights.var()), 1)
        (1.0, 1.0)
    """
    assert first % PER_HASH == 0
    numbers = np.arange(first // PER_HASH, -(-(first + count) // PER_HASH), dtype=np.uint64)
    salt = mixed(np.array([seed], np.uint64))
    bits = mixed(mixed(hashes ^ salt)[:, None] + (numbers + np.uint64(1)) * GOLDEN)
    bits = bits.astype("<u8").view("<u2")  # shape (N, count rounded up)
    return torch.from_numpy(_TABLE[bits[:, :count]])


def interval(values: Tensor, level: float = 0.95) -> tuple[float, float]:
    """Return the percentile interval that contains the middle ``level`` of the values.

    Args:
        values: Resampled values, shape (R,).
        level: Confidence level, in (0, 1).

    Returns:
        Lower and upper end.

    Example:
        >>> import torch
        >>> interval(torch.arange(5.0), level=0.5)
        (1.0, 3.0)
    """
    tail = (1 - level) / 2
    low, high = torch.quantile(values.double(), torch.tensor([tail, 1 - tail], dtype=torch.float64)).tolist()
    return low, high


def _table() -> NDArray[np.uint8]:
    """Return the weight for each value of 16 bits, by the inverse of the distribution function."""
    reached = np.cumsum([exp(-1) / factorial(k) for k in range(12)])
    return np.searchsorted(reached, (np.arange(LEVELS) + 0.5) / LEVELS).astype(np.uint8)


_TABLE = _table()
