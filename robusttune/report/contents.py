"""Contents of a report: the sentences at its top and its tables."""

from __future__ import annotations

from collections.abc import Iterable
from statistics import mean, stdev

from robusttune.corruption.grammar import STANDARD_CONDITIONS
from robusttune.evaluation.metric_names import LOWER_IS_BETTER
from robusttune.report.compare import Comparison, Difference, Estimate
from robusttune.report.conditions import MEAN, by_group
from robusttune.report.models import Model
from robusttune.report.robustness import Areas, areas, mean_relative
from robusttune.report.tables import Cell, Rows, Table

QUALITY = ("calibration_error", "loss", "brier")


def finding(comparison: Comparison) -> str:
    """Return one sentence that names the model with the best mean over conditions and its difference to the baseline.

    If the baseline itself is the best, the sentence gives the difference of the next model to it.
    """
    quantity = f"mean {heading(comparison.metric)} over {_conditions(comparison)}"
    known = {model.label: e.mean for model in comparison.models if (e := comparison.estimate(model, MEAN)) is not None}
    best = comparison.best(MEAN)
    if not best:
        return f"The {quantity} is not known of any model."
    value = f"{known[best[0].label]:.3f}"
    if len(comparison.models) == 1:
        return f"{best[0].label} is the only model that counts; its {quantity} is {value}."
    if len(best) > 1:
        return f"{_listed(model.label for model in best)} have the same best {quantity}, {value}."
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
        reason = comparison.unpaired.get(model.label, "not all predictions are kept")
        return f"{known[model.label] - known[base]:+.3f} against {base} (no paired interval: {reason})"
    zero = "" if difference.clear else ", which includes 0"
    interval = f"95 % interval over samples {difference.low:+.3f} to {difference.high:+.3f}{zero}"
    return f"{difference.mean:+.3f} against {base} ({interval})"


def caveat(comparison: Comparison) -> str:
    """Return one sentence that lists how the models' tests differ, or an empty text if they do not differ."""
    differences = [{"samples": "number of samples"}.get(name, name) for name in comparison.asked]
    differences += [] if comparison.same_samples else ["on other samples"]
    if not differences:
        return ""
    return f"Models were tested differently ({', '.join(differences)}): values may differ for that alone."


def main_table(comparison: Comparison) -> Table:
    """Return the table of the metric, with a row per condition and a column per model."""
    groups = [
        Rows(group, [(name, _estimates(comparison, name)) for name in names])
        for group, names in by_group(comparison.conditions).items()
    ]
    groups.append(Rows("", [(MEAN, _estimates(comparison, MEAN))]))
    note = "Mean over seeds ± standard deviation; for one seed, with the 95 % interval over samples."
    note += f" {_best(comparison.metric)}"
    if comparison.conditions != comparison.shared:
        note += f" The mean is over {_conditions(comparison)}."
    return Table(f"{heading(comparison.metric)} by condition".capitalize(), _headers(comparison.models), groups, note)


def quality_table(comparison: Comparison) -> Table | None:
    """Return the table of calibration error, loss and Brier score; None if no model has any of them."""
    known = [metric for metric in QUALITY if metric in comparison.metrics]
    rows = [name for name in (*STANDARD_CONDITIONS, MEAN) if name == MEAN or name in comparison.conditions]
    groups = [Rows(heading(m), [(name, _estimates(comparison, name, m)) for name in rows]) for m in known]
    return (
        Table("Calibration error, loss, Brier score", _headers(comparison.models), groups, _best("loss"))
        if groups
        else None
    )


def robustness_table(comparison: Comparison) -> Table | None:
    """Return the table of areas under the missing-rate curve and of relative robustness; None if neither is known."""
    models = comparison.models
    areas_by_type = areas(comparison)
    area_rows = [(f"missing {kind}", _spread(models, entry.of_runs)) for kind, entry in areas_by_type.items()]
    rows = [Rows("area under the curve over missing rates", area_rows)]
    relative, conditions = mean_relative(comparison)
    if conditions:
        rows.append(Rows("relative robustness", [(f"mean over {_count(conditions)}", _spread(models, relative))]))
    rows = [group for group in rows if group.rows]
    headline = heading(models[0].tests[0].headline)
    note = f"Of {headline}. Relative robustness is the share that is kept of its value on complete samples. {_best('')}"
    note += f" {_rates(areas_by_type)}" if areas_by_type else ""
    return Table("Robustness", _headers(models), rows, note) if rows else None


def effective_table(comparison: Comparison, effective: dict[str, dict[str, list[float]]], trend: list[Model]) -> Table:
    """Return the table of effective robustness, with a row per condition and a column per model.

    Args:
        comparison: Comparison of the models.
        effective: Effective robustness of each run by model label and condition.
        trend: Models behind the fitted trend.
    """
    known = [name for name in comparison.conditions if any(name in values for values in effective.values())]
    groups = [
        Rows(
            group,
            [(n, _spread(comparison.models, {m: v.get(n, []) for m, v in effective.items()}, "+.3f")) for n in names],
        )
        for group, names in by_group(known).items()
    ]
    note = (
        f"{heading(comparison.metric).capitalize()} beyond what a line through the logits of "
        f"{_listed(model.label for model in trend)} predicts from that on complete samples (Taori et al. 2020)."
    )
    return Table("Effective robustness", _headers(comparison.models), groups, note)


