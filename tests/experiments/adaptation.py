"""How much better than with a frozen text encoder is a model with low-rank adaptation (LoRA), and what does it cost?

Emoji in Noto's style: the name alone, by a network on the pooled embedding of MiniLM, and the name with the picture, by
Experts on MobileNetV2, which stays frozen. All models are trained for the same steps.

    make adaptation DATA=emoji WEIGHTS=mobilenetv2_100.safetensors
"""

from __future__ import annotations

import argparse
from functools import partial
from itertools import product
from pathlib import Path
from statistics import mean
from typing import NamedTuple

from experiments import emoji
from experiments.records import RUNS, Record, Results, run_jobs
from experiments.training import CONDITIONS, by_condition, evaluate, overlays, train

STYLE, STEPS = "noto", 600
RECIPE = [
    "--data.batch_size=64",
    "--model.optimizer.init_args.weight_decay=0.05",
    "--model.optimizer.init_args.lr=1e-3",
]
RECIPE += [f"--trainer.max_steps={STEPS}", "--trainer.max_epochs=-1"]
MODELS = {
    "name alone": [*overlays("baselines/text_only"), "--data.source.image_column=null"],
    "name and picture": overlays("fusion/experts"),
}
ADAPTED = "--text_encoder.lora={rank: 8, alpha: 16, targets: [query, value], first_layer: 5}"  # of six layers


class Job(NamedTuple):
    """Settings of one run: its name in `MODELS`, whether the text encoder is adapted, and the seed of the training."""

    model: str
    adapted: bool
    seed: int


def measure(root: Path, source: emoji.Source, job: Job) -> Record:
    """Return the accuracy by condition."""
    flags = [*source.flags(*source.splits(STYLE)), *MODELS[job.model], *RECIPE, *[ADAPTED] * job.adapted]
    return by_condition(evaluate(train(root, "-".join(map(str, job)), job.seed, *flags)), "accuracy")


def table(results: Results) -> str:
    """Return Markdown: mean accuracy over the seeds by condition, and seconds of a run."""
    lines = [f"| | {' | '.join(CONDITIONS)} | seconds |", "| --- " * (2 + len(CONDITIONS)) + "|"]
    for model, adapted in product(results.values("model"), results.values("adapted")):
        jobs = [job for job in results.jobs if (job["model"], job["adapted"]) == (model, adapted)]
        found = [[job["metrics"][name] for job in jobs if name in job["metrics"]] for name in CONDITIONS]
        cells = [f"{mean(values):.3f}" if values else "-" for values in found]
        name = f"{model}, {'adapted' if adapted else 'frozen'} text encoder"
        lines.append(f"| {name} | {' | '.join(cells)} | {mean(job['seconds'] for job in jobs):.0f} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    emoji.add_arguments(parser)
    parser.add_argument("--root", type=Path, default=RUNS / "adaptation", help="folder of runs and results.json")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--processes", type=int, default=1, help="jobs at a time, one core each")
    given = parser.parse_args()
    root, source = given.root.resolve(), emoji.Source.of(given)
    jobs = [Job(*settings) for settings in product(given.models, (False, True), range(given.seeds))]
    results = run_jobs(root, jobs, partial(measure, root, source), given.processes, source.versions())
    results.write(root / "results.json")
    print(table(results))


if __name__ == "__main__":
    main()
