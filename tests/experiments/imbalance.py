"""Which setting helps with imbalanced classes, and what does it cost on frequent classes and in calibration?

The training classes have exponentially falling sizes, from 100 to 1 relative to the smallest; a seed also decides which
classes are rare. `demo` trains on generated scenes, `emoji` on one drawing style. Both are tested on samples with the
sizes of training (`long-tailed`) and on others (`balanced`: equally frequent scenes, or all test emoji). The last
checkpoint counts.

    make imbalance-demo
    make imbalance-emoji DATA=emoji WEIGHTS=mobilenetv2_100.safetensors
"""

from __future__ import annotations

import argparse
import json
import os
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import product
from pathlib import Path
from random import Random
from statistics import mean, stdev
from typing import Any, NamedTuple

from experiments import emoji
from experiments.records import RUNS, Record, Results, run_jobs
from experiments.training import CONDITIONS, evaluate, overlays, train

from robusttune.data.sources import World

RATIO = 100
VARIANTS = {  # the overlays of each
    "none": (),
    "balanced sampling": ("imbalance/balanced_sampling",),
    "square-root sampling": ("imbalance/square_root_sampling",),
    "inverse weights": ("imbalance/inverse_weights",),
    "effective weights": ("imbalance/effective_weights",),
    "focal loss": ("imbalance/focal_loss",),
    "logit adjustment": ("imbalance/logit_adjustment",),
    "post-hoc adjustment": ("imbalance/post_hoc",),
}
METRICS = ("accuracy", "balanced_accuracy", "calibration_error", "loss")
COLUMNS = {  # heading, test set and metric of each column
    "accuracy, long-tailed": ("long-tailed", "accuracy"),
    "balanced accuracy": ("balanced", "balanced_accuracy"),
    "recall of the head": ("balanced", "head_recall"),
    "recall of the tail": ("balanced", "tail_recall"),
    "calibration error, long-tailed": ("long-tailed", "calibration_error"),
    "calibration error, balanced": ("balanced", "calibration_error"),
    "loss, balanced": ("balanced", "loss"),
}
LOWER_IS_BETTER = ("calibration_error", "loss")
EMOJI_HEAD = 100  # training emoji of the largest class


class Job(NamedTuple):
    """Settings of one run: its data (`demo` or `emoji`), its name in `VARIANTS`, and its seed."""

    data: str
    variant: str
    seed: int


class Data(NamedTuple):
    """The data of one seed.

    Attributes:
        flags: Flags of the training data.
        tests: Flags of each test set, by its name.
        order: Class names, the largest class first.
    """

    flags: list[str]
    tests: dict[str, list[str]]
    order: list[str]


def measure(root: Path, source: emoji.Source | None, epochs: int, job: Job) -> Record:
    """Return the metrics and their intervals, by test set and condition."""
    data = scenes(job.seed) if source is None else emoji_tables(root, source, job.seed)
    length = [f"--trainer.max_epochs={epochs}"]
    own = overlays(*VARIANTS[job.variant])
    folder = train(root, f"{job.data}-{job.variant.replace(' ', '_')}-{job.seed}", job.seed, *data.flags, *own, *length)
    return {name: metrics(evaluate(folder, *flags), data.order) for name, flags in data.tests.items()}


def metrics(report: Path, order: Sequence[str]) -> Record:
    """Return the metrics by condition, and the intervals of those that have one.

    Args:
        report: Folder of the report.
        order: Class names, the largest class first. A third of them are the head, and a third the tail.
    """
    found, third = json.loads((report / "test.json").read_text()), len(order) // 3
    record: Record = {}
    for condition in CONDITIONS:
        recall, values = found["class_recall"][condition], found["conditions"][condition]
        parts = {"head": order[:third], "tail": order[-third:]}
        record[condition] = {
            **{name: round(values[name], 6) for name in METRICS},
            **{f"{part}_recall": round(_mean_recall(recall, names), 6) for part, names in parts.items()},
            "intervals": {
                name: [round(bound, 6) for bound in bounds]
                for name, bounds in found["intervals"][condition].items()
                if name in METRICS
            },
        }
    return record


def _mean_recall(recall: dict[str, float | None], names: Sequence[str]) -> float:
    known = [value for name in names if (value := recall[name]) is not None]
    return mean(known) if known else 0.0


def sizes(largest: float, classes: int) -> list[float]:
    """Return exponentially falling sizes, from the largest to a hundredth of it.

    Example:
        >>> sizes(100, 3)
        [100.0, 10.0, 1.0]
    """
    return [largest * RATIO ** (-rank / (classes - 1)) for rank in range(classes)]


