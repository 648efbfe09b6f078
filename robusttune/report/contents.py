"""What the tables of a report say."""

from __future__ import annotations

from collections.abc import Iterable
from statistics import mean, stdev

from robusttune.evaluation.metrics import LOWER_IS_BETTER
from robusttune.report.compare import Comparison, Difference, Estimate
from robusttune.report.conditions import MEAN, SIDES, by_group
from robusttune.report.models import Model
from robusttune.report.robustness import Areas, areas, mean_relative
from robusttune.report.tables import Cell, Rows, Table

QUALITY = ("calibration_error", "loss", "brier")


def finding(comparison: Comparison) -> str:
    """One sentence: which model is best on the mean, and by how much."""
    of = f"mean {heading(comparison.metric)} over {_conditions(comparison)}"
    known = {model.label: e.mean for model in comparison.models if (e := comparison.estimate(model, MEAN)) is not None}
    best = comparison.best(MEAN)
    if not best:
        return f"The {of} is not known of any model."
    value = f"{known[best[0].label]:.3f}"
    if len(comparison.models) == 1:
        return f"{best[0].label} is the only model that counts; its {of} is {value}."
    if len(best) > 1:
        return f"{_listed(model.label for model in best)} have the same best {of}, {value}."
    if best[0] is not comparison.baseline:
        said = f"{best[0].label} has the best {of}, {value}"
        if comparison.baseline.label not in known:
            return f"{said}; the baseline {comparison.baseline.label} has none."
        return f"{said}, which is {_against(comparison, best[0], known)}."
    said = f"The baseline {best[0].label} has the best {of}, {value}"
    others = [model for model in comparison.models if model is not best[0] and model.label in known]
    if not others:
        return f"{said}; no other model has one."
    second = min(others, key=lambda model: abs(known[model.label] - known[best[0].label]))
    return f"{said}; the next, {second.label}, is {_against(comparison, second, known)}."


def _against(comparison: Comparison, model: Model, known: dict[str, float]) -> str:
    """The difference of the mean to the baseline."""
    base = comparison.baseline.label
    difference = comparison.differences.get(model.label, {}).get(MEAN)
    if difference is None:
        reason = comparison.unpaired.get(model.label, "not all answers are kept")
        return f"{known[model.label] - known[base]:+.3f} against {base} (no paired interval: {reason})"
    zero = "" if difference.clear else ", which includes 0"
    interval = f"95 % interval over samples {difference.low:+.3f} to {difference.high:+.3f}{zero}"
    return f"{difference.mean:+.3f} against {base} ({interval})"


def caveat(comparison: Comparison) -> str:
    """One sentence: that models were tested differently, and in what; empty where they were not."""
    what = [{"samples": "number of samples"}.get(name, name) for name in comparison.asked]
    what += [] if comparison.same_samples else ["on other samples"]
    return f"Models were tested differently ({', '.join(what)}): values may differ for that alone." if what else ""


def main_table(comparison: Comparison) -> Table:
    """The metric, conditions by models."""
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
    """Calibration error, loss and Brier score."""
    there = [metric for metric in QUALITY if metric in comparison.metrics]
    rows = [name for name in (*SIDES, MEAN) if name == MEAN or name in comparison.conditions]
    groups = [Rows(heading(m), [(name, _estimates(comparison, name, m)) for name in rows]) for m in there]
    return (
        Table("Calibration error, loss, Brier score", _headers(comparison.models), groups, _best("loss"))
        if groups
        else None
    )


def robustness_table(comparison: Comparison) -> Table | None:
    """Area under the curve of the headline over missing rates, and what is kept of it."""
    models = comparison.models
    found = areas(comparison)
    under = [(f"missing {kind}", _spread(models, of_kind.of_runs)) for kind, of_kind in found.items()]
    rows = [Rows("area under the curve over missing rates", under)]
    relative, over = mean_relative(comparison)
    if over:
        rows.append(Rows("relative robustness", [(f"mean over {_count(over)}", _spread(models, relative))]))
    rows = [group for group in rows if group.rows]
    headline = heading(models[0].tests[0].headline)
    note = f"Of {headline}. Relative robustness is the share that is kept of its value on complete samples. {_best('')}"
    note += f" {_rates(found)}" if found else ""
    return Table("Robustness", _headers(models), rows, note) if rows else None


