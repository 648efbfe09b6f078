"""How much better than logistic regression are stacking, Experts and MoLT on the suite, and in which condition?

Each model is trained on each split of each table, and predicts the test rows with both modalities, without images and
without texts. The package's own networks run in this process, on features in memory. Linear and stacking come first.
A fit of MoLT takes minutes, so it is trained on a few tables. On tables with few rows, stacking is fitted with further
seeds.

    make small-tables-models
"""

from __future__ import annotations

import argparse
import hashlib
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from experiments.records import RUNS, Record, run_jobs
from experiments.small_tables.features import descriptions, features, split_places
from experiments.small_tables.networks import SHOWN, fit
from experiments.small_tables.packages import PINNED
from experiments.small_tables.scores import constant, metrics_of, score
from experiments.small_tables.splits import SPLITS
from experiments.small_tables.summary import predictions_file, results_table, summary

MOLT_TABLES = ("continents", "health", "icon_styles", "scenes_weak")
FEW_ROWS, SEEDS = 500, (11, 12)  # tables with fewer training rows, and their further seeds


class Job(NamedTuple):
    """Settings of one run: a table, a model, a split, and the seed of initial weights, batches and folds."""

    table: str
    model: str
    split: int
    seed: int


def measure(root: Path, suite: Path, job: Job) -> Record:
    """Return the metrics by condition and those of a constant answer, and keep the predictions in a file."""
    described = next(one for one in descriptions(suite) if one["name"] == job.table)
    data = features(suite, described)
    train, test = split_places(suite, job.table, job.split, data.ids)
    fitted = fit(job.model, data.samples(train), data.widths, described["classes"], job.seed)
    tested, label = data.samples(test), data.label[test]
    predicted = {condition: fitted.predict(tested, view).numpy() for condition, view in SHOWN.items()}
    path = predictions_file(root, *job)
    path.parent.mkdir(parents=True, exist_ok=True)
    kept: dict[str, Any] = {"ids": data.ids[test], "label": label, **predicted}
    np.savez_compressed(path, **kept)
    values = {
        condition: {metric: score(metric, each, label) for metric in metrics_of(label)}
        for condition, each in predicted.items()
    }
    values["constant"] = constant(data.label[train], label)
    return {name: {metric: round(value, 6) for metric, value in found.items()} for name, found in values.items()}


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
    parser.add_argument("--experts-splits", type=int, default=len(SPLITS), help="how many splits Experts train on")
    parser.add_argument("--molt-tables", nargs="*", default=MOLT_TABLES, help="names of the tables of MoLT")
    parser.add_argument("--processes", type=int, default=1, help="jobs at a time, one core each")
    given = parser.parse_args()
    root, suite = given.root.resolve(), given.suite.resolve()
    found = [one for one in descriptions(suite) if not given.tables or one["name"] in given.tables]
    for described in found:
        features(suite, described)
    names = [one["name"] for one in found]
    jobs = [Job(name, model, split, split) for name, split, model in product(names, SPLITS, ("linear", "stacking"))]
    few = [one["name"] for one in found if one["train_rows"] < FEW_ROWS]
    jobs += [Job(name, "stacking", 1, seed) for name, seed in product(few, SEEDS)]
    jobs += [Job(name, "Experts", split, split) for split, name in product(SPLITS[: given.experts_splits], names)]
    jobs += [Job(name, "MoLT", 1, 1) for name in names if name in given.molt_tables]
    results = run_jobs(root, jobs, partial(measure, root, suite), given.processes, versions(suite))
    results.summary = summary(root, found, results)
    results.write(root / "results.json")
    print(results_table(results))


if __name__ == "__main__":
    main()
