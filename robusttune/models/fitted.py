"""Networks that are fitted to all training features at once, in place of gradient steps."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from robusttune.models.logistic import FOLDS, stratified_folds
from robusttune.models.pair_network import PairNetwork
from robusttune.types import Encoded, Facts


class TrainingFeatures(NamedTuple):
    """The features of ``N`` training samples, with all modalities that they have.

    Attributes:
        image: Features of the images, shape (N, d_i), float32, arbitrary in rows without an image.
        text: Features of the texts, shape (N, d_t), float32, arbitrary in rows without a text.
        present: Flags that the sample has an image and that it has a text, shape (N, 2), bool.
        label: Class indices, shape (N,), or 0/1 per class, shape (N, C), in multi-label data.
        sample_id: Ids of the samples.
    """

    image: Tensor
    text: Tensor
    present: Tensor
    label: Tensor
    sample_id: list[str]

    @classmethod
    def join(cls, parts: Sequence[TrainingFeatures]) -> TrainingFeatures:
        """Concatenate the samples of several parts, sorted by id. Each id must occur once."""
        *kinds, ids = zip(*parts, strict=True)
        joined = [name for part in ids for name in part]
        order = sorted(range(len(joined)), key=joined.__getitem__)
        image, text, present, label = (torch.cat(kind)[order] for kind in kinds)
        return cls(image, text, present, label, [joined[row] for row in order])


class Choice(NamedTuple):
    """What a cross-validation has chosen for one pattern of present modalities.

    Attributes:
        columns: Mask of the features, shape (d,), bool.
        c: Inverse strength of the penalty of logistic regression.
    """

    columns: Tensor
    c: float


class Outcome(NamedTuple):
    """The result of a fit.

    Attributes:
        lines: Descriptions of what was fitted, one line each.
        choices: Choices for both modalities, the image alone and the text alone; None for a pattern without samples.
        held_out: Logits of ``N`` training samples from fits to other samples, for both modalities, the image alone and
            the text alone, shape (3, N, C), float32, arbitrary for samples that lack a modality; None if there are too
            few samples for a cross-validation.
    """

    lines: list[str]
    choices: list[Choice | None]
    held_out: Tensor | None


class Labels(NamedTuple):
    """Labels of ``N`` training samples.

    Attributes:
        target: 0/1 per class, shape (N, C), float64.
        fold: Fold of each sample in cross-validation, shape (N,), int64.
        multilabel: True if a sample may have any number of classes.
    """

    target: Tensor
    fold: Tensor
    multilabel: bool

    @classmethod
    def of(cls, samples: TrainingFeatures, facts: Facts, seed: int, device: torch.device) -> Labels:
        """Return the labels of samples, and folds that are stratified by class."""
        label = samples.label.to(device)
        hot = label if facts.multilabel else functional.one_hot(label, len(facts.class_names))
        fold = stratified_folds(hot.cpu(), samples.sample_id, seed, min(FOLDS, len(hot))).to(device)
        return cls(hot.double(), fold, facts.multilabel)

    @property
    def label(self) -> Tensor:
        """Class indices, shape (N,), or ``target`` in multi-label data."""
        return self.target if self.multilabel else self.target.argmax(1)

    def of_rows(self, rows: Tensor) -> Labels:
        """Return the labels of some rows, given a mask, shape (N,), bool."""
        return Labels(self.target[rows], self.fold[rows], self.multilabel)

    def log_loss(self, logits: Tensor) -> float:
        """Return the mean cross-entropy of logits, shape (N, C); in multi-label data the mean over the classes, too."""
        if self.multilabel:
            return float(functional.binary_cross_entropy_with_logits(logits, self.target.to(logits)))
        return float(functional.cross_entropy(logits, self.label))

    def scores(self, logits: Tensor) -> str:
        """Return the log-loss of logits, and if each sample has one label the accuracy, for a description."""
        loss = f"log-loss {self.log_loss(logits):.3f}"
        return (
            loss
            if self.multilabel
            else f"{loss}, accuracy {float((logits.argmax(1) == self.label).float().mean()):.3f}"
        )


class FittedNetwork(PairNetwork):
    """A network that is fitted to all training features at once.

    Attributes:
        facts: Class names and frequencies of the training data.
        fitted: True after `fit`, shape (), bool.
    """

    fitted: Tensor
    fitted_at_once = True

    def __init__(self, facts: Facts) -> None:
        super().__init__(facts)
        self.facts = facts
        self.register_buffer("fitted", torch.zeros((), dtype=torch.bool))

    @abstractmethod
    def features(self, image: Encoded, text: Encoded) -> tuple[Tensor, Tensor]:
        """Return the features of images, shape (B, d_i), and of texts, shape (B, d_t), for `fit`."""

    @abstractmethod
    def fit(self, samples: TrainingFeatures, seed: int, choices: Sequence[Choice | None] | None = None) -> Outcome:
        """Fit the network to samples, whose features `features` has returned.

        Args:
            samples: Training samples.
            seed: Seed of the folds of the cross-validation.
            choices: Choices of an earlier fit, which save the time to choose again.
        """

    @property
    def device_of_fit(self) -> torch.device:
        """The device that can compute a fit, which needs float64."""
        device = self.log_prior.device
        return torch.device("cpu") if device.type == "mps" else device


SHOWN = ("image and text", "the image alone", "the text alone")  # the patterns of a fit, in this order


def held_out_logits(parts: Sequence[tuple[Tensor, Tensor | None] | None], log_prior: Tensor) -> Tensor | None:
    """Put the logits of held-out rows in their places, shape (P, N, C), float32.

    Args:
        parts: For each of ``P`` patterns, the mask (N,) of its rows and their logits (N', C), or None without any.
        log_prior: Logits of the class frequencies, shape (C,), which other rows get.

    Returns:
        Logits; None if no pattern has any.
    """
    known = [part for part in parts if part is not None and part[1] is not None]
    if not known:
        return None
    found = log_prior.float().cpu().repeat(len(parts), len(known[0][0]), 1)
    for logits, part in zip(found, parts, strict=True):
        if part is not None and part[1] is not None:
            logits[part[0].cpu()] = part[1].float().cpu()
    return found
