"""Logistic regression for each pattern of present modalities, fitted to all training features at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isnan
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from robusttune.errors import RobustTuneError
from robusttune.models.base import FusionModel
from robusttune.models.logistic import (
    FOLDS,
    GRID,
    Chosen,
    Rows,
    choose_c,
    fit,
    learnable,
    rotate,
    rotate_back,
    stratified_folds,
)
from robusttune.models.pair_network import PairNetwork
from robusttune.models.standardised import Standardised, regression
from robusttune.types import Encoded, Facts, Widths


@dataclass(frozen=True)
class LogisticRegression(FusionModel):
    """Settings of a `LinearNetwork`: logistic regressions on the image, on the text and on both.

    Args:
        layers: True to read the mean token of each chosen layer besides the pooled embedding, False to read the pooled
            embedding alone, null to choose for each modality by cross-validation.
        c: Inverse strength of the L2 penalty on standardised features, above 0, as ``C`` of scikit-learn; null to
            choose it for each pattern of present modalities by cross-validated log-loss.

    Raises:
        RobustTuneError: ``c`` is not above 0.

    Example:
        >>> from robusttune.types import Facts, Widths
        >>> facts = Facts(["cat", "dog"], [0.5, 0.5], multilabel=False)
        >>> LogisticRegression(layers=False).build(Widths((8, 8), 16), Widths((8, 8), 4), facts).both
        Linear(in_features=20, out_features=2, bias=True)
    """

    layers: bool | None = None
    c: float | None = None

    def __post_init__(self) -> None:
        if self.c is not None and not self.c > 0:
            raise RobustTuneError(f"model.fusion.c is {self.c}: give a number above 0, or null")

    def build(self, image: Widths, text: Widths, facts: Facts) -> LinearNetwork:
        """Build the network, whose weights are 0 until it is fitted."""
        return LinearNetwork(self, image, text, facts)


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


class Fit(NamedTuple):
    """The regression of one pattern of present modalities.

    Attributes:
        pattern: ``both``, ``image`` or ``text``.
        rows: Number of training samples that can show the pattern.
        features: Number of features that are used.
        c: Inverse strength of the penalty.
        loss: Log-loss in cross-validation; NaN without one.
    """

    pattern: str
    rows: int
    features: int
    c: float
    loss: float


class LinearNetwork(PairNetwork):
    """Logistic regressions on standardised features. The one for the modalities that are present predicts.

    Attributes:
        fitted: True after `fit`, shape (), bool.
    """

    fitted: Tensor

    def __init__(self, settings: LogisticRegression, image: Widths, text: Widths, facts: Facts) -> None:
        super().__init__(facts)
        self.settings = settings
        self.multilabel = facts.multilabel
        self.image = Standardised(settings.layers, image, facts)
        self.text = Standardised(settings.layers, text, facts)
        self.both = regression(self.image.width + self.text.width, facts)
        self.register_buffer("fitted", torch.zeros((), dtype=torch.bool))

    @property
    def output_layers(self) -> list[nn.Module]:
        """Return the regression on both modalities, whose input is an embedding of the sample."""
        return [self.both]

    def pair_logits(
        self, image: Encoded, text: Encoded, rows: tuple[Tensor, Tensor], present: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Compute the logits of the pattern of each pair, from features that are standardised once."""
        (image_rows, text_rows), (image_present, text_present) = rows, present
        images, texts = self.image(self.image.features(image)), self.text(self.text.features(text))
        pairs = torch.cat(
            [
                torch.where(image_present.unsqueeze(1), images[image_rows], 0.0),
                torch.where(text_present.unsqueeze(1), texts[text_rows], 0.0),
            ],
            1,
        )
        of_image, of_text = self.run(self.image.alone, images)[image_rows], self.run(self.text.alone, texts)[text_rows]
        alone = torch.where(image_present.unsqueeze(1), of_image, of_text)
        logits = torch.where((image_present & text_present).unsqueeze(1), self.run(self.both, pairs), alone)
        return logits, image_present | text_present

    @torch.no_grad()
    def fit(self, samples: TrainingFeatures, seed: int) -> list[Fit]:
        """Fit the regression of each pattern to all samples that can show it.

        The statistics of a modality come from all samples that have it.

        Args:
            samples: Features that `Standardised.features` has returned.
            seed: Seed of the folds of the cross-validation.

        Returns:
            Regressions of both modalities, the image alone and the text alone, without those that have no sample.
        """
        device = (
            torch.device("cpu") if self.log_prior.device.type == "mps" else self.log_prior.device
        )  # mps: no float64
        label, present = samples.label.to(device), samples.present.to(device)
        target = (label if self.multilabel else functional.one_hot(label, len(self.log_prior))).double()
        fold = stratified_folds(target.cpu(), samples.sample_id, seed, min(FOLDS, len(target))).to(device)
        data, columns, standardised, fits = _Data(target, fold, self.multilabel), [], [], list[Fit | None]()
        for number, (name, part) in enumerate({"image": self.image, "text": self.text}.items()):
            features = getattr(samples, name).to(device)
            part.fit_statistics(features[present[:, number]])
            standardised.append(part.standardise(features))
            found, chosen = self._fit_regression(
                name, part.alone, standardised[-1], part.column_sets, data, present[:, number]
            )
            fits.append(found)
            columns.append(chosen)
        both = torch.cat(columns)
        whole, _ = self._fit_regression("both", self.both, torch.cat(standardised, 1), [both], data, present.all(1))
        self.fitted.fill_(True)
        return [each for each in (whole, *fits) if each is not None]

    def _fit_regression(
        self, pattern: str, layer: nn.Linear, features: Tensor, candidates: list[Tensor], data: _Data, rows: Tensor
    ) -> tuple[Fit | None, Tensor]:
        """Fit a layer to some rows. Without rows, it predicts the class frequencies of training.

        Args:
            pattern: Pattern of present modalities.
            layer: Layer whose weights are set.
            features: Standardised features, shape (N, d), float64.
            candidates: Sets of features to choose from, as masks of shape (d,), bool.
            data: Labels and folds of all rows.
            rows: Mask of the rows to fit to, shape (N,), bool.

        Returns:
            Description of the fit, None without rows, and the set of features that was chosen.
        """
        layer.weight.zero_()
        layer.bias.copy_(self.log_prior)
        if not rows.any():
            return None, candidates[0]
        target, fold = data.target[rows], data.fold[rows]
        grid = GRID if self.settings.c is None else [self.settings.c]
        rotated = [rotate(features[rows][:, columns]) for columns in candidates]
        options = [Rows(values, target, data.multilabel) for values, _ in rotated]
        if len(grid) == len(options) == 1:
            chosen = [Chosen(grid[0], float("nan"), None)]
        else:
            chosen = [choose_c(option, fold, grid) for option in options]
        best = min(range(len(chosen)), key=lambda number: (isnan(chosen[number].loss), chosen[number].loss))
        found = fit(options[best], chosen[best].c, chosen[best].weights)
        weights, biases = rotate_back(found[:, :-1], rotated[best][1]).to(layer.weight), found[:, -1].to(layer.weight)
        known = learnable(options[best], target.new_ones(1, len(target)))[0].to(layer.weight.device)
        columns = candidates[best]
        layer.weight[:, columns] = weights
        # Classes without rows keep the logit of their frequency, relative to the other classes.
        shift = 0.0 if data.multilabel else (biases - self.log_prior)[known].mean()
        layer.bias.copy_(torch.where(known, biases, self.log_prior + shift))
        return Fit(pattern, len(target), int(columns.sum()), chosen[best].c, chosen[best].loss), columns


class _Data(NamedTuple):
    """Labels (N, C) as 0/1 in float64, folds (N,), and the kind of task."""

    target: Tensor
    fold: Tensor
    multilabel: bool
