"""Temperatures, one for each pattern of what is present: with both sides, with an image alone, with a text alone."""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt

import torch
from torch import Tensor
from torch.nn import functional

from robusttune.evaluation.metrics import probabilities
from robusttune.evaluation.scores import Scores
from robusttune.types import View

PATTERNS = ("both", "image", "text")
VIEWS = (View(), View(text=None), View(image=None))  # in which each pattern is seen, of all samples that can show it
COLDEST, HOTTEST = 0.05, 20.0
HALVINGS = 40


def fit_temperatures(scores: Scores, views: Sequence[View]) -> list[float]:
    """Of each pattern the temperature that makes the cross-entropy of its samples least; 1 where it has none.

    Args:
        scores: with logits that are not divided by any.
        views: that they are of, `VIEWS` among them; each sample counts once a pattern.
    """
    found = []
    for number, view in enumerate(VIEWS):
        rows = patterns(scores.present, view) == number
        found.append(fit_temperature(scores.logits[views.index(view)][rows], scores.label[rows]))
    return found


def patterns(present: Tensor, view: View) -> Tensor:
    """(N,) numbers into `PATTERNS`, or one more for samples of which nothing is shown.

    Args:
        present: (N, 2) bool, whether samples have an image, and a text.
        view: in which they are seen.
    """
    image = present[:, 0] & (view.image is not None)
    text = present[:, 1] & (view.text is not None)
    alone = torch.where(image, 1, torch.where(text, 2, len(PATTERNS)))
    return torch.where(image & text, 0, alone)


def fit_temperature(logits: Tensor, label: Tensor) -> float:
    """Temperature scaling (Guo et al. 2017, arXiv 1706.04599), in [0.05, 20].

    The cross-entropy is convex in the inverse temperature, so halving finds where its slope changes its sign. One more
    sample counts of which all classes are as likely: else a model that is always right would be certain of everything
    (as in Platt 1999).

    Args:
        logits: (N, C); with none, or where all rows are the same, as of a model that does not look, it is 1.
        label: (N,) class indices, or (N, C) 0/1 in multi-label data.
    """
    if len(logits) == 0 or bool((logits == logits[0]).all()):
        return 1.0
    classes, smooth = logits.shape[1], 1 / (len(logits) + 1)
    hot = functional.one_hot(label, classes) if label.dim() == 1 else label
    shares = (1 - smooth) * hot.double() + smooth / (classes if label.dim() == 1 else 2)
    logits, low, high = logits.double(), 1 / HOTTEST, 1 / COLDEST
    for _ in range(HALVINGS):
        middle = sqrt(low * high)
        said = probabilities(logits * middle, multilabel=label.dim() == 2)
        slope = ((said - shares) * logits).sum()  # of the cross-entropy by the inverse temperature
        low, high = (middle, high) if slope < 0 else (low, middle)
    return 1 / sqrt(low * high)
