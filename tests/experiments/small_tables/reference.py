"""How far does logistic regression get on the suite, with complete samples, without images and without texts?

One regression for each of the three cases, on standardised pooled features, with the regularisation that has the best
cross-validated log-loss on training samples. Thresholds of multi-label tables are chosen on held-out predictions.
The difference between the cases says which modality a table's labels depend on.

    make small-tables-reference
"""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Iterator
from functools import partial
from itertools import product
from pathlib import Path
from statistics import mean
from typing import NamedTuple

import numpy as np
from experiments.records import RUNS, Record, Results, run_jobs
from experiments.small_tables.features import TableFeatures, descriptions, features, split_places
from experiments.small_tables.packages import PINNED
from experiments.small_tables.regression import FOLDS, cross_validated
from experiments.small_tables.scores import METRICS, accuracy, best_threshold, constant
from experiments.small_tables.splits import SPLITS
from experiments.training import CONDITIONS
from numpy.typing import NDArray

SIDES = {"complete": ("image", "text"), "no_image": ("text",), "no_text": ("image",)}
CLEAR = 0.03  # a smaller difference between two cases is called none


class Job(NamedTuple):
    """Settings of one run: a table and one of its splits."""

    table: str
    split: int


def measure(root: Path, suite: Path, job: Job) -> Record:
    """Return the metrics by condition and those of a constant answer, and keep the probabilities in a file."""
    described = next(one for one in descriptions(suite) if one["name"] == job.table)
    data = features(suite, described)
    train, test = split_places(suite, job.table, job.split, data.ids)
    seen, unseen = data.label[train], data.label[test]
    answers = predictions(data, train, test, described["classes"])
    (root / "predictions").mkdir(parents=True, exist_ok=True)
    complete, no_image, no_text = (answers[condition][0] for condition in CONDITIONS)
    path = root / f"predictions/{job.table}-{job.split}.npz"
    np.savez(path, ids=data.ids[test], label=unseen, complete=complete, no_image=no_image, no_text=no_text)
    found: Record = {condition: scores(*answer, unseen, seen) for condition, answer in answers.items()}
    return {**found, "constant": rounded(constant(seen, unseen))}


def predictions(
    data: TableFeatures, train: NDArray[np.int64], test: NDArray[np.int64], classes: int
) -> dict[str, tuple[NDArray[np.floating], NDArray[np.floating]]]:
    """Return probabilities of test samples, and held-out ones of training samples, by condition.

    A sample is answered by the regression for the modalities that it has under the condition, which is fitted on all
    training samples that have them. One with neither gets the frequencies of the classes.
    """
    label = data.label[train]
    multilabel = label.ndim == 2
    frequencies = label.mean(0) if multilabel else np.bincount(label, minlength=classes) / len(label)
    found = {c: (np.tile(frequencies, (len(test), 1)), np.tile(frequencies, (len(train), 1))) for c in CONDITIONS}
    folds = stratified_folds(label)
    for pattern in SIDES.values():
        rows = has(data, pattern)[train]
        fitted = cross_validated(inputs(data, pattern)[train][rows], label[rows], classes, folds[rows])
        tested = fitted.probabilities(inputs(data, pattern)[test], multilabel)
        for condition, sides in SIDES.items():
            of_test, of_train = found[condition]
            answered = pattern_under(data, sides, pattern)
            of_test[answered[test]] = tested[answered[test]]
            of_train[answered[train]] = fitted.held_out[answered[train][rows]]
    return found


def inputs(data: TableFeatures, sides: tuple[str, ...]) -> NDArray[np.float32]:
    """Return the features of modalities, (N, d)."""
    return np.concatenate([getattr(data, side) for side in sides], 1)


def has(data: TableFeatures, sides: tuple[str, ...]) -> NDArray[np.bool_]:
    """Return which samples have all of these modalities, shape (N,)."""
    return data.has_text if "text" in sides else np.ones(len(data.ids), dtype=bool)


def pattern_under(data: TableFeatures, sides: tuple[str, ...], pattern: tuple[str, ...]) -> NDArray[np.bool_]:
    """Return which samples have exactly the modalities `pattern` where only `sides` are shown, shape (N,)."""
    shown = np.stack([has(data, (side,)) & (side in sides) for side in ("image", "text")], 1)
    found: NDArray[np.bool_] = (shown == [side in pattern for side in ("image", "text")]).all(1)
    return found


