"""Class-balanced and square-root sampling: how often each training sample is drawn in an epoch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from robusttune.counting import counted
from robusttune.data.class_indices import ClassIndices
from robusttune.types import Facts

Sampling = Literal["balanced", "square_root"]
POWERS: dict[Sampling, float] = {"balanced": 1.0, "square_root": 0.5}
NOTED_RATIO = 10  # smallest ratio of the largest to the smallest class that is worth a note


class Quotas(NamedTuple):
    """How often the samples of a split are drawn in an epoch.

    Attributes:
        expected: Expected number of draws of each row, shape (N,), float64, at least 0, with the sum N.
        classes: Class that decides the number of draws of each row, shape (N,), int64; -1 for an unlabelled row.
    """

    expected: NDArray[np.float64]
    classes: NDArray[np.int64]

    def draw(self, rng: np.random.Generator) -> NDArray[np.int64]:
        """Draw the N rows of an epoch by systematic resampling, in random order.

        Each row is drawn floor or ceil of its expected number of times, and so is each class.

        Args:
            rng: Random generator of the epoch.

        Returns:
            Row indices, shape (N,), int64.
        """
        rows = rng.permutation(len(self.expected))
        rows = rows[np.argsort(self.classes[rows], kind="stable")]
        ends = np.cumsum(self.expected[rows])
        ends[-1] = len(rows)  # without the rounding error, which could add or lose a draw
        times = np.diff(np.floor(ends + rng.random()), prepend=0).astype(np.int64)
        return rng.permutation(np.repeat(rows, times))


def quotas(labels: ClassIndices, sampling: Sampling) -> Quotas:
    """Return how often each sample is drawn so that the classes have the probabilities of a kind of sampling.

    A class with ``n`` samples is drawn with a probability proportional to ``n ** q``. ``q`` is 0 for ``balanced``
    (class-balanced sampling) and 1/2 for ``square_root`` (Mahajan et al. 2018, arXiv 1805.00932; both are named so by
    Kang et al. 2020, arXiv 1910.09217). So the weight of a sample is ``n ** (q - 1)``. In multi-label data, a sample
    has the largest weight of its classes, as in LVIS (Gupta et al. 2019, arXiv 1908.03195), because with a mean, rare
    classes that come with frequent ones would be drawn less often. The classes then have the
    probabilities above only approximately. A sample without a label has the smallest weight of all classes, because it
    shows no rare class. A class without samples cannot be drawn and is ignored.

    Args:
        labels: Class indices of each of the N samples.
        sampling: Kind of sampling.

    Example:
        >>> quotas(ClassIndices.of([[0], [0], [0], [1]]), "balanced").expected.round(2).tolist()
        [0.67, 0.67, 0.67, 2.0]
    """
    sizes = labels.sizes()
    classes = _rarest(labels, sizes)
    largest = sizes.max(initial=1)
    weights = np.append(np.maximum(sizes, 1), largest).astype(np.float64)[classes] ** -POWERS[sampling]
    return Quotas(weights * (len(labels) / weights.sum()), classes)


def _rarest(labels: ClassIndices, sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the smallest class of each row, the first one of several, shape (N,), int64; -1 for a row without one."""
    if labels.offsets is None:
        return labels.flat.astype(np.int64)
    classes = np.full(len(labels), -1, dtype=np.int64)
    # The last assignment to a row counts: that of its smallest class, and of the first one among equally large.
    by_size = np.argsort(-sizes[labels.flat[::-1]], kind="stable")
    classes[labels.rows[::-1][by_size]] = labels.flat[::-1][by_size]
    return classes


def training_sizes(facts: Facts) -> dict[str, int]:
    """Return the number of training samples of each class; none if the number of all samples is unknown.

    Example:
        >>> training_sizes(Facts(["pie", "soup"], [0.75, 0.25], multilabel=False, training_samples=8))
        {'pie': 6, 'soup': 2}
    """
    if facts.training_samples is None:
        return {}
    sizes = (round(frequency * facts.training_samples) for frequency in facts.class_frequencies)
    return dict(zip(facts.class_names, sizes, strict=True))


def imbalance_note(sizes: Mapping[str, int]) -> str | None:
    """Return a note with the largest and the smallest training class, or None if the classes are roughly balanced.

    Args:
        sizes: Number of training samples by class name.

    Example:
        >>> imbalance_note({"pie": 300, "soup": 20, "stew": 0})  # doctest: +NORMALIZE_WHITESPACE
        "the training classes are imbalanced, from 300 samples of 'pie' to 20 samples of 'soup', and 1 class has none:
        try data.training.balance or model.balance"
    """
    found = {name: size for name, size in sizes.items() if size > 0}
    if not found:
        return None
    largest, smallest = (choose(found, key=found.__getitem__) for choose in (max, min))
    if found[largest] < NOTED_RATIO * found[smallest]:
        return None
    empty = len(sizes) - len(found)
    none = f", and {counted(empty, 'class', 'classes')} {'has' if empty == 1 else 'have'} none" if empty else ""
    return (
        f"the training classes are imbalanced, from {counted(found[largest], 'sample')} of {largest!r} to "
        f"{counted(found[smallest], 'sample')} of {smallest!r}{none}: try data.training.balance or model.balance"
    )
