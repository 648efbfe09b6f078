"""How much accuracy do the fusion models and the baselines keep when a modality is missing or noisy?

`demo` trains on generated scenes; each seed has other samples. `emoji` trains on one drawing style and tests on it and
on a style that training has not seen; its validation split is too small to choose a checkpoint, so the last one counts.

    make robustness-demo
    make robustness-emoji DATA=emoji WEIGHTS=mobilenetv2_100.safetensors
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from functools import partial
from itertools import product
from pathlib import Path
from statistics import mean, stdev
from typing import Any, NamedTuple

from experiments import emoji
from experiments.records import RUNS, Record, Results, run_jobs
from experiments.training import by_condition, evaluate, overlays, train

NO_DROPOUT = "ablations/no_modality_dropout"
MODELS = {  # the overlays of each
    "MoLT": (),
    "MoLT, no dropout": (NO_DROPOUT,),
    "Experts": ("fusion/experts",),
    "concatenation": ("baselines/concatenation",),
    "concatenation, no dropout": ("baselines/concatenation", NO_DROPOUT),
    "late fusion": ("baselines/late_fusion",),
    "cross-attention": ("baselines/cross_attention",),
    "image only": ("baselines/image_only",),
    "text only": ("baselines/text_only",),
}
OWN_FLAGS = {("emoji", "Experts"): emoji.EXPERTS_STEPS, ("demo", "Experts"): ["--model.fusion.init_args.layers=false"]}
COLUMNS = {  # conditions that a column is the mean of, by how their names begin
    "complete": "complete",
    "no image": "no_image",
    "no text": "no_text",
    "noisy images": "noisy_image",
    "noisy texts": "noisy_text",
    "half missing": "missing_both_50",
}
CALIBRATION = "calibration error"


class Job(NamedTuple):
    """Settings of one run: its data (`demo` or `emoji`), its name in `MODELS`, and its seed."""

    data: str
    model: str
    seed: int


def measure(root: Path, source: emoji.Source | None, job: Job) -> Record:
    """Return accuracies by condition, and the mean calibration error, by test set."""
    seeds = [f"--data.source.seed={job.seed}"] if source is None else []
    data = [*overlays("demo"), *seeds] if source is None else source.flags(*source.splits("noto"))
    own = [*overlays(*MODELS[job.model]), *OWN_FLAGS.get((job.data, job.model), [])]
    folder = train(root, "-".join(map(str, job)), job.seed, *data, *own, validate=True)
    standard = overlays("conditions/standard")
    if source is None:
        return {"scenes": _metrics(evaluate(folder, *standard, checkpoint="best"))}
    tests = {style: f"--data.source.test={source.split(style, 'test')}" for style in emoji.STYLES}
    return {style: _metrics(evaluate(folder, *standard, flag)) for style, flag in tests.items()}


def _metrics(report: Path) -> Record:
    accuracy, calibration = by_condition(report, "accuracy"), by_condition(report, "calibration_error")
    return {"accuracy": accuracy, "calibration_error": calibration["mean"]}


def table(results: Results, test_set: str) -> str:
    """Return Markdown: rows are models, columns means over conditions; mean and standard deviation over the seeds."""
    return "\n".join(_lines({m: _rows(results, test_set, m) for m in results.values("model")}))


def _rows(results: Results, test_set: str, model: str) -> list[dict[str, float]]:
    """Return the row of each seed."""
    return [_row(metrics[test_set]) for metrics in results.metrics(model=model)]


def _row(found: Record) -> dict[str, float]:
    row = {
        name: mean(value for condition, value in found["accuracy"].items() if condition.startswith(start))
        for name, start in COLUMNS.items()
    }
    return row | {CALIBRATION: found["calibration_error"]}


def _lines(rows: dict[str, list[dict[str, float]]]) -> Iterator[str]:
    columns = [*COLUMNS, CALIBRATION]
    means = {model: {c: mean(seed[c] for seed in seeds) for c in columns} for model, seeds in rows.items()}
    best = {c: (min if c == CALIBRATION else max)(row[c] for row in means.values()) for c in columns}
    yield f"| | {' | '.join(columns)} |"
    yield f"| --- {'| --- ' * len(columns)}|"
    for model, seeds in rows.items():
        cells = []
        for c in columns:
            spread = f" ± {stdev(seed[c] for seed in seeds):.3f}" if len(seeds) > 1 else ""
            cell = f"{means[model][c]:.3f}{spread}"
            cells.append(f"**{cell}**" if round(means[model][c], 3) == round(best[c], 3) else cell)
        yield f"| {model} | {' | '.join(cells)} |"


def curves(results: Results, test_set: str) -> dict[str, dict[str, dict[int, float]]]:
    """Return the accuracy by model, by what is missing (`image`, `text`, `both`) and by the missing rate in percent."""
    found: dict[str, dict[str, dict[int, float]]] = {}
    for model in results.values("model"):
        seeds = [metrics[test_set]["accuracy"] for metrics in results.metrics(model=model)]
        accuracy = {condition: mean(seed[condition] for seed in seeds) for condition in seeds[0]}
        of_model = found.setdefault(model, {})
        for kind in ("image", "text", "both"):
            start = f"missing_{kind}_"
            rates = {int(c.removeprefix(start)): value for c, value in accuracy.items() if c.startswith(start)}
            all_missing = {100: accuracy[f"no_{kind}"]} if kind != "both" else {}
            of_model[kind] = {0: accuracy["complete"], **rates, **all_missing}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    kinds: Any = parser.add_subparsers(dest="data", required=True)
    for name in ("demo", "emoji"):
        kind = kinds.add_parser(name)
        if name == "emoji":
            emoji.add_arguments(kind)
        kind.add_argument("--root", type=Path, default=RUNS / f"robustness_{name}", help="folder of runs and results")
        kind.add_argument("--seeds", type=int, default=3)
        kind.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
        kind.add_argument("--processes", type=int, default=os.cpu_count(), help="jobs at a time, one core each")
    given = parser.parse_args()
    root = given.root.resolve()
    source = emoji.Source.of(given) if given.data == "emoji" else None
    jobs = [Job(given.data, model, seed) for seed, model in product(range(given.seeds), given.models)]
    versions = source.versions() if source else {}
    results = run_jobs(root, jobs, partial(measure, root, source), given.processes, versions)
    results.write(root / "results.json")
    for test_set in results.jobs[0]["metrics"]:
        print(f"{test_set}\n{table(results, test_set)}")


if __name__ == "__main__":
    main()
