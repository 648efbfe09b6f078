"""What does each part of MoLT contribute, with few and with many samples?

On generated scenes a repeat has other samples; on emoji it is another fold. All runs take about the same number of
steps, however few the samples.

    make ablations DATA=emoji WEIGHTS=mobilenetv2_100.safetensors
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from functools import partial
from itertools import product
from pathlib import Path
from statistics import mean, stdev
from typing import NamedTuple

from experiments import bayes, emoji
from experiments.records import RUNS, Record, Results, run_jobs
from experiments.training import CONDITIONS, by_condition, evaluate, overlays, train

PUBLISHED = "as published"
LAST_LAYER = ["--image_encoder.layers=1", "--text_encoder.layers=1"]
VARIANTS = {
    PUBLISHED: [],
    "no L_CCA": overlays("ablations/no_correlation"),
    "L_CCA ten times as heavy": ["--model.beta=1"],
    "last layer alone": LAST_LAYER,
    "no null tokens": overlays("ablations/no_null_tokens"),
    "no bilinear pooling": overlays("ablations/no_bilinear_pooling"),
    "no fusion stage": overlays("ablations/no_fusion_stage"),
    "no modality dropout": overlays("ablations/no_modality_dropout"),
}
MORE_VARIANTS = {  # trained where --variants asks for them
    "L_CCA ten times as heavy, 2 dimensions": ["--model.beta=1", "--model.fusion.cca_dim=2"],
    "L_CCA ten times as heavy, 48 dimensions": ["--model.beta=1", "--model.fusion.cca_dim=48"],
    "L_CCA ten times as heavy, momentum 0.9": ["--model.beta=1", "--model.correlation_momentum=0.9"],
    "last layer alone, no L_CCA": [*LAST_LAYER, *overlays("ablations/no_correlation")],
    "every pattern": [*overlays("ablations/no_modality_dropout"), "--model.every_pattern=true"],
}
SCENES = {"easy, 500": ("easy", 500), "hard, 500": ("hard", 500), "hard, 5,000": ("hard", 5000)}
EMOJI: dict[str, tuple[int | None, list[str]]] = {  # training samples a class, None for all, and flags
    "emoji, 5 a class": (5, []),
    "emoji, 25 a class": (25, []),
    "emoji, all": (None, []),
    "emoji, 70 % incomplete": (None, ["--data.missing.train={rate: 0.7, type: both, ratio: 0.5}"]),
}
EMOJI_STEPS, EMOJI_TRAIN, EMOJI_CLASSES = 220, 1300, 8


class Job(NamedTuple):
    """Settings of one run: a variant of MoLT, data in `SCENES` or `EMOJI`, and a repeat."""

    variant: str
    data: str
    repeat: int


def measure(root: Path, source: emoji.Source, job: Job) -> Record:
    """Return the accuracy by condition."""
    data = scenes_flags(job) if job.data in SCENES else emoji_flags(root, source, job)
    own = {**VARIANTS, **MORE_VARIANTS}[job.variant]
    folder = train(root, "-".join(map(str, job)), job.repeat, *data, *own)
    accuracy = by_condition(evaluate(folder), "accuracy")
    return {condition: accuracy[condition] for condition in CONDITIONS}


def scenes_flags(job: Job) -> list[str]:
    scenes, samples = SCENES[job.data]
    return [*overlays("demo"), *bayes.flags(bayes.Job("MoLT", scenes, 0.6, samples, 24, job.repeat))]


def emoji_flags(root: Path, source: emoji.Source, job: Job) -> list[str]:
    shots, own = EMOJI[job.data]
    samples = shots * EMOJI_CLASSES if shots else EMOJI_TRAIN
    batch = min(128, samples)
    return [
        *source.flags(*emoji.fold_tables(root, "noto", job.repeat)),
        *own,
        *([f"--data.splits.shots={shots}"] if shots else []),
        f"--data.batch_size={batch}",
        f"--trainer.max_epochs={EMOJI_STEPS * batch // samples}",
    ]


def table(results: Results) -> str:
    """Return Markdown: accuracies as published, then differences; bold where beyond twice the standard error."""
    return "\n".join(_lines(results))


def _lines(results: Results) -> Iterator[str]:
    data = results.values("data")
    yield f"| | {' | '.join(data)} |"
    yield "| --- " * (1 + len(data)) + "|"
    for variant in results.values("variant"):
        cells = []
        for name in data:
            own, base = (results.metrics(variant=v, data=name) for v in (variant, PUBLISHED))
            if variant == PUBLISHED:
                cells.append(" ".join(f"{mean(one[c] for one in base):.3f}" for c in CONDITIONS))
            else:
                pairs = list(zip(own, base, strict=True))
                cells.append(" ".join(_difference([a[c] - b[c] for a, b in pairs]) for c in CONDITIONS))
        yield f"| {variant} | {' | '.join(cells)} |"


def _difference(repeats: list[float]) -> str:
    shown = f"{mean(repeats):+.3f}"
    clear = len(repeats) > 1 and abs(mean(repeats)) > 2 * stdev(repeats) / len(repeats) ** 0.5
    return f"**{shown}**" if clear else shown


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    emoji.add_arguments(parser)
    parser.add_argument("--root", type=Path, default=RUNS / "ablations", help="folder of runs and results.json")
    parser.add_argument("--data", nargs="+", choices={**SCENES, **EMOJI}, default=list(EMOJI)[:3])
    parser.add_argument("--variants", nargs="+", choices={**VARIANTS, **MORE_VARIANTS}, default=list(VARIANTS))
    parser.add_argument("--repeats", type=int, default=3, choices=range(1, 6))
    parser.add_argument("--processes", type=int, default=os.cpu_count(), help="jobs at a time, one core each")
    given = parser.parse_args()
    root, source = given.root.resolve(), emoji.Source.of(given)
    emoji.write_folds(source, root)
    variants = dict.fromkeys([PUBLISHED, *given.variants])
    jobs = [Job(v, data, repeat) for repeat, data, v in product(range(given.repeats), given.data, variants)]
    results = run_jobs(root, jobs, partial(measure, root, source), given.processes, source.versions())
    results.write(root / "results.json")
    print(table(results))


if __name__ == "__main__":
    main()
