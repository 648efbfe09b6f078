"""What each part of MoLT brings, by data and number of samples: what changes without it, on the same samples.

On generated scenes, easy and hard, whose repeats are other samples; on emoji, whose repeats are folds. All train for as
many steps on few samples as on many. What is done is kept in the root folder.

`make ablations DATA=folder WEIGHTS=mobilenetv2_100.safetensors [ARGS="--repeats 1 --only 'no L_CCA'"]`
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from functools import partial
from itertools import product
from pathlib import Path
from statistics import mean, stdev
from time import perf_counter
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.bayes import CONDITIONS, HIDDEN, Scenes
from benchmarks.runs import CONFIGS, by_condition, in_processes, kept, tested, trained
from benchmarks.specialists import emoji, write_folds

PUBLISHED = "as published"
LAST = ["--image_encoder.layers=1", "--text_encoder.layers=1"]
VARIANTS: dict[str, list[str]] = {
    PUBLISHED: [],
    "no L_CCA": ["--config={configs}/ablations/no_correlation.yaml"],
    "L_CCA x 10": ["--model.beta=1"],
    "L_CCA x 10, 2 dimensions": ["--model.beta=1", "--model.fusion.cca_dim=2"],
    "L_CCA x 10, 48 dimensions": ["--model.beta=1", "--model.fusion.cca_dim=48"],
    "L_CCA x 10, momentum 0.9": ["--model.beta=1", "--model.correlation_momentum=0.9"],
    "last layer alone": LAST,
    "last layer alone, no L_CCA": [*LAST, "--config={configs}/ablations/no_correlation.yaml"],
    "no null tokens": ["--config={configs}/ablations/no_null_tokens.yaml"],
    "no bilinear pooling": ["--config={configs}/ablations/no_bilinear_pooling.yaml"],
    "no fusion stage": ["--config={configs}/ablations/no_fusion_stage.yaml"],
    "no modality dropout": ["--config={configs}/ablations/no_modality_dropout.yaml"],
    "every pattern": ["--config={configs}/ablations/no_modality_dropout.yaml", "--model.every_pattern=true"],
}


class Setting(NamedTuple):
    """Attributes:
    data: how scenes draw what a side hides, or a style of emoji.
    size: training samples of scenes, emoji a class, or None for all.
    flags: of what else there is.
    """

    data: str
    size: int | None = None
    flags: tuple[str, ...] = ()


SETTINGS = {
    "easy, 50": Setting("neutral", 50),
    "easy, 500": Setting("neutral", 500),
    "hard, 500": Setting("distractor", 500),
    "hard, 5000": Setting("distractor", 5000),
    "noto, 5 a class": Setting("noto", 5),
    "noto, 25 a class": Setting("noto", 25),
    "noto, all": Setting("noto"),
    "noto, 7 of 10 lack a side": Setting("noto", flags=("--data.missing.train={rate: 0.7, type: both, ratio: 0.5}",)),
}
EMOJI_STEPS, EMOJI_TRAIN, EMOJI_CLASSES = 220, 1300, 8


class Job(NamedTuple):
    variant: str
    setting: str
    repeat: int


def accuracies(given: argparse.Namespace, job: Job) -> dict[str, float]:
    """By condition."""

    def make() -> dict[str, float]:
        own = [flag.format(configs=CONFIGS) for flag in VARIANTS[job.variant]]
        folder = trained(given.root, name, job.repeat, *flags(given, job), *own)
        return by_condition(tested(folder), "accuracy", CONDITIONS)

    name = "-".join(map(str, job))
    found: dict[str, float] = kept(given.root / "answers" / f"{name}.json", make)
    return found


def flags(given: argparse.Namespace, job: Job) -> list[str]:
    data, size, own = SETTINGS[job.setting]
    if data in HIDDEN:
        return [f"--config={CONFIGS}/demo.yaml", *Scenes(data, 24, 0.6, size or 0, job.repeat).flags()]
    found = [*emoji(given, data, job.repeat), *own] + ([f"--data.splits.shots={size}"] if size else [])
    samples = size * EMOJI_CLASSES if size else EMOJI_TRAIN
    batch = min(128, samples)
    return [*found, f"--data.batch_size={batch}", f"--trainer.max_epochs={EMOJI_STEPS * batch // samples}"]


def work(given: argparse.Namespace, job: Job) -> None:
    accuracies(given, job)


def table(given: argparse.Namespace) -> Iterator[str]:
    """Markdown: accuracies as published, then differences to them; in bold what is beyond twice its standard error."""
    yield f"| | {' | '.join(given.on)} |"
    yield "| --- " * (1 + len(given.on)) + "|"
    for variant in [PUBLISHED, *(name for name in given.only if name != PUBLISHED)]:
        cells = []
        for setting in given.on:
            pairs = [
                [accuracies(given, Job(name, setting, repeat)) for name in (variant, PUBLISHED)]
                for repeat in range(given.repeats)
            ]
            if variant == PUBLISHED:
                cells.append(" ".join(f"{mean(own[c] for own, _ in pairs):.3f}" for c in CONDITIONS))
            else:
                cells.append(" ".join(difference([own[c] - other[c] for own, other in pairs]) for c in CONDITIONS))
        yield f"| {variant} | {' | '.join(cells)} |"


def difference(of: list[float]) -> str:
    shown = f"{mean(of):+.3f}"
    sure = len(of) > 1 and abs(mean(of)) > 2 * stdev(of) / len(of) ** 0.5
    return f"**{shown}**" if sure else shown


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder of {noto,fluent3d}_{train,val,test}.jsonl")
    parser.add_argument("weights", type=Path, help="mobilenetv2_100.safetensors")
    parser.add_argument("--root", type=Path, default=Path("runs/ablations"), help="of runs, cache and answers")
    parser.add_argument("--on", nargs="+", choices=SETTINGS, default=list(SETTINGS))
    parser.add_argument("--only", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--repeats", type=int, default=5, choices=range(1, 6))
    parser.add_argument("--processes", type=int, default=os.cpu_count(), help="at a time, a core each")
    given = parser.parse_args()
    given.root, given.data, start = given.root.resolve(), given.data.resolve(), perf_counter()
    given.root.mkdir(parents=True, exist_ok=True)
    write_folds(given.data, given.root)
    variants = dict.fromkeys([PUBLISHED, *given.only])
    jobs = [Job(v, setting, repeat) for repeat, setting, v in product(range(given.repeats), given.on, variants)]
    in_processes(partial(work, given), jobs, given.processes)
    lines = "\n".join(table(given))
    (given.root / "table.md").write_text(lines + "\n")
    print(f"{lines}\n{perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
