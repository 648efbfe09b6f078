"""Sums that do not depend on the order of the numbers, so that neither batches nor processes change a digit."""

from __future__ import annotations

import torch
from torch import Tensor

WHOLE, FRACTION = 2.0**20, 2.0**36  # units of the two integers that stand for a number
LARGEST = 2.0**36  # a greater number counts as this one, so that millions of them do not overflow


def as_integers(values: Tensor) -> Tensor:
    """Split numbers into two integers each, whose sums are exact; `from_integers` joins the sums.

    Args:
        values: Numbers, shape (...), of any dtype. Digits below 2^-56 are dropped.

    Returns:
        Integers, shape (..., 2), int64.

    Example:
        >>> sums = as_integers(torch.tensor([0.5, 0.25])).sum(0)
        >>> float(from_integers(sums))
        0.75
    """
    scaled = values.double().clamp(-LARGEST, LARGEST) * WHOLE
    whole = scaled.floor()
    return torch.stack([whole, ((scaled - whole) * FRACTION).round()], -1).long()


def from_integers(sums: Tensor) -> Tensor:
    """Return the numbers, shape (...), float64, that sums of integers from `as_integers`, shape (..., 2), stand for."""
    whole, fraction = sums.double().unbind(-1)
    return (whole + fraction / FRACTION) / WHOLE
