"""Differences between models, with intervals of a paired bootstrap over test samples (Efron 1979)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple

import torch
from torch import Tensor

from robusttune.evaluation.bootstrap import interval
from robusttune.report.conditions import MEAN, in_order
from robusttune.report.estimates import mean_over
from robusttune.report.models import Model, data_seeds
from robusttune.report.predictions import read_predictions
from robusttune.report.resample import resampled
from robusttune.report.runs import TestResults


class Difference(NamedTuple):
    """The difference of a metric between a model and the baseline, model minus baseline.

    Attributes:
        mean: Mean over pairs of runs.
        low: Lower end of the 95 % paired bootstrap interval over samples.
        high: Upper end of the 95 % paired bootstrap interval over samples.
        pairs: Number of pairs of runs.
        resamples: Mean over pairs in each resample, shape (resamples,), float64; None if it is not known.

    Example:
        >>> Difference(mean=0.02, low=0.01, high=0.03, pairs=1).clear
        True
    """

    mean: float
    low: float
    high: float
    pairs: int
    resamples: Tensor | None = None

    @property
    def clear(self) -> bool:
        """Return whether the interval excludes 0."""
        return self.low > 0 or self.high < 0


def mean_difference(differences: Sequence[Difference]) -> Difference:
    """Return the mean of differences that were measured on different samples, such as those of several data sets.

    Args:
        differences: Differences with known resamples, which are independent of each other, at least one.

    Example:
        >>> import torch
        >>> first, second = (Difference(mean, 0.0, 0.0, 3, torch.full((1000,), mean)) for mean in (0.25, 0.75))
        >>> mean_difference([first, second])[:4]
        (0.5, 0.5, 0.5, 3)
    """
    resamples = torch.stack([d.resamples for d in differences if d.resamples is not None]).mean(0)
    return Difference(
        mean(difference.mean for difference in differences),
        *interval(resamples),
        min(difference.pairs for difference in differences),
        resamples,
    )


class BootstrappedRun(NamedTuple):
    """A tested run with the bootstrap distribution of a metric.

    Attributes:
        data_seeds: Seeds that decide which samples, noise and missing modalities the run was tested on.
        seed: Seed of the training.
        tested: Results of the test.
        samples: Hash of the test samples.
        values: Metric in each resample by condition, shape (resamples,), float64; None if the metric cannot be
            computed from the predictions for single samples.
    """

    data_seeds: tuple[Any, ...]
    seed: Any
    tested: TestResults
    samples: str
    values: dict[str, Tensor] | None


def bootstrap(model: Model, metric: str) -> list[BootstrappedRun]:
    """Compute the bootstrap distribution of a metric for each run of a model."""
    return [
        bootstrap_test(run.predictions, tested, metric, data_seeds(run), run.settings.get("seed_everything"))
        for run, tested in zip(model.runs, model.tests, strict=True)
    ]


def bootstrap_test(
    path: Path, tested: TestResults, metric: str, data_seeds: tuple[Any, ...], seed: Any
) -> BootstrappedRun:
    """Compute the bootstrap distribution of a metric for a test.

    Args:
        path: Parquet file with the predictions.
        tested: Results of the test.
        metric: Name of the metric.
        data_seeds: Seeds that decide which samples, noise and missing modalities the run was tested on.
        seed: Seed of the training.

    Raises:
        RobustTuneError: The file has another format.
    """
    predictions = read_predictions(path)
    values = resampled(predictions, metric)
    by_condition = None if values is None else dict(zip(predictions.conditions, values.unbind(1), strict=True))
    return BootstrappedRun(data_seeds, seed, tested, predictions.samples, by_condition)


def same_samples(bootstrapped: dict[str, list[BootstrappedRun]]) -> bool:
    """Return whether runs with the same data seeds were tested on the same samples."""
    samples: dict[tuple[Any, ...], set[str]] = {}
    for entry in (entry for entries in bootstrapped.values() for entry in entries):
        samples.setdefault(entry.data_seeds, set()).add(entry.samples)
    return all(len(hashes) == 1 for hashes in samples.values())


def differences_to(
    bootstrapped: dict[str, list[BootstrappedRun]], baseline: str, shared: list[str], metric: str
) -> tuple[dict[str, dict[str, Difference]], dict[str, str]]:
    """Return the differences to the baseline by model label, and for models without any the reason by model label."""
    differences: dict[str, dict[str, Difference]] = {}
    unpaired: dict[str, str] = {}
    for label, mine in bootstrapped.items():
        if label == baseline:
            continue
        theirs = bootstrapped[baseline]
        pairs = _pairs(mine, theirs)
        if any(entry.values is None for entry in (*mine, *theirs)):
            unpaired[label] = f"{metric} cannot be computed from the predictions for single samples"
        elif pairs:
            differences[label] = _paired_differences(pairs, shared, metric)
        elif {entry.samples for entry in mine} & {entry.samples for entry in theirs}:
            unpaired[label] = f"it was tested with other data seeds than {baseline}"
        else:
            unpaired[label] = f"it was tested on other samples, or with other labels, than {baseline}"
    return differences, unpaired


def _pairs(mine: list[BootstrappedRun], theirs: list[BootstrappedRun]) -> list[tuple[BootstrappedRun, BootstrappedRun]]:
    """Pair runs of two models; each run is in one pair at most.

    The runs of a pair have the same test samples and the same data seeds, because noise and missing modalities depend
    on these seeds. Runs that also have the same ``seed_everything`` are paired first.
    """
    pairs = []
    unpaired, free = [*mine], [*theirs]
    for same_training in (True, False):
        for entry in [*unpaired]:
            other = next((o for o in free if _belong_together(entry, o, same_training)), None)
            if other is not None:
                pairs.append((entry, other))
                unpaired.remove(entry)
                free.remove(other)
    return pairs


def _belong_together(entry: BootstrappedRun, other: BootstrappedRun, same_training: bool) -> bool:
    """Return whether two runs can be paired.

    Args:
        entry: One run.
        other: Another run.
        same_training: Flag for pairs that must have the same seed of the training, too.
    """
    same_data = (entry.samples, entry.data_seeds) == (other.samples, other.data_seeds)
    return same_data and (entry.seed == other.seed or not same_training)


def _paired_differences(
    pairs: list[tuple[BootstrappedRun, BootstrappedRun]], shared: list[str], metric: str
) -> dict[str, Difference]:
    """Return the mean difference over pairs by condition or ``mean``; conditions with unknown values are left out."""
    values = [(a.values or {}, b.values or {}) for a, b in pairs]
    common = in_order(set.intersection(*({*by_condition} for pair in values for by_condition in pair)))
    averaged = {name: [name] for name in common}
    if shared and {*shared} <= {*common}:
        averaged[MEAN] = shared
    differences = {}
    for name, conditions in averaged.items():
        means = [(mean_over(a.tested, conditions, metric), mean_over(b.tested, conditions, metric)) for a, b in pairs]
        known = [a - b for a, b in means if a is not None and b is not None]
        if len(known) < len(pairs):
            continue
        resamples = sum(a[c] - b[c] for a, b in values for c in conditions) / (len(pairs) * len(conditions))
        assert isinstance(resamples, Tensor)
        differences[name] = Difference(mean(known), *interval(resamples), len(pairs), resamples)
    return differences
