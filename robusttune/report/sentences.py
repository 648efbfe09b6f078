"""Sentences of a report: its main result, and how the tests of its models differ."""

from __future__ import annotations

from collections.abc import Iterable

from robusttune.counting import counted
from robusttune.report.compare import Comparison
from robusttune.report.conditions import MEAN
from robusttune.report.models import Model


def finding(comparison: Comparison) -> str:
    """Return one sentence that names the model with the best mean over conditions and its difference to the baseline.

    If the baseline itself is the best, the sentence gives the difference of the next model to it.
    """
    quantity = f"mean {heading(comparison.metric)} over {averaged_conditions(comparison)}"
    known = {model.label: e.mean for model in comparison.models if (e := comparison.estimate(model, MEAN)) is not None}
    best = comparison.best(MEAN)
    if not best:
        return f"No model has a {quantity}."
    value = f"{known[best[0].label]:.3f}"
    if len(comparison.models) == 1:
        return f"{best[0].label} is the only model; its {quantity} is {value}."
    if len(best) > 1:
        return f"{listed(model.label for model in best)} have the same best {quantity}, {value}."
    if best[0] is not comparison.baseline:
        sentence = f"{best[0].label} has the best {quantity}, {value}"
        if comparison.baseline.label not in known:
            return f"{sentence}; the baseline {comparison.baseline.label} has none."
        return f"{sentence}, which is {_against(comparison, best[0], known)}."
    sentence = f"The baseline {best[0].label} has the best {quantity}, {value}"
    others = [model for model in comparison.models if model is not best[0] and model.label in known]
    if not others:
        return f"{sentence}; no other model has one."
    second = min(others, key=lambda model: abs(known[model.label] - known[best[0].label]))
    return f"{sentence}; the next, {second.label}, is {_against(comparison, second, known)}."


def caveat(comparison: Comparison) -> str:
    """Return one sentence that lists how the models' tests differ, or an empty text if they do not differ."""
    differences = [{"samples": "number of samples"}.get(name, name) for name in comparison.test_settings]
    differences += [] if comparison.same_samples else ["on other samples"]
    if not differences:
        return ""
    return f"Models were tested differently ({', '.join(differences)}): values may differ for this reason alone."


def heading(metric: str) -> str:
    """Return the name of a metric as written in a sentence.

    Example:
        >>> heading("calibration_error"), heading("brier")
        ('calibration error', 'Brier score')
    """
    return {"brier": "Brier score", "auroc": "AUROC"}.get(metric, metric.replace("_", " "))


def _against(comparison: Comparison, model: Model, known: dict[str, float]) -> str:
    """Return a phrase with a model's difference to the baseline in the mean over conditions, and its interval.

    Args:
        comparison: Comparison that has the differences.
        model: Model other than the baseline.
        known: Mean over conditions by model label.
    """
    base = comparison.baseline.label
    difference = comparison.differences.get(model.label, {}).get(MEAN)
    if difference is None:
        reason = comparison.unpaired.get(model.label, "the predictions of some conditions are missing")
        return f"{known[model.label] - known[base]:+.3f} against {base} (no paired interval: {reason})"
    zero = "" if difference.clear else ", which includes 0"
    interval = f"95 % interval over samples {difference.low:+.3f} to {difference.high:+.3f}{zero}"
    return f"{difference.mean:+.3f} against {base} ({interval})"


def averaged_conditions(comparison: Comparison) -> str:
    """Return a phrase for the conditions over which means are taken."""
    suffix = " that all models have" if comparison.conditions != comparison.shared else ""
    return f"{counted(len(comparison.shared), 'condition')}{suffix}"


def listed(names: Iterable[str]) -> str:
    """Return an enumeration such as "a, b and c"."""
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last
