"""Stacking of logistic regression and kernel ridge regression, with weights from the log-loss of held-out samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from robusttune.models.fitted import SHOWN, Choice, Labels, Outcome, TrainingFeatures, held_out_logits
from robusttune.models.kernel import Basis, SimilarModality, fit_ridge
from robusttune.models.linear import LinearNetwork, LogisticRegression
from robusttune.models.regression import Regression
from robusttune.models.temperatures import fit_temperature
from robusttune.types import Facts, Widths

SHARES = [0.0, 0.25, 0.5, 0.75]  # of the kernel regression; logistic regression always takes part
WEIGHTS_ALONE = [0.0, 0.25, 0.5]  # of the logits of each modality alone, which are added to those of both
REPEATS, FEW_SAMPLES = 3, 500  # divisions into folds that a fit to fewer samples averages over


@dataclass(frozen=True)
class Stacking(LogisticRegression):
    """Settings of a `StackingNetwork`: those of its logistic regressions, see `LogisticRegression`.

    Example:
        >>> from robusttune.types import Facts, Widths
        >>> facts = Facts(["cat", "dog"], [0.5, 0.5], multilabel=False, training_samples=100)
        >>> network = Stacking().build(Widths((8, 8), 16), Widths((8, 8), 4), facts)
        >>> network.image.output_width  # features of the pooled embedding and two layers, and 100 similarities
        132
    """

    def build(self, image: Widths, text: Widths, facts: Facts) -> StackingNetwork:
        """Build the network, whose weights are 0 until it is fitted."""
        return StackingNetwork(self, image, text, facts)


class StackingNetwork(LinearNetwork):
    """Logistic regressions and kernel ridge regressions, whose logits are added (stacking, Wolpert 1992).

    For each pattern of present modalities, the weights are those with the lowest log-loss of held-out samples. For
    samples with both modalities, the logits of each modality alone may be added. Everything is deterministic, and a
    linear function of features and similarities, so that one layer for each pattern is left.
    """

    modality = SimilarModality
    image: SimilarModality
    text: SimilarModality

    @torch.no_grad()
    def fit(self, samples: TrainingFeatures, seed: int, choices: Sequence[Choice | None] | None = None) -> Outcome:
        """Fit both regressions for each pattern, and weigh them; see `FittedNetwork.fit`.

        With few samples, logits are averaged over several divisions into folds, because each leads to other weights.
        """
        seeds = range(seed * REPEATS, seed * REPEATS + (REPEATS if len(samples.label) < FEW_SAMPLES else 1))
        labels = [Labels.of(samples, self.facts, each, self.device_of_fit) for each in seeds]
        linear = [self.fit_regressions(samples, each, choices) for each in labels]
        has_image, has_text = samples.present.to(labels[0].fold.device).unbind(1)
        image = self._basis(self.image, samples.image, has_image, seed)
        text = self._basis(self.text, samples.text, has_text, seed)
        patterns = [(Basis.join([image, text]), [self.image, self.text]), (image, [self.image]), (text, [self.text])]
        found = [averaged(each) for each in zip(*map(partial(stack_all, patterns), linear, labels), strict=True)]
        self.set_layers([each and each[:2] for each in found])
        held_out = held_out_logits([each and (each.rows, each.held_out) for each in found], self.log_prior)
        lines = [each.line for each in found if each is not None]
        return Outcome(lines, [median_choice(each) for each in zip(*linear, strict=True)], held_out)

    def _basis(self, part: SimilarModality, features: Tensor, rows: Tensor, seed: int) -> Basis:
        """Choose the centres of a modality, and return the coordinates of all samples."""
        standardised = part.standardise(features.to(rows.device))
        part.choose_centres(standardised[rows], seed)
        return Basis.of(part, standardised, rows)


class Stacked(NamedTuple):
    """Logits of one pattern of modalities, as the weights of its layer.

    Attributes:
        weights: Weights of the features and similarities of its modalities, shape (C, d), float64.
        biases: Biases, shape (C,), float64.
        rows: Mask of the rows that can show the pattern, shape (N,), bool.
        held_out: Logits of these rows from fits to other rows, shape (N', C), float64; None without cross-validation.
        line: Description.
    """

    weights: Tensor
    biases: Tensor
    rows: Tensor
    held_out: Tensor | None
    line: str

    def combined(self, own: float, others: Sequence[Stacked], factor: float, labels: Labels) -> tuple[float, Stacked]:
        """Return ``own`` times these logits plus ``factor`` times others, calibrated, after their held-out log-loss."""
        parts = [(own, self), *((factor, other) for other in others)]

        def total(name: str) -> Tensor:
            """Return the weighted sum of an attribute of all."""
            terms: list[Tensor] = [weight * getattr(part, name) for weight, part in parts]
            return torch.stack(terms).sum(0)

        cold = 1 / fit_temperature(total("held_out"), labels.label)
        weights, biases, held_out = (cold * total(name) for name in ("weights", "biases", "held_out"))
        return labels.log_loss(held_out), self._replace(weights=weights, biases=biases, held_out=held_out)


def stack_all(
    patterns: Sequence[tuple[Basis, Sequence[SimilarModality]]], linear: Sequence[Regression | None], labels: Labels
) -> list[Stacked | None]:
    """Stack the regressions of all patterns, see `stack` and `add_alone`.

    Args:
        patterns: Coordinates of the similarities and modalities of each pattern, in the order of `SHOWN`.
        linear: Logistic regression of each pattern; None without samples.
        labels: Labels and folds of all rows.
    """
    both, *alone = [
        each and stack(each, basis, parts, labels, shown)
        for each, (basis, parts), shown in zip(linear, patterns, SHOWN, strict=True)
    ]
    if both is not None:
        both = add_alone(both, [each for each in alone if each is not None], labels)
    return [both, *alone]


def averaged(found: Sequence[Stacked | None]) -> Stacked | None:
    """Return the mean of the logits of several fits to the same rows; None if these rows are none."""
    known = [each for each in found if each is not None]
    if len(known) <= 1:
        return known[0] if known else None
    weights = torch.stack([each.weights for each in known]).mean(0)
    biases = torch.stack([each.biases for each in known]).mean(0)
    held_out = [each.held_out for each in known if each.held_out is not None]
    mean = torch.stack(held_out).mean(0) if held_out else None
    line = f"{known[0].line} (the first of {len(known)} divisions into folds, whose logits are averaged)"
    return known[0]._replace(weights=weights, biases=biases, held_out=mean, line=line)


def median_choice(found: Sequence[Regression | None]) -> Choice | None:
    """Return the choice with the median C among those of several fits; None without any."""
    choices = sorted((each.choice for each in found if each is not None), key=lambda choice: choice.c)
    return choices[len(choices) // 2] if choices else None


def stack(linear: Regression, basis: Basis, parts: Sequence[SimilarModality], labels: Labels, shown: str) -> Stacked:
    """Add a kernel regression to a logistic regression, with the share of the lowest held-out log-loss.

    Args:
        linear: Logistic regression on the features of the modalities.
        basis: Coordinates of the similarities of the modalities.
        parts: The modalities.
        labels: Labels and folds of all rows.
        shown: Name of the pattern, for the description.
    """
    own = labels.of_rows(linear.rows)
    similar = linear.weights.new_zeros(len(linear.biases), len(basis.weights))
    plain = Stacked(
        _placed(linear.weights, similar, parts), linear.biases, linear.rows, linear.held_out, linear.line(shown)
    )
    if plain.held_out is None:
        return plain
    ridge = fit_ridge(basis.values[linear.rows], own)
    similar = (basis.weights @ ridge.weights).mT
    kernel = plain._replace(
        weights=_placed(torch.zeros_like(linear.weights), similar, parts), biases=ridge.biases, held_out=ridge.held_out
    )
    plain = plain.combined(1.0, [], 0.0, own)[1]
    found = {share: plain.combined(1 - share, [kernel], share, own) for share in SHARES}
    best = min(found, key=lambda share: found[share][0])
    chosen = found[best][1]
    assert chosen.held_out is not None
    assert plain.held_out is not None
    gain = f"{best:.0%} of a kernel regression: {own.scores(chosen.held_out)}" if best > 0 else "no kernel regression"
    return chosen._replace(line=f"{linear.line(shown)}, calibrated {own.scores(plain.held_out)}; with {gain}")


def add_alone(both: Stacked, alone: Sequence[Stacked], labels: Labels) -> Stacked:
    """Add the logits of each modality alone to those of both, with the weight of the lowest held-out log-loss.

    Args:
        both: Logits for both modalities.
        alone: Logits for the image alone and for the text alone.
        labels: Labels and folds of all rows.
    """
    own, others, before = labels.of_rows(both.rows), list[Stacked](), 0
    for each in alone:
        if each.held_out is None or both.held_out is None:
            return both
        width = each.weights.shape[1]
        weights = nn.functional.pad(each.weights, (before, both.weights.shape[1] - before - width))
        others.append(each._replace(weights=weights, held_out=each.held_out[both.rows[each.rows]]))
        before += width
    found = {weight: both.combined(1.0, others, weight, own) for weight in WEIGHTS_ALONE}
    best = min(found, key=lambda weight: found[weight][0])
    chosen = found[best][1]
    assert chosen.held_out is not None
    gain = f"; with {best:g} x the logits of each alone: {own.scores(chosen.held_out)}"
    return chosen._replace(line=both.line + gain * (best > 0))


def _placed(linear: Tensor, similar: Tensor, parts: Sequence[SimilarModality]) -> Tensor:
    """Return weights in the order of the layer's input: for each modality, its features, then its similarities.

    Args:
        linear: Weights of the features of all modalities, shape (C, d).
        similar: Weights of the similarities of all modalities, shape (C, m).
        parts: The modalities.
    """
    features, similarities = (
        torch.split(linear, [part.width for part in parts], 1),
        torch.split(similar, [len(part.centres) for part in parts], 1),
    )
    return torch.cat([block for pair in zip(features, similarities, strict=True) for block in pair], 1)
