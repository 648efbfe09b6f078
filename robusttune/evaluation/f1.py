"""The averages of F1 over classes, out of sums or means over samples.

Each takes, (..., C), the true positives, predicted and actual positives together, and the actual ones, and gives (...).
They are those of scikit-learn and torchmetrics: a class that nobody has or is said to have counts as 0 in multi-label
data, and does not count where a sample has one class.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

Average = Callable[[Tensor, Tensor, Tensor], Tensor]


def macro(hits: Tensor, both: Tensor, actual: Tensor) -> Tensor:
    """The mean over the classes that there are."""
    return (2 * hits / both).nanmean(-1)


def macro_of_all(hits: Tensor, both: Tensor, actual: Tensor) -> Tensor:
    """The mean over all classes."""
    return (2 * hits / both).nan_to_num().mean(-1)


def micro(hits: Tensor, both: Tensor, actual: Tensor) -> Tensor:
    """Of all classes' positives together."""
    return (2 * hits.sum(-1) / both.sum(-1)).nan_to_num()


def weighted(hits: Tensor, both: Tensor, actual: Tensor) -> Tensor:
    """The mean over the classes, by how many samples have them."""
    return (((2 * hits / both).nan_to_num() * actual).sum(-1) / actual.sum(-1)).nan_to_num()
