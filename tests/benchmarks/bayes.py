"""Generated scenes against Bayes' rule: what share of the best possible accuracy models reach, with how many samples.

Easy scenes leave out what a side hides, hard ones show something at random instead. The redundancy is the share of the
factors that both sides show; the others are in one of them alone. CLIP as it is and MMRL are told the classes' names;
the others learn the classes from samples alone. What is done is kept in the root folder.

`make bayes [ARGS="--sizes 50 500 --seeds 1"]`
"""

from __future__ import annotations

import argparse
import os
import sys
from functools import partial
from itertools import product
from pathlib import Path
from statistics import mean
from time import perf_counter
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.runs import CONFIGS, by_condition, in_processes, kept, tested, trained
from rich.console import Console
from rich.table import Table

EXPERTS = ["{configs}/demo.yaml", "{configs}/fusion/experts.yaml"]
MODELS: dict[str, tuple[list[str], list[str]]] = {  # configurations, and flags
    "experts": (EXPERTS, ["--model.fusion.init_args.layers=false"]),
    "experts, layers": (EXPERTS, []),
    "MoLT": (["{configs}/demo.yaml"], []),
    "late fusion": (["{configs}/demo.yaml", "{configs}/baselines/late_fusion.yaml"], []),
    "CLIP as it is": (["{configs}/demo_mmrl.yaml", "{configs}/baselines/zero_shot.yaml"], []),
    "MMRL": (["{configs}/demo_mmrl.yaml"], []),
}
HIDDEN = {"neutral": "easy", "distractor": "hard"}
CONDITIONS = ("complete", "no_image", "no_text")
STEPS = 600  # at least, however few the samples


class Scenes(NamedTuple):
    """Attributes:
    hidden: how a side draws what it hides.
    classes: how many.
    both: the redundancy.
    size: samples of training.
    seed: of samples and training.
    """

    hidden: str
    classes: int
    both: float
    size: int
    seed: int

    def flags(self, most_batch: int = 128) -> list[str]:
        alone, batch = (1 - self.both) / 2, min(most_batch, self.size)
        return [
            f"--data.source.world.hidden={self.hidden}",
            f"--data.source.world.classes={self.classes}",
            f"--data.source.world.visibility={{image: {alone}, text: {alone}, both: {self.both}}}",
            f"--data.source.train={self.size}",
            f"--data.source.seed={self.seed}",
            f"--data.batch_size={batch}",
            f"--trainer.max_epochs={max(3, STEPS * batch // self.size)}",
        ]


def share(root: Path, model: str, scenes: Scenes) -> dict[str, float]:
    """By condition, of the best possible accuracy."""

    def make() -> dict[str, float]:
        configs, own = MODELS[model]
        flags = [f"--config={config.format(configs=CONFIGS)}" for config in configs]
        flags += scenes.flags(32 if model == "MMRL" else 128)
        flags += ["--trainer.max_epochs=1"] if model == "CLIP as it is" else []
        folder = trained(root, name, scenes.seed, *flags, *own)
        return by_condition(tested(folder), "of_the_best_possible", CONDITIONS)

    name = f"{model}-{'-'.join(map(str, scenes))}"
    found: dict[str, float] = kept(root / "answers" / f"{name}.json", make)
    return found


def work(root: Path, job: tuple[str, Scenes]) -> None:
    share(root, *job)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=Path("runs/bayes"), help="of runs, cache and answers")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--hidden", nargs="+", choices=HIDDEN, default=list(HIDDEN))
    parser.add_argument("--classes", nargs="+", type=int, default=[24])
    parser.add_argument("--redundancy", nargs="+", type=float, default=[0.2, 0.6, 1.0])
    parser.add_argument("--sizes", nargs="+", type=int, default=[50, 500, 5000, 50_000])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--processes", type=int, default=os.cpu_count(), help="at a time, a core each")
    given = parser.parse_args()
    start, root = perf_counter(), given.root.resolve()
    rows = list(product(given.hidden, given.classes, given.redundancy, given.sizes))
    every = [Scenes(*row, seed) for row in rows for seed in range(given.seeds)]
    in_processes(partial(work, root), [(model, scenes) for scenes in every for model in given.models], given.processes)
    title = f"share of the best: {', '.join(CONDITIONS)}"
    table = Table("scenes", "classes", "redundancy", "samples", *given.models, title=title)
    for hidden, classes, both, size in rows:
        cells = []
        for model in given.models:
            of = [share(root, model, Scenes(hidden, classes, both, size, seed)) for seed in range(given.seeds)]
            cells.append(" ".join(f"{mean(one[condition] for one in of):.3f}" for condition in CONDITIONS))
        table.add_row(HIDDEN[hidden], str(classes), str(both), str(size), *cells)
    Console(width=160).print(table)
    print(f"{perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
