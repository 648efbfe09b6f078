"""The package's networks, fitted to the features of a table in this process, and their predictions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from experiments.small_tables.steps import train
from experiments.training import CONDITIONS
from torch import Tensor
from torch.nn.functional import one_hot

from robusttune.models import Experts, LogisticRegression, MoLT, Stacking
from robusttune.models.base import Fused, FusionNetwork
from robusttune.models.fitted import FittedNetwork, TrainingFeatures
from robusttune.models.logistic import stratified_folds
from robusttune.models.temperatures import VIEWS, blocks_of
from robusttune.models.thresholds import Thresholds
from robusttune.types import Encoded, Facts, View, Widths

MODELS = {
    "linear": LogisticRegression(),
    "stacking": Stacking(),
    "Experts": Experts(),
    "MoLT": MoLT(cca_dim=16),  # as in configs/fusion/molt.yaml
}
SHOWN = dict(zip(CONDITIONS, (View(), View(image=None), View(text=None)), strict=True))
TENTH = 10  # Networks are trained on nine tenths of multi-label rows, and thresholds are fitted to the other one.


class Fit(NamedTuple):
    """A fitted network, and the thresholds of its predictions; None in multi-class data."""

    network: FusionNetwork
    widths: tuple[Widths, Widths]
    thresholds: Thresholds | None

    @torch.no_grad()
    def logits(self, samples: TrainingFeatures, views: Sequence[View]) -> Tensor:
        """Return the logits of ``N`` samples under ``W`` views, shape (W, N, C)."""
        outputs = encoder_outputs(samples, self.widths)
        self.network.eval()
        fused: list[Fused] = [self.network(*outputs, *view.present(*samples.present.T)) for view in views]
        return torch.stack([each.logits for each in fused])

    def predict(self, samples: TrainingFeatures, view: View) -> Tensor:
        """Return predicted classes under a view, shape (N,), or 0/1 per class, shape (N, C), in multi-label data."""
        logits = self.logits(samples, [view])[0]
        if self.thresholds is None:
            return logits.argmax(1)
        cuts: Tensor = self.thresholds.cuts[view.patterns(samples.present)]
        return (logits >= cuts).long()


def fit(model: str, samples: TrainingFeatures, widths: tuple[Widths, Widths], classes: int, seed: int) -> Fit:
    """Fit a model of `MODELS` and, in multi-label data, thresholds on predictions for held-out samples.

    Args:
        model: Name of the model.
        samples: Training samples.
        widths: Widths of the outputs of both encoders.
        classes: Number of classes.
        seed: Seed of the initial weights, of batches and folds.
    """
    torch.manual_seed(seed)
    hot = samples.label if samples.label.ndim == 2 else one_hot(samples.label, classes)
    multilabel, frequencies = samples.label.ndim == 2, hot.float().mean(0).tolist()
    facts = Facts([str(number) for number in range(classes)], frequencies, multilabel, len(hot))
    found = Fit(MODELS[model].build(*widths, facts), widths, Thresholds(classes) if multilabel else None)
    judged = samples
    if isinstance(found.network, FittedNetwork):
        logits = found.network.fit(samples, seed).held_out
    else:
        is_judged = torch.zeros(len(hot), dtype=torch.bool)
        if multilabel:
            is_judged = stratified_folds(hot, samples.sample_id, seed, TENTH) == 0
        trained, judged = (of_rows(samples, rows) for rows in (~is_judged, is_judged))
        train(found.network, trained, encoder_outputs(trained, widths), facts)
        logits = found.logits(judged, VIEWS) if multilabel else None
    if found.thresholds is not None:
        assert logits is not None, "too few rows for a cross-validation"
        found.thresholds.keep(found.thresholds.fit(blocks_of(logits, judged.label, judged.present, VIEWS)))
    return found


def of_rows(samples: TrainingFeatures, rows: Tensor) -> TrainingFeatures:
    """Return the samples of some rows, given a mask, shape (N,), bool."""
    ids = [name for name, kept in zip(samples.sample_id, rows.tolist(), strict=True) if kept]
    image, text, present, label = (column[rows] for column in samples[:4])
    return TrainingFeatures(image, text, present, label, ids)


def encoder_outputs(samples: TrainingFeatures, widths: tuple[Widths, Widths]) -> tuple[Encoded, Encoded]:
    """Return features as the outputs of both encoders, whose layers have one token: their mean."""
    columns = zip((samples.image, samples.text), widths, samples.present.T, strict=True)
    image, text = (_encoder_output(features, *rest) for features, *rest in columns)
    return image, text


def _encoder_output(features: Tensor, widths: Widths, present: Tensor) -> Encoded:
    features = torch.where(present.unsqueeze(1), features, 0.0)
    pooled, *layers = torch.split(features, [widths.pooled, *widths.layers], 1)
    return Encoded(pooled, [tokens.unsqueeze(1) for tokens in layers], [present.unsqueeze(1)] * len(layers))