def effective_table(comparison: Comparison, effective: dict[str, dict[str, list[float]]], trend: list[Model]) -> Table:
    """Effective robustness, conditions by models."""
    known = [name for name in comparison.conditions if any(name in of_model for of_model in effective.values())]
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
    """Differences to the baseline, conditions by models; None where there is no other model."""
    others = [model for model in comparison.models if model is not comparison.baseline]
    if not others:
        return None
    paired = [model for model in others if model.label in comparison.differences]

    def cells(name: str) -> list[Cell]:
        return [_difference(comparison.differences[model.label].get(name)) for model in paired]

    there = {name for of_model in comparison.differences.values() for name in of_model} - {MEAN}
    groups = [Rows(group, [(n, cells(n)) for n in names]) for group, names in by_group(there).items()]
    if any(MEAN in of_model for of_model in comparison.differences.values()):
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
    """What a metric is called in a sentence."""
    return {"brier": "Brier score", "auroc": "AUROC"}.get(metric, metric.replace("_", " "))


def _pairs(comparison: Comparison, model: Model) -> int:
    return max((difference.pairs for difference in comparison.differences[model.label].values()), default=0)


def _headers(models: list[Model]) -> list[str]:
    return [f"{model.label} ({_count_of(len(model.runs), 'seed')})" for model in models]


def _count_of(count: int, what: str) -> str:
    return f"{count} {what}{'s' * (count != 1)}"


def _count(names: list[str]) -> str:
    return _count_of(len(names), "condition")


def _conditions(comparison: Comparison) -> str:
    all_have = " that all models have" if comparison.conditions != comparison.shared else ""
    return f"{_count(comparison.shared)}{all_have}"


def _rates(found: dict[str, Areas]) -> str:
    """Over which rates areas are."""
    kinds: dict[str, list[str]] = {}
    for kind, of_kind in found.items():
        kinds.setdefault(_listed(f"{rate:g}" for rate in of_kind.rates), []).append(kind)
    told = "; ".join(f"{rates} ({', '.join(of_rates)})" for rates, of_rates in kinds.items())
    return f"Areas are over the rates that all models have: {told}."


def _best(metric: str) -> str:
    return f"The best of a row is bold{'; lower is better' if metric in LOWER_IS_BETTER else ''}."


def _listed(names: Iterable[str]) -> str:
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last


def _estimates(comparison: Comparison, condition: str, metric: str | None = None) -> list[Cell]:
    best = {model.label for model in comparison.best(condition, metric)}
    cells = [(model, comparison.estimate(model, condition, metric)) for model in comparison.models]
    several = sum(estimate is not None for _, estimate in cells) > len(best)
    return [Cell() if e is None else Cell(_value(e), several and model.label in best) for model, e in cells]


def _value(estimate: Estimate, form: str = ".3f") -> str:
    if estimate.deviation is not None:
        return f"{estimate.mean:{form}} ± {estimate.deviation:.3f}"
    if estimate.low is None or estimate.high is None:
        return f"{estimate.mean:{form}}"
    return f"{estimate.mean:{form}} [{estimate.low:.3f}, {estimate.high:.3f}]"


def _spread(models: list[Model], values: dict[str, list[float]], form: str = ".3f") -> list[Cell]:
    """A cell a model, of values of its runs; the best stands out."""
    means = {label: mean(of_runs) for label, of_runs in values.items() if of_runs}
    best = max(means.values(), default=0)
    several = len({*means.values()}) > 1
    cells = []
    for model in models:
        of_runs = values.get(model.label)
        if not of_runs:
            cells.append(Cell())
            continue
        estimate = Estimate(mean(of_runs), stdev(of_runs) if len(of_runs) > 1 else None, len(of_runs))
        cells.append(Cell(_value(estimate, form), several and means[model.label] == best))
    return cells


def _difference(difference: Difference | None) -> Cell:
    if difference is None:
        return Cell()
    return Cell(f"{difference.mean:+.3f} [{difference.low:+.3f}, {difference.high:+.3f}]", difference.clear)
