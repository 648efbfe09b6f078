"""Bootstrap resampling of means over test samples (Efron 1979)."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import torch
from torch import Tensor

MAX_CACHED_COUNTS = 50_000_000  # largest number of counts to cache, as int16: 100 MB
CHUNK = 8_000_000  # largest number of float64 values in one block: 64 MB


def resampled_means(parts: Tensor, resamples: int = 1000, seed: int = 0) -> Tensor:
    """Bootstrap means over samples: draw N of N samples with replacement, and average their values.

    The draws depend only on N and the seed. So values that were measured on the same samples share their resamples, and
    differences between their means are those of a paired bootstrap.

    Args:
        parts: Values of each sample for each of J means, shape (N, J), floating point; N is at least 1.
        resamples: Number of resamples R.
        seed: Seed of the draws.

    Returns:
        Means, shape (R, J), float64. The function needs less than 200 MB besides ``parts`` and the result.

    Example:
        >>> import torch
        >>> means = resampled_means(torch.tensor([[1.0], [0.0], [1.0], [1.0]]), resamples=500)
        >>> tuple(means.shape), bool((means >= 0).all() and (means <= 1).all())
        ((500, 1), True)
    """
    samples, columns = parts.shape
    width = max(1, CHUNK // samples)
    means = torch.empty(resamples, columns, dtype=torch.float64)
    done = 0
    fits_cache = samples * resamples <= MAX_CACHED_COUNTS
    for drawn in _cached_counts(samples, resamples, seed) if fits_cache else _counts(samples, resamples, seed):
        counts = drawn.double()
        rows = slice(done, done + len(counts))
        for start in range(0, columns, width):
            means[rows, start : start + width] = counts @ parts[:, start : start + width].double() / samples
        done += len(counts)
    return means


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


@lru_cache(maxsize=1)
def _cached_counts(samples: int, resamples: int, seed: int) -> list[Tensor]:
    """Return the results of `_counts`, cached for the next condition on the same samples."""
    return [counts.to(torch.int16) for counts in _counts(samples, resamples, seed)]


def _counts(samples: int, resamples: int, seed: int) -> Iterator[Tensor]:
    """Yield how often each sample is drawn, in blocks of resamples, shape (rows, N), float64."""
    generator = torch.Generator().manual_seed(seed)
    height = max(1, CHUNK // (2 * samples))  # the indices of the draws need as much memory as the counts
    for done in range(0, resamples, height):
        rows = min(height, resamples - done)
        drawn = torch.randint(samples, (rows, samples), generator=generator)
        yield torch.zeros(rows, samples, dtype=torch.float64).scatter_add_(
            1, drawn, torch.ones(rows, samples, dtype=torch.float64)
        )
