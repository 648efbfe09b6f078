"""The multinomial bootstrap of means (Efron 1979): each resample draws N of N samples with replacement."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

CHUNK = 8_000_000  # largest number of float64 values in one block: 64 MB


def resampled_means(parts: Tensor, resamples: int = 1000, seed: int = 0) -> Tensor:
    """Return means of each resample, shape (resamples, J), float64, for values of N samples, shape (N, J)."""
    samples = len(parts)
    return torch.cat([counts @ parts.double() / samples for counts in _counts(samples, resamples, seed)])


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