def stratified_folds(label: NDArray[np.int64]) -> NDArray[np.int64]:
    """Deal samples to folds class by class; those of several classes by their rarest one."""
    if label.ndim == 2:
        label = np.where(label > 0, label.sum(0), np.inf).argmin(1)
    folds = np.empty(len(label), dtype=np.int64)
    folds[np.argsort(label, kind="stable")] = np.arange(len(label)) % FOLDS
    return folds


def scores(
    probabilities: NDArray[np.floating],
    held_out: NDArray[np.floating],
    label: NDArray[np.int64],
    seen: NDArray[np.int64],
) -> Record:
    """Return the accuracy, or the F1 scores with thresholds from held-out predictions of training samples."""
    if label.ndim == 1:
        return rounded({"accuracy": accuracy(probabilities, label)})
    cut = {name: best_threshold(name, held_out, seen) for name in METRICS}
    return rounded({name: METRICS[name]((probabilities >= cut[name]).astype(int), label) for name in METRICS})


def rounded(values: dict[str, float]) -> Record:
    return {name: round(value, 6) for name, value in values.items()}


def summary(suite: Path, results: Results) -> list[Record]:
    """Return the description of each table with its mean metrics and the modality that its labels depend on."""
    return [{**one, **means(results, one["name"])} for one in descriptions(suite) if results.metrics(table=one["name"])]


def means(results: Results, table: str) -> Record:
    """Return the metric of a table, its mean over the splits by condition, and the dominant modality."""
    found = results.metrics(table=table)
    metric = "accuracy" if "accuracy" in found[0]["constant"] else "f1_macro"
    values = {c: round(mean(one[c][metric] for one in found), 4) for c in (*CONDITIONS, "constant")}
    return {"metric": metric, **values, "dominance": dominance(**{c: values[c] for c in CONDITIONS})}


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


def table(results: Results) -> str:
    """Return Markdown: what the tables are, and the metric by condition."""
    return "\n".join(_lines(results))


def _lines(results: Results) -> Iterator[str]:
    columns = ("table", "image, text, label", "rows", "classes", "imbalance", "metric", "constant")
    yield f"| {' | '.join([*columns, 'complete', 'no image', 'no text', 'labels depend on'])} |"
    yield "| --- " * 11 + "|"
    for one in results.summary:
        values = " | ".join(f"{one[name]:.3f}" for name in ("constant", *CONDITIONS))
        metric = one["metric"].replace("_", " ")
        counts = f"{one['rows']:,} | {one['classes']} | {one['imbalance']:g}"
        yield f"| {one['name']} | {one['content']} | {counts} | {metric} | {values} | {one['dominance']} |"


def versions(suite: Path) -> dict[str, str]:
    """Return hashes of the pinned packages and of all tables."""
    tables = hashlib.sha256()
    for path in sorted(suite.glob("*/*.jsonl")):
        tables.update(path.read_bytes())
    pinned = hashlib.sha256(PINNED.read_bytes()).hexdigest()
    return {"packages.json": f"sha256 {pinned[:12]}", "small tables": f"sha256 {tables.hexdigest()[:12]}"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("suite", type=Path, help="tables that `python -m experiments.small_tables.build` has written")
    parser.add_argument("--root", type=Path, default=RUNS / "small_tables", help="predictions and results.json")
    parser.add_argument("--tables", nargs="+", help="names of tables; all by default")
    parser.add_argument("--processes", type=int, default=1, help="jobs at a time, one core each")
    given = parser.parse_args()
    root, suite = given.root.resolve(), given.suite.resolve()
    found = [one for one in descriptions(suite) if not given.tables or one["name"] in given.tables]
    for described in found:
        features(suite, described)
    jobs = [Job(*settings) for settings in product([one["name"] for one in found], SPLITS)]
    results = run_jobs(root, jobs, partial(measure, root, suite), given.processes, versions(suite))
    results.summary = summary(suite, results)
    results.write(root / "results.json")
    print(table(results))


if __name__ == "__main__":
    main()