def scenes(seed: int) -> Data:
    """Return generated scenes, whose classes have the order of the seed."""
    names = World().class_names
    order = Random(seed).sample(names, len(names))
    by_name = dict(zip(order, sizes(1.0, len(names)), strict=True))
    total = sum(by_name.values())
    prior = [by_name[name] / total for name in names]
    own = [f"--data.source.world.prior={prior}", f"--data.source.seed={seed}"]
    return Data([*overlays("demo"), *own], {"long-tailed": [], "balanced": ["--data.source.world.prior=null"]}, order)


def emoji_tables(root: Path, source: emoji.Source, seed: int) -> Data:
    """Write tables of the Noto style with long-tailed classes, and return the data."""
    train_rows, test_rows = (_rows(source.split("noto", split)) for split in ("train", "test"))
    counts = Counter(row["label"] for row in train_rows)
    names = sorted(counts)
    # A class can be the largest only if it has enough emoji, so the order is random among those that do.
    order: list[str] = []
    for size in sizes(EMOJI_HEAD, len(names)):
        left = [name for name in names if name not in order]
        enough = [name for name in left if counts[name] >= size]
        order.append(Random(f"{seed}/{size}").choice(enough or left))
    folder = root / f"tables-{seed}"
    paths = {split: folder / f"{split}.jsonl" for split in ("train", "test")}
    emoji.write_rows(paths["train"], long_tailed(train_rows, order, EMOJI_HEAD, seed))
    share = len(test_rows) / len(train_rows)
    emoji.write_rows(paths["test"], long_tailed(test_rows, order, EMOJI_HEAD * share, seed))
    flags = source.flags(paths["train"], source.split("noto", "val"), source.split("noto", "test"))
    return Data(flags, {"long-tailed": [f"--data.source.test={paths['test']}"], "balanced": []}, order)


def _rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def long_tailed(rows: list[dict[str, Any]], order: Sequence[str], largest: float, seed: int) -> list[dict[str, Any]]:
    """Draw rows so that the classes have the sizes of `sizes`, at least one row each.

    Args:
        rows: Rows with a `label`.
        order: Class names, the largest class first.
        largest: Size of the largest class.
        seed: Seed of the draw.
    """
    by_label = defaultdict(list)
    for row in rows:
        by_label[row["label"]].append(row)
    chosen = []
    for name, size in zip(order, sizes(largest, len(order)), strict=True):
        available = by_label[name]
        chosen += Random(f"{seed}/{name}").sample(available, min(len(available), max(1, round(size))))
    return chosen


def table(results: Results, conditions: Sequence[str] = CONDITIONS) -> str:
    """Return Markdown: rows are variants; mean and standard deviation over the seeds; the best of a column is bold.

    Each value is the mean over the conditions.
    """
    return "\n".join(_lines(results, conditions))


def _lines(results: Results, conditions: Sequence[str]) -> Iterator[str]:
    rows = {
        variant: {
            heading: [
                mean(record[test_set][condition][metric] for condition in conditions)
                for record in results.metrics(variant=variant)
            ]
            for heading, (test_set, metric) in COLUMNS.items()
        }
        for variant in results.values("variant")
    }
    best = {
        heading: (min if metric in LOWER_IS_BETTER else max)(round(mean(row[heading]), 3) for row in rows.values())
        for heading, (_, metric) in COLUMNS.items()
    }
    yield f"| | {' | '.join(COLUMNS)} |"
    yield f"| --- {'| --- ' * len(COLUMNS)}|"
    for variant, row in rows.items():
        cells = []
        for heading, seeds in row.items():
            cell = f"{mean(seeds):.3f}" + (f" ± {stdev(seeds):.3f}" if len(seeds) > 1 else "")
            cells.append(f"**{cell}**" if round(mean(seeds), 3) == best[heading] else cell)
        yield f"| {variant} | {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    kinds: Any = parser.add_subparsers(dest="data", required=True)
    for name in ("demo", "emoji"):
        kind = kinds.add_parser(name)
        if name == "emoji":
            emoji.add_arguments(kind)
        kind.add_argument("--root", type=Path, default=RUNS / f"imbalance_{name}", help="folder of runs and results")
        kind.add_argument("--seeds", type=int, default=3)
        kind.add_argument("--epochs", type=int, default=20 if name == "demo" else 60)
        kind.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
        kind.add_argument("--processes", type=int, default=os.cpu_count(), help="jobs at a time, one core each")
    given = parser.parse_args()
    root = given.root.resolve()
    source = emoji.Source.of(given) if given.data == "emoji" else None
    jobs = [Job(given.data, variant, seed) for seed, variant in product(range(given.seeds), given.variants)]
    versions = source.versions() if source else {}
    results = run_jobs(root, jobs, partial(measure, root, source, given.epochs), given.processes, versions)
    results.write(root / "results.json")
    for condition in CONDITIONS:
        print(f"{condition}\n{table(results, [condition])}")
    print(f"mean\n{table(results)}")


if __name__ == "__main__":
    main()
