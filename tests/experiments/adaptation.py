"""How much better is a model whose encoders are adapted (LoRA) than one with frozen encoders, and what does it cost?

Small tables, with a third of each split for the test, by texts alone and by texts and images: texts by MiniLM, which is
adapted, images by MobileNetV2, which stays frozen. Generated scenes, by both modalities: either tower of the tiny CLIP
of the package is adapted, or both. All models are trained for the same steps.

    make small-tables WEIGHTS=mobilenetv2_100.safetensors && make adaptation
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from statistics import mean, stdev
from typing import NamedTuple

from experiments.records import ROOT, RUNS, Record, Results, run_jobs
from experiments.small_tables.models import versions
from experiments.training import CONDITIONS, by_condition, evaluate, overlays, train

STEPS = 600
RECIPE = [
    "--recipe=null",
    "--data.batch_size=64",
    "--model.optimizer.class_path=torch.optim.AdamW",
    "--model.optimizer.init_args.weight_decay=0.05",
    "--model.optimizer.init_args.lr=1e-3",
    "--model.schedule={name: cosine, warmup: 0.05}",
    f"--trainer.max_steps={STEPS}",
    "--trainer.max_epochs=-1",
    "--trainer.gradient_clip_val=1.0",
    "--trainer.precision=32-true",
]
WEAK = [  # scenes in the style that the CLIP saw less of
    "--data.source.style=blackboard",
    "--data.source.world.factors=[texture, shape]",
    "--data.source.world.part=all",
    "--data.source.test=1000",
]
ADAPTED = {"none": [], "text": ["lora/text"], "image": ["lora/image"], "both": ["lora/image", "lora/text"]}


class Case(NamedTuple):
    """Training samples and the model that is trained.

    Attributes:
        table: Name of a small table; None for generated scenes.
        names_alone: True to train on texts alone.
        flags: Further settings.
    """

    table: str | None
    names_alone: bool = False
    flags: tuple[str, ...] = ()

    @property
    def adapted(self) -> list[str]:
        """Return the encoders that are adapted, as keys of `ADAPTED`."""
        return list(ADAPTED) if self.table is None else ["none", "text"]

    def command(self, suite: Path, seed: int) -> list[str]:
        """Return the flags of a fit; a seed is a split of a small table, or the seed of the scenes."""
        if self.table is None:
            return [*overlays("demo", "fusion/experts"), *WEAK, f"--data.source.seed={seed}", *self.flags]
        folder = suite / self.table
        encoders = [
            f"--config={ROOT}/tests/experiments/small_tables/encoders/mobilenet_minilm.yaml",
            f"--image_encoder.weights={suite}/encoders/mobilenetv2_100.safetensors",
            f"--text_encoder.name={suite}/encoders/minilm",
        ]
        model = overlays("baselines/text_only" if self.names_alone else "fusion/experts")
        tables = [f"--data.source.{part}={folder}/{seed}-{part}.jsonl" for part in ("train", "test")]
        without = ["--data.source.image_column=null"] * self.names_alone
        return [*overlays("table"), *encoders, *model, *tables, *without, *self.flags]


CASES = {
    "40 emoji names": Case("emoji_groups_5", names_alone=True),
    "80 emoji names": Case("emoji_groups_10", names_alone=True),
    "400 emoji names": Case("emoji_groups", names_alone=True, flags=("--data.splits.shots=50",)),
    "1,090 emoji names": Case("emoji_groups", names_alone=True),
    "1,090 emoji": Case("emoji_groups"),
    "460 health icon names": Case("health", names_alone=True),
    "783 Tabler icon names": Case("tabler", names_alone=True),
    "783 Tabler icons": Case("tabler"),
    "510 pictogram descriptions": Case("pictograms", names_alone=True),
    "200 scenes": Case(None, flags=("--data.source.train=200", "--data.source.val=40")),
    "2,000 scenes": Case(None, flags=("--data.source.train=2000", "--data.source.val=40")),
}


class Job(NamedTuple):
    """Settings of one run: its name in `CASES`, the adapted encoders, a key of `ADAPTED`, and the seed."""

    case: str
    adapted: str
    seed: int


def measure(root: Path, suite: Path, job: Job) -> Record:
    """Return the accuracy by condition; without images, under the condition complete alone."""
    case = CASES[job.case]
    name = "-".join(map(str, job)).replace(" ", "_").replace(",", "")
    flags = [*case.command(suite, job.seed), *RECIPE, *overlays(*ADAPTED[job.adapted])]
    return by_condition(evaluate(train(root, name, job.seed, *flags)), "accuracy")


def table(results: Results) -> str:
    """Return Markdown: mean and spread of the accuracy over the seeds by condition, and seconds of a run."""
    lines = [f"| samples | adapted | {' | '.join(CONDITIONS)} | seconds |", "| --- " * (3 + len(CONDITIONS)) + "|"]
    for case in results.values("case"):
        for adapted in results.values("adapted"):
            jobs = [job for job in results.jobs if (job["case"], job["adapted"]) == (case, adapted)]
            if not jobs:
                continue
            found = [[job["metrics"][name] for job in jobs if name in job["metrics"]] for name in CONDITIONS]
            cells = [f"{mean(values):.3f}" if values else "-" for values in found]
            if len(jobs) > 1:
                cells[0] += f" ± {stdev(found[0]):.3f}"
            seconds = f"{mean(job['seconds'] for job in jobs):.0f}"
            lines.append(f"| {case} | {adapted} | {' | '.join(cells)} | {seconds} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("suite", type=Path, help="tables that `python -m experiments.small_tables.build` has written")
    parser.add_argument("--root", type=Path, default=RUNS / "adaptation", help="folder of runs and results.json")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--processes", type=int, default=1, help="jobs at a time, one core each")
    given = parser.parse_args()
    root, suite = given.root.resolve(), given.suite.resolve()
    jobs = [
        Job(case, adapted, seed)
        for case in given.cases
        for adapted in CASES[case].adapted
        for seed in range(1, given.seeds + 1)
    ]
    results = run_jobs(root, jobs, partial(measure, root, suite), given.processes, versions(suite))
    results.write(root / "results.json")
    print(table(results))


if __name__ == "__main__":
    main()
