"""Averages of F1 and of recall over classes, computed from sums or means over samples.

Each function takes three tensors of shape (..., C) and returns an average of shape (...):

* ``hits``: number (or mean) of true positives of each class.
* ``both``: predicted positives plus actual positives.
* ``actual``: actual positives.

The averages equal those of scikit-learn and torchmetrics. A class without predicted and actual positives counts as 0 in
multi-label data. In multi-class data it is left out of the macro average. The average of recall, which is the balanced
accuracy of multi-class data, leaves out classes without actual positives.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

Average = Callable[[Tensor, Tensor, Tensor], Tensor]


def macro(hits: Tensor, both: Tensor, actual: Tensor) -> Tensor:
    """Average over the classes that have predicted or actual positives."""
    return (2 * hits / both).nanmean(-1)


def macro_of_all(hits: Tensor, both: Tensor, actual: Tensor) -> Tensor:
    """Average over all classes; classes without any positives count as 0."""
    return (2 * hits / both).nan_to_num().mean(-1)


def micro(hits: Tensor, both: Tensor, actual: Tensor) -> Tensor:
    """Compute one F1 from the positives of all classes together."""
    return (2 * hits.sum(-1) / both.sum(-1)).nan_to_num()


def weighted(hits: Tensor, both: Tensor, actual: Tensor) -> Tensor:
    """Average over the classes, weighted by their number of actual positives."""
    return (((2 * hits / both).nan_to_num() * actual).sum(-1) / actual.sum(-1)).nan_to_num()


def macro_recall(hits: Tensor, both: Tensor, actual: Tensor) -> Tensor:
    """Average the recall over the classes that have actual positives."""
    return (hits / actual).nanmean(-1)
