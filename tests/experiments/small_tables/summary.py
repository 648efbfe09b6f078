"""Summary of the study of models: paired differences to logistic regression, and the tables of the page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
from experiments.records import Record, Results
from experiments.small_tables.scores import Labels, metrics_of, paired_difference, score
from experiments.training import CONDITIONS

FLOOR, OTHERS = "linear", ("stacking", "Experts", "MoLT")
CLEAR = 0.03  # A smaller difference between two conditions is called none.


def predictions_file(root: Path, table: str, model: str, split: int, seed: int) -> Path:
    """Return the file of the predictions of a job."""
    return root / f"predictions/{table}-{model}-{split}-{seed}.npz"


def pooled(root: Path, table: str, model: str, splits: Sequence[int]) -> dict[str, Labels]:
    """Return the labels and, by condition, the predictions of the test rows of several splits, seeded by the split."""
    parts = []
    for split in splits:
        with np.load(predictions_file(root, table, model, split, split)) as stored:
            parts.append(dict(stored))
    return {name: np.concatenate([part[name] for part in parts]) for name in ("label", *CONDITIONS)}


def summary(root: Path, described: Sequence[dict[str, Any]], results: Results) -> list[Record]:
    """Return the description of each table with its metrics and differences.

    Returns:
        For each table its description; `splits` of each model; `depends_on`; and for each metric of `metrics` the
        constant answer (mean over the splits), the pooled metric of logistic regression by condition, and the pooled
        difference of each other model to it by condition, with the limits of a paired 95 % interval; and, if stacking
        has several seeds on a split, the standard deviation over them by condition, as `spread`.
    """
    return [{**one, **_of_table(root, one["name"], results)} for one in described]


def _of_table(root: Path, table: str, results: Results) -> Record:
    every = [job for job in results.jobs if job["table"] == table]
    jobs = [job for job in every if job["seed"] == job["split"]]
    splits = {model: sorted(job["split"] for job in jobs if job["model"] == model) for model in (FLOOR, *OTHERS)}
    floor = pooled(root, table, FLOOR, splits[FLOOR])
    metrics: Record = {}
    for metric in metrics_of(floor["label"]):
        found = metrics[metric] = {
            "constant": round(mean(job["metrics"]["constant"][metric] for job in jobs if job["model"] == FLOOR), 4),
            FLOOR: {condition: round(score(metric, floor[condition], floor["label"]), 4) for condition in CONDITIONS},
        }
        for model in OTHERS:
            if splits[model]:
                own, other = (pooled(root, table, name, splits[model]) for name in (model, FLOOR))
                found[model] = {
                    condition: [
                        round(value, 4)
                        for value in paired_difference(metric, own[condition], other[condition], own["label"])
                    ]
                    for condition in CONDITIONS
                }
        seeds = [job["metrics"] for job in every if job["model"] == "stacking" and job["split"] == 1]
        if len(seeds) > 1:
            found["spread"] = {c: round(stdev(values[c][metric] for values in seeds), 4) for c in CONDITIONS}
    first = next(iter(metrics.values()))
    return {"splits": splits, "depends_on": dominance(**first[FLOOR]), "metrics": metrics}


def dominance(complete: float, no_image: float, no_text: float) -> str:
    """Return which modality the labels of a table depend on, from the metric in three conditions.

    Example:
        >>> dominance(complete=0.86, no_image=0.83, no_text=0.75), dominance(0.9, 0.89, 0.6)
        ('complementary', 'text')
    """
    better = max(no_image, no_text)
    if complete - better >= CLEAR - 1e-9:
        return "complementary"
    if abs(no_image - no_text) < CLEAR:
        return "either"
    return "text" if no_image > no_text else "image"


def suite_table(results: Results) -> str:
    """Return Markdown: what the tables of the suite are."""
    return "\n".join(_suite_lines(results))


def _suite_lines(results: Results) -> Iterator[str]:
    columns = ("table", "image, text, label", "rows", "for training", "classes", "imbalance", "labels depend on")
    yield f"| {' | '.join(columns)} |"
    yield "| --- " * len(columns) + "|"
    for one in results.summary:
        counts = f"{one['rows']:,} | {one['train_rows']:,} | {one['classes']} | {one['imbalance']:g}"
        yield f"| {one['name']} | {one['content']} | {counts} | {one['depends_on']} |"


def spread_table(results: Results) -> str:
    """Return Markdown: the standard deviation of stacking over seeds, on tables with few rows."""
    rows = [
        (one["name"] + ("" if metric == "accuracy" else f", {metric.replace('f1_', 'F1 ')}"), found["spread"])
        for one in results.summary
        for metric, found in one["metrics"].items()
        if "spread" in found
    ]
    greatest = {c: max((spread[c] for _, spread in rows), default=0.0) for c in CONDITIONS}
    lines = [f"| table | {' | '.join(condition.replace('_', ' ') for condition in CONDITIONS)} |", "| --- " * 4 + "|"]
    for name, spread in [*rows, ("greatest", greatest)]:
        lines.append(f"| {name} | {' | '.join(f'{spread[condition]:.3f}' for condition in CONDITIONS)} |")
    return "\n".join(lines)


def results_table(results: Results, only: str | None = None) -> str:
    """Return Markdown: the constant answer, logistic regression, and the differences of the other models to it.

    Args:
        results: Results of the study.
        only: The one model to compare with logistic regression, on the tables that it was trained on; None for all.
    """
    if only:
        trained = [one for one in results.summary if one["splits"][only]]
        results = replace(results, summary=trained)
    return "\n".join(_result_lines(results, [only] if only else OTHERS))


def _result_lines(results: Results, among: Sequence[str]) -> Iterator[str]:
    shown = [condition.replace("_", " ") for condition in CONDITIONS]
    models = [model for model in among if any(_differences(results, model, CONDITIONS[0]))]
    heads = [f"{name}, {condition}" for name in (FLOOR, *(f"{m} minus {FLOOR}" for m in models)) for condition in shown]
    yield f"| table | constant | {' | '.join(heads)} |"
    yield "| --- " * (len(heads) + 2) + "|"
    for one in results.summary:
        for metric, found in one["metrics"].items():
            name = one["name"] + ("" if metric == "accuracy" else f", {metric.replace('f1_', 'F1 ')}")
            cells = [f"{found[FLOOR][condition]:.3f}" for condition in CONDITIONS]
            cells += [_cell(*found[m][c]) if m in found else "" for m in models for c in CONDITIONS]
            yield f"| {name} | {found['constant']:.3f} | {' | '.join(cells)} |"
    counts = [_clear(_differences(results, model, condition)) for model in models for condition in CONDITIONS]
    yield f"| rows better, worse | | {'| ' * len(CONDITIONS)}{' | '.join(counts)} |"
    means = [f"{_mean(results, FLOOR, condition):.3f}" for condition in CONDITIONS]
    means += [f"{_mean(results, model, condition):+.3f}" for model in models for condition in CONDITIONS]
    yield f"| mean over the tables | | {' | '.join(means)} |"


def _cell(difference: float, low: float, high: float) -> str:
    cell = f"{difference:+.3f} ({low:+.3f} to {high:+.3f})"
    return f"**{cell}**" if low > 0 else f"*{cell}*" if high < 0 else cell


def _differences(results: Results, model: str, condition: str) -> list[list[float]]:
    every = [found for one in results.summary for found in one["metrics"].values()]
    return [found[model][condition] for found in every if model in found]


def _clear(differences: Sequence[Sequence[float]]) -> str:
    """Return how many intervals lie above 0 and how many below."""
    return f"{sum(low > 0 for _, low, _ in differences)}, {sum(high < 0 for *_, high in differences)}"


def _mean(results: Results, model: str, condition: str) -> float:
    """Return the mean over the tables of a value or difference; several metrics of a table are averaged first."""
    by_table = [
        mean(float(np.atleast_1d(found[model][condition])[0]) for found in one["metrics"].values())
        for one in results.summary
        if all(model in found for found in one["metrics"].values())
    ]
    return mean(by_table)
