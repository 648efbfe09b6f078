"""Outcomes of protocols that were never run."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import harmonic_mean

from robusttune.protocols.ledger import load
from robusttune.protocols.outcomes import Outcome


def published_sets() -> list[str]:
    """Return the eleven data sets of the published base-to-new tables."""
    return [p.dataset for p in load("base_to_new") if p.metric == "base_accuracy" and p.source == "MMRL (CVPR 2025)"][
        :-1
    ]


def published(metric: str, dataset: str) -> float:
    """Return the number of MMRL's paper, in percent."""
    (value,) = (
        p.value for p in load("base_to_new") if (p.source, p.metric, p.dataset) == ("MMRL (CVPR 2025)", metric, dataset)
    )
    assert value is not None
    return value


def base_to_new(dataset: str, method: str, seed: int, base: float, new: float) -> Outcome:
    """Return the outcome of a test with these accuracies, in percent."""
    values = {"base_accuracy": base / 100, "new_accuracy": new / 100, "harmonic_mean": harmonic_mean([base, new]) / 100}
    labels = {"dataset": dataset, "method": method, "seed": str(seed)}
    return Outcome(labels, headline="harmonic_mean", values={"complete": dict(values)})


def outcome_with(labels: Mapping[str, str], metric: str = "accuracy", **percent: float) -> Outcome:
    """Return the outcome of a test with a value by condition, in percent."""
    return Outcome(
        dict(labels), headline=metric, values={name: {metric: value / 100} for name, value in percent.items()}
    )


def mmrl() -> list[Outcome]:
    """Return outcomes with the published numbers of MMRL, as if of one seed."""
    return [
        base_to_new(name, "MMRL", 1, published("base_accuracy", name), published("new_accuracy", name))
        for name in published_sets()
    ]
