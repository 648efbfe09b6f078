"""Logistic regression for each pattern of present modalities, fitted to all training features at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from robusttune.errors import RobustTuneError
from robusttune.models.base import FusionModel
from robusttune.models.fitted import SHOWN, Choice, FittedNetwork, Labels, Outcome, TrainingFeatures, held_out_logits
from robusttune.models.regression import Regression, fit_regression
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


class LinearNetwork(FittedNetwork):
    """Logistic regressions on standardised features. The one for the modalities that are present predicts.

    Attributes:
        modality: Class of the two modalities' parts.
    """

    modality: type[Standardised] = Standardised

    def __init__(self, settings: LogisticRegression, image: Widths, text: Widths, facts: Facts) -> None:
        super().__init__(facts)
        self.settings = settings
        self.image = self.modality(settings.layers, image, facts)
        self.text = self.modality(settings.layers, text, facts)
        self.both = regression(self.image.output_width + self.text.output_width, facts)

    @property
    def output_layers(self) -> list[nn.Module]:
        """Return the regression on both modalities, whose input is an embedding of the sample."""
        return [self.both]

    def features(self, image: Encoded, text: Encoded) -> tuple[Tensor, Tensor]:
        """Return the features of images and texts before they are standardised, see `FittedNetwork.features`."""
        return self.image.features(image), self.text.features(text)

    def pair_logits(
        self, image: Encoded, text: Encoded, rows: tuple[Tensor, Tensor], present: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Compute the logits of the pattern of each pair, from features that are computed once."""
        (image_rows, text_rows), (image_present, text_present) = rows, present
        image_features, text_features = self.features(image, text)
        images, texts = self.image(image_features), self.text(text_features)
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
    def fit(self, samples: TrainingFeatures, seed: int, choices: Sequence[Choice | None] | None = None) -> Outcome:
        """Fit the regression of each pattern to all samples that can show it, see `FittedNetwork.fit`.

        The statistics of a modality come from all samples that have it.
        """
        found = self.fit_regressions(samples, Labels.of(samples, self.facts, seed, self.device_of_fit), choices)
        self.set_layers([each and each[:2] for each in found])
        lines = [each.line(shown) for shown, each in zip(SHOWN, found, strict=True) if each is not None]
        held_out = held_out_logits([each and (each.rows, each.held_out) for each in found], self.log_prior)
        return Outcome(lines, [each and each.choice for each in found], held_out)

    def set_layers(self, found: Sequence[tuple[Tensor, Tensor] | None]) -> None:
        """Set the layers of both modalities, the image alone and the text alone, and note that they are fitted.

        Args:
            found: Weights and biases of each; None for a layer that predicts the class frequencies.
        """
        for layer, each in zip((self.both, self.image.alone, self.text.alone), found, strict=True):
            weights, biases = (torch.zeros_like(layer.weight), self.log_prior) if each is None else each
            layer.weight.copy_(weights)
            layer.bias.copy_(biases)
        self.fitted.fill_(True)

    def fit_regressions(
        self, samples: TrainingFeatures, labels: Labels, choices: Sequence[Choice | None] | None
    ) -> list[Regression | None]:
        """Fit the statistics, and return the regressions on both modalities, the image alone and the text alone."""
        of_both, *of_alone = choices or [None] * len(SHOWN)
        present, standardised, alone = samples.present.to(labels.fold.device), list[Tensor](), list[Regression | None]()
        for part, values, rows, choice in zip(
            (self.image, self.text), samples[:2], present.unbind(1), of_alone, strict=True
        ):
            features = values.to(labels.fold.device)
            part.fit_statistics(features[rows])
            standardised.append(part.standardise(features))
            alone.append(self._fit_regression(standardised[-1], part.column_sets, labels, rows, choice))
        parts = zip((self.image, self.text), alone, strict=True)
        columns = [part.column_sets[0] if each is None else each.choice.columns for part, each in parts]
        pairs, sets = torch.cat(standardised, 1), [torch.cat(columns)]
        return [self._fit_regression(pairs, sets, labels, present.all(1), of_both), *alone]

    def _fit_regression(
        self, features: Tensor, candidates: Sequence[Tensor], labels: Labels, rows: Tensor, choice: Choice | None
    ) -> Regression | None:
        """Fit a regression, with the features and C of an earlier fit if there is one."""
        if choice is None:
            return fit_regression(features, candidates, labels, rows, self.settings.c, self.log_prior)
        return fit_regression(features, [choice.columns], labels, rows, choice.c, self.log_prior)