def difference_table(comparison: Comparison) -> Table | None:
    """Return the table of differences to the baseline, with a row per condition; None if there is no other model."""
    others = [model for model in comparison.models if model is not comparison.baseline]
    if not others:
        return None
    paired = [model for model in others if model.label in comparison.differences]

    def cells(name: str) -> list[Cell]:
        """Return the cells of a condition, one per model with differences."""
        return [_difference(comparison.differences[model.label].get(name)) for model in paired]

    conditions = {name for by_condition in comparison.differences.values() for name in by_condition} - {MEAN}
    groups = [Rows(group, [(n, cells(n)) for n in names]) for group, names in by_group(conditions).items()]
    if any(MEAN in by_condition for by_condition in comparison.differences.values()):
        groups.append(Rows("", [(MEAN, cells(MEAN))]))
    headers = [f"{m.label} ({_count_of(_pairs(comparison, m), 'pair')})" for m in paired]
    note = (
        "With 95 % intervals over samples, by a paired bootstrap of 1,000 draws; bold ones exclude 0. "
        "A pair is a run of either model on the same samples. What other seeds would give is not in the intervals."
        if paired
        else ""
    )
    without = " ".join(
        f"There is no paired interval for {label}: {reason}." for label, reason in comparison.unpaired.items()
    )
    title = f"Difference in {heading(comparison.metric)} to {comparison.baseline.label}"
    return Table(title, headers, groups, " ".join(filter(None, [note, without])))


def heading(metric: str) -> str:
    """Return the name of a metric as written in a sentence.

    Example:
        >>> heading("calibration_error"), heading("brier")
        ('calibration error', 'Brier score')
    """
    return {"brier": "Brier score", "auroc": "AUROC"}.get(metric, metric.replace("_", " "))


def _pairs(comparison: Comparison, model: Model) -> int:
    """Return the number of pairs of runs behind a model's differences."""
    return max((difference.pairs for difference in comparison.differences[model.label].values()), default=0)


def _headers(models: list[Model]) -> list[str]:
    return [f"{model.label} ({_count_of(len(model.runs), 'seed')})" for model in models]


def _count_of(count: int, noun: str) -> str:
    """Return a count with its noun, which gets a plural s unless the count is 1."""
    return f"{count} {noun}{'s' * (count != 1)}"


def _count(names: list[str]) -> str:
    return _count_of(len(names), "condition")


def _conditions(comparison: Comparison) -> str:
    """Return a phrase for the conditions over which means are taken."""
    suffix = " that all models have" if comparison.conditions != comparison.shared else ""
    return f"{_count(comparison.shared)}{suffix}"


def _rates(areas_by_type: dict[str, Areas]) -> str:
    """Return a sentence with the missing rates over which the areas are computed."""
    types_by_rates: dict[str, list[str]] = {}
    for kind, entry in areas_by_type.items():
        types_by_rates.setdefault(_listed(f"{rate:g}" for rate in entry.rates), []).append(kind)
    listing = "; ".join(f"{rates} ({', '.join(types)})" for rates, types in types_by_rates.items())
    return f"Areas are over the rates that all models have: {listing}."


def _best(metric: str) -> str:
    return f"The best of a row is bold{'; lower is better' if metric in LOWER_IS_BETTER else ''}."


def _listed(names: Iterable[str]) -> str:
    """Return an enumeration such as "a, b and c"."""
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last


def _estimates(comparison: Comparison, condition: str, metric: str | None = None) -> list[Cell]:
    """Return a cell per model; the best values are strong unless all known values are the best."""
    best = {model.label for model in comparison.best(condition, metric)}
    cells = [(model, comparison.estimate(model, condition, metric)) for model in comparison.models]
    several = sum(estimate is not None for _, estimate in cells) > len(best)
    return [Cell() if e is None else Cell(_value(e), several and model.label in best) for model, e in cells]


def _value(estimate: Estimate, form: str = ".3f") -> str:
    """Return the mean with its standard deviation over seeds or its interval over samples, if any is known."""
    if estimate.deviation is not None:
        return f"{estimate.mean:{form}} ± {estimate.deviation:.3f}"
    if estimate.low is None or estimate.high is None:
        return f"{estimate.mean:{form}}"
    return f"{estimate.mean:{form}} [{estimate.low:.3f}, {estimate.high:.3f}]"


def _spread(models: list[Model], values: dict[str, list[float]], form: str = ".3f") -> list[Cell]:
    """Return a cell per model from the values of its runs; the best means are strong unless all means are equal.

    Args:
        models: Models in the order of the cells.
        values: Value of each run by model label; higher is better.
        form: Format of the mean.
    """
    means = {label: mean(run_values) for label, run_values in values.items() if run_values}
    best = max(means.values(), default=0)
    several = len({*means.values()}) > 1
    cells = []
    for model in models:
        run_values = values.get(model.label)
        if not run_values:
            cells.append(Cell())
            continue
        deviation = stdev(run_values) if len(run_values) > 1 else None
        estimate = Estimate(mean(run_values), deviation, len(run_values))
        cells.append(Cell(_value(estimate, form), several and means[model.label] == best))
    return cells


def _difference(difference: Difference | None) -> Cell:
    if difference is None:
        return Cell()
    return Cell(f"{difference.mean:+.3f} [{difference.low:+.3f}, {difference.high:+.3f}]", difference.clear)
