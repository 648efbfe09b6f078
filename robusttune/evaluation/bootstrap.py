"""How far a mean over test samples would be another with other samples: the bootstrap (Efron 1979)."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import torch
from torch import Tensor

KEPT = 50_000_000  # numbers of draws that are kept: 100 MB
CHUNK = 8_000_000  # float64 numbers that are held at once: 64 MB


def resampled_means(parts: Tensor, resamples: int = 1000, seed: int = 0) -> Tensor:
    """Means over samples that are drawn anew, N of N with replacement.

    The draws depend on N and the seed alone. So what was measured on the same samples is drawn alike, and the
    differences of its means are those of a paired bootstrap.

    Args:
        parts: (N, J) of a float dtype, what each sample gives to each of J means; N is at least 1.
        resamples: how often samples are drawn.
        seed: of the draws.

    Returns:
        (resamples, J) float64. Beside it and ``parts`` less than 200 MB are used.
    """
    samples, columns = parts.shape
    width = max(1, CHUNK // samples)
    means = torch.empty(resamples, columns, dtype=torch.float64)
    done = 0
    few = samples * resamples <= KEPT
    for drawn in _kept_counts(samples, resamples, seed) if few else _counts(samples, resamples, seed):
        counts = drawn.double()
        rows = slice(done, done + len(counts))
        for some in range(0, columns, width):
            means[rows, some : some + width] = counts @ parts[:, some : some + width].double() / samples
        done += len(counts)
    return means


def interval(values: Tensor, level: float = 0.95) -> tuple[float, float]:
    """The percentile interval: what the middle ``level`` of the values (R,) lie between."""
    tail = (1 - level) / 2
    low, high = torch.quantile(values.double(), torch.tensor([tail, 1 - tail], dtype=torch.float64)).tolist()
    return low, high


@lru_cache(maxsize=1)
def _kept_counts(samples: int, resamples: int, seed: int) -> list[Tensor]:
    """As `_counts`, for the next condition on the same samples."""
    return [counts.to(torch.int16) for counts in _counts(samples, resamples, seed)]


def _counts(samples: int, resamples: int, seed: int) -> Iterator[Tensor]:
    """(some resamples, N) float64, how often each sample was drawn; the resamples one after the other."""
    generator = torch.Generator().manual_seed(seed)
    height = max(1, CHUNK // (2 * samples))  # the draws take as much again
    for done in range(0, resamples, height):
        rows = min(height, resamples - done)
        drawn = torch.randint(samples, (rows, samples), generator=generator)
        yield torch.zeros(rows, samples, dtype=torch.float64).scatter_add_(
            1, drawn, torch.ones(rows, samples, dtype=torch.float64)
        )
