"""Tables of a report."""

from __future__ import annotations

from statistics import mean, stdev

from robusttune.corruption.grammar import STANDARD_CONDITIONS
from robusttune.counting import counted
from robusttune.evaluation.metric_names import LOWER_IS_BETTER
from robusttune.report.compare import Comparison
from robusttune.report.conditions import MEAN, by_group
from robusttune.report.differences import Difference
from robusttune.report.estimates import Estimate
from robusttune.report.models import Model
from robusttune.report.robustness import Areas, areas, mean_relative
from robusttune.report.sentences import averaged_conditions, heading, listed
from robusttune.report.tables import Cell, Rows, Table

QUALITY = ("calibration_error", "loss", "brier")


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
        note += f" The mean is over {averaged_conditions(comparison)}."
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
        rows.append(
            Rows(
                "relative robustness",
                [(f"mean over {counted(len(conditions), 'condition')}", _spread(models, relative))],
            )
        )
    rows = [group for group in rows if group.rows]
    headline = heading(models[0].tests[0].headline)
    note = f"Values of {headline}. Relative robustness is the value divided by that on complete samples. {_best('')}"
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
        f"{heading(comparison.metric).capitalize()} minus the value that a line through the logits of "
        f"{listed(model.label for model in trend)} predicts from that on complete samples (Taori et al. 2020)."
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
    headers = [f"{m.label} ({counted(_pairs(comparison, m), 'pair')})" for m in paired]
    note = (
        "With 95 % intervals over samples, by a paired bootstrap of 1,000 draws; an interval in bold excludes 0. "
        "A pair is one run of each model on the same samples. The intervals leave out the variation over seeds."
        if paired
        else ""
    )
    without = " ".join(
        f"There is no paired interval for {label}: {reason}." for label, reason in comparison.unpaired.items()
    )
    title = f"Difference in {heading(comparison.metric)} to {comparison.baseline.label}"
    return Table(title, headers, groups, " ".join(filter(None, [note, without])))


def _pairs(comparison: Comparison, model: Model) -> int:
    """Return the number of pairs of runs behind a model's differences."""
    return max((difference.pairs for difference in comparison.differences[model.label].values()), default=0)


def _headers(models: list[Model]) -> list[str]:
    return [f"{model.label} ({counted(len(model.runs), 'seed')})" for model in models]


def _rates(areas_by_type: dict[str, Areas]) -> str:
    """Return a sentence with the missing rates over which the areas are computed."""
    types_by_rates: dict[str, list[str]] = {}
    for kind, entry in areas_by_type.items():
        types_by_rates.setdefault(listed(f"{rate:g}" for rate in entry.rates), []).append(kind)
    listing = "; ".join(f"{rates} ({', '.join(types)})" for rates, types in types_by_rates.items())
    return f"Areas are over the rates that all models have: {listing}."


def _best(metric: str) -> str:
    return f"The best value of a row is bold{'; lower is better' if metric in LOWER_IS_BETTER else ''}."


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
