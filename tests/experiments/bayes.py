"""What fraction of the Bayes accuracy do models reach on generated scenes, and with how many samples?

A class is a combination of factors. The redundancy is the fraction of factors that both modalities show; each other
factor shows in one of them alone. In easy scenes the other modality shows a neutral value, in hard ones a random value.
Zero-shot CLIP and MMRL know the class names; the other models learn 24 classes from samples alone.

    make bayes
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from functools import partial
from itertools import product
from pathlib import Path
from statistics import mean
from typing import NamedTuple

from experiments.records import RUNS, Results, run_jobs
from experiments.training import CONDITIONS, by_condition, evaluate, overlays, train

ON_POOLED = "--model.fusion.init_args.layers=false"
ZERO_SHOT, LAYERS = "zero-shot CLIP", "Experts, layers"
MODELS = {
    ZERO_SHOT: overlays("demo_mmrl", "baselines/zero_shot"),
    "MMRL": overlays("demo_mmrl"),
    "Experts": [*overlays("demo", "fusion/experts"), ON_POOLED],
    LAYERS: overlays("demo", "fusion/experts"),
    "MoLT": overlays("demo"),
    "late fusion": overlays("demo", "baselines/late_fusion"),
}
SCENES = {"easy": "neutral", "hard": "distractor"}
STEPS = 600  # of training, at least, however few the samples


class Job(NamedTuple):
    """Settings of one run.

    Attributes:
        model: Name in `MODELS`.
        scenes: `easy` or `hard`.
        redundancy: Fraction of the factors that both modalities show.
        samples: Number of training samples.
        classes: Number of classes.
        seed: Seed of the samples and of the training.
    """

    model: str
    scenes: str
    redundancy: float
    samples: int
    classes: int
    seed: int


def flags(job: Job, largest_batch: int = 128) -> list[str]:
    """Return the flags of the scenes and of the length of the training."""
    alone, batch = (1 - job.redundancy) / 2, min(largest_batch, job.samples)
    epochs = 1 if job.model == ZERO_SHOT else max(3, STEPS * batch // job.samples)
    return [
        f"--data.source.world.hidden={SCENES[job.scenes]}",
        f"--data.source.world.classes={job.classes}",
        f"--data.source.world.visibility={{image: {alone}, text: {alone}, both: {job.redundancy}}}",
        f"--data.source.train={job.samples}",
        f"--data.source.seed={job.seed}",
        f"--data.batch_size={batch}",
        f"--trainer.max_epochs={epochs}",
    ]


def measure(root: Path, job: Job) -> dict[str, float]:
    """Return the fraction of the Bayes accuracy by condition."""
    own = flags(job, 32 if job.model == "MMRL" else 128)
    folder = train(root, "-".join(map(str, job)), job.seed, *MODELS[job.model], *own)
    fractions = by_condition(evaluate(folder), "bayes_fraction")
    return {condition: fractions[condition] for condition in CONDITIONS}


def table(results: Results) -> str:
    """Return Markdown: rows are scenes, columns models; mean over the seeds."""
    return "\n".join(_lines(results))


def _lines(results: Results) -> Iterator[str]:
    models = results.values("model")
    yield f"| scenes, redundancy | samples | {' | '.join(models)} |"
    yield "| --- | --- " + "| --- " * len(models) + "|"
    names = ("scenes", "redundancy", "classes", "samples")
    for scenes, redundancy, classes, samples in dict.fromkeys(tuple(job[n] for n in names) for job in results.jobs):
        cells = []
        for model in models:
            settings = {"scenes": scenes, "redundancy": redundancy, "classes": classes, "samples": samples}
            found = results.metrics(model=model, **settings)
            cells.append(" ".join(f"{mean(one[c] for one in found):.2f}" for c in CONDITIONS) if found else "")
        yield f"| {scenes}, {redundancy} | {samples:,} | {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=RUNS / "bayes", help="folder of runs, cache and results.json")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=[m for m in MODELS if m != LAYERS])
    parser.add_argument("--scenes", nargs="+", choices=SCENES, default=list(SCENES))
    parser.add_argument("--classes", type=int, default=24)
    parser.add_argument("--redundancy", nargs="+", type=float, default=[0.2, 0.6])
    parser.add_argument("--samples", nargs="+", type=int, default=[50, 500, 5000])
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--processes", type=int, default=os.cpu_count(), help="jobs at a time, one core each")
    given = parser.parse_args()
    scenes = product(given.scenes, given.redundancy, given.samples, range(given.seeds))
    jobs = [
        Job(model, scene, redundancy, samples, given.classes, seed)
        for (scene, redundancy, samples, seed), model in product(scenes, given.models)
        if model != ZERO_SHOT or samples == given.samples[0]  # it learns nothing from samples
    ]
    root = given.root.resolve()
    results = run_jobs(root, jobs, partial(measure, root), given.processes)
    results.write(root / "results.json")
    print(table(results))


if __name__ == "__main__":
    main()
