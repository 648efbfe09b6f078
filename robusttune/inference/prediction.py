"""Results of predictions: for one pair of image and text, and for many."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import NDArray

from robusttune.inference.optional_pandas import import_pandas
from robusttune.types import PATTERNS

if TYPE_CHECKING:
    import pandas as pd

MODALITIES = ("image", "text")


@dataclass(frozen=True)
class Prediction:
    """The prediction for one sample.

    Attributes:
        label: Most probable class.
        probability: Probability of ``label``, in [0, 1].
        probabilities: Probability of each class, in label order.
        modalities: Modalities that the sample has: ``image``, ``text``, both, or none. Without any, the prediction is
            the class frequencies of training.
        labels: Classes whose probability reaches the threshold, in multi-label data; else ``label`` alone.
        alone: Prediction from each modality alone, by modality; empty unless it was asked for and the sample has both.

    Example:
        >>> print(Prediction("cat", 0.75, {"cat": 0.75, "dog": 0.25}, ("text",), ("cat",)))
        cat (0.75, from the text alone)
    """

    label: str
    probability: float
    probabilities: dict[str, float] = field(repr=False)
    modalities: tuple[str, ...]
    labels: tuple[str, ...]
    alone: dict[str, Prediction] = field(default_factory=dict)

    def __str__(self) -> str:
        if not self.modalities:
            basis = "from the class frequencies of training, without image and text"
        elif len(self.modalities) == 1:
            basis = f"from the {self.modalities[0]} alone"
        else:
            basis = "from image and text"
        return f"{self.label} ({self.probability:.2f}, {basis})"


def reaches(
    probabilities: NDArray[np.float32], present: NDArray[np.bool_], threshold: float | NDArray[np.float32]
) -> NDArray[np.bool_]:
    """Return which classes are predicted in multi-label data, shape (N, C).

    Args:
        probabilities: Class probabilities, shape (N, C).
        present: Flags that the sample has an image and that it has a text, shape (N, 2).
        threshold: Threshold of all classes; or one for each pattern of present modalities and class, shape (4, C).

    Example:
        >>> thresholds = np.array([[0.5], [0.25], [0.5], [0.5]])  # lower with the image alone
        >>> reaches(np.array([[0.3], [0.3]]), np.array([[True, True], [True, False]]), thresholds).tolist()
        [[False], [True]]
    """
    if isinstance(threshold, np.ndarray):
        threshold = threshold[len(PATTERNS) - 2 * present[:, 0] - present[:, 1]]
    return np.asarray(probabilities >= threshold)


class Predictions(Sequence[Prediction]):
    """The predictions for ``N`` samples, a sequence of `Prediction`.

    Args:
        classes: Names of the ``C`` classes, in label order.
        probabilities: Class probabilities, shape (N, C), float32.
        present: Flags that the sample has an image and that it has a text, shape (N, 2), bool.
        multilabel: True if a sample may have several labels.
        threshold: Least probability of a predicted class in multi-label data, in [0, 1]; or one for each pattern
            of present modalities and class, shape (4, C), see `Thresholds`.
        alone: Class probabilities from the image alone and from the text alone, shape (2, N, C), or None.
        unreadable: For each sample the reason why its image could not be read, or None.
        index: Index of the pandas table that the samples come from, or None.

    Example:
        >>> p = np.array([[0.75, 0.25]], dtype=np.float32)
        >>> Predictions(["cat", "dog"], p, np.array([[True, True]]), multilabel=False)[0].label
        'cat'
    """

    def __init__(
        self,
        classes: Sequence[str],
        probabilities: NDArray[np.float32],
        present: NDArray[np.bool_],
        multilabel: bool,
        threshold: float | NDArray[np.float32] = 0.5,
        alone: NDArray[np.float32] | None = None,
        unreadable: Sequence[str | None] | None = None,
        index: Any = None,
    ) -> None:
        self.classes = list(classes)
        self.probabilities = probabilities
        self.present = present
        self.multilabel = multilabel
        self.threshold = threshold
        self.alone = alone
        self.unreadable = [None] * len(probabilities) if unreadable is None else list(unreadable)
        self.table_index = index

    def __len__(self) -> int:
        return len(self.probabilities)

    def __iter__(self) -> Iterator[Prediction]:
        return (self._prediction(row) for row in range(len(self)))

    @overload
    def __getitem__(self, index: int) -> Prediction: ...

    @overload
    def __getitem__(self, index: slice) -> list[Prediction]: ...

    def __getitem__(self, index: int | slice) -> Prediction | list[Prediction]:
        rows = range(len(self))[index]
        return self._prediction(rows) if isinstance(rows, int) else [self._prediction(row) for row in rows]

    def __repr__(self) -> str:
        return f"Predictions({len(self)} samples, {len(self.classes)} classes)"

    @property
    def labels(self) -> list[str]:
        """Return the most probable class of each sample."""
        return [self.classes[place] for place in self.probabilities.argmax(1)]

    def to_pandas(self) -> pd.DataFrame:
        """Return a table with one row per sample.

        Its columns are ``label``, ``probability``, ``modalities`` (joined by ``+``; empty for none), ``labels`` in
        multi-label data, and the probability of each class by its name. The index is that of the predicted table.
        """
        pandas = import_pandas()
        columns: dict[str, Any] = {
            "label": self.labels,
            "probability": self.probabilities.max(1),
            "modalities": ["+".join(self._modalities(row)) for row in range(len(self))],
        }
        if self.multilabel:
            reached = reaches(self.probabilities, self.present, self.threshold)
            columns["labels"] = [[self.classes[place] for place in np.flatnonzero(row)] for row in reached]
        own = pandas.DataFrame(columns, index=self.table_index)
        names = [f"{name} (class)" if name in columns else name for name in self.classes]
        return pandas.concat([own, pandas.DataFrame(self.probabilities, columns=names, index=own.index)], axis=1)

    def _prediction(self, row: int) -> Prediction:
        has = self._modalities(row)
        alone = {}
        if self.alone is not None and len(has) == len(MODALITIES):
            for modality, probabilities in zip(MODALITIES, self.alone[:, row], strict=True):
                alone[modality] = self._of(probabilities, (modality,))
        return self._of(self.probabilities[row], has, alone)

    def _of(
        self, probabilities: NDArray[np.float32], has: tuple[str, ...], alone: dict[str, Prediction] | None = None
    ) -> Prediction:
        """Return the prediction of a sample with the modalities ``has``, from its probabilities, shape (C,)."""
        best = int(probabilities.argmax())
        by_class = dict(zip(self.classes, probabilities.tolist(), strict=True))
        labels: tuple[str, ...] = (self.classes[best],)
        if self.multilabel:
            present = np.array([[name in has for name in MODALITIES]])
            reached = reaches(probabilities[np.newaxis], present, self.threshold)[0]
            labels = tuple(self.classes[place] for place in np.flatnonzero(reached))
        return Prediction(self.classes[best], float(probabilities[best]), by_class, has, labels, alone or {})

    def _modalities(self, row: int) -> tuple[str, ...]:
        return tuple(name for name, has in zip(MODALITIES, self.present[row], strict=True) if has)
