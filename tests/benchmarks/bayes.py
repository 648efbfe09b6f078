"""Generated scenes against Bayes' rule: what share of the best possible accuracy models reach, with how many samples.

Easy scenes leave out what a side hides, hard ones show something at random instead. The redundancy is the share of the
factors that both sides show; the others are in one of them alone.

`make bayes [ARGS="--sizes 50 500 --seeds 1"]`
"""

from __future__ import annotations

import argparse
import json
from itertools import product
from pathlib import Path
from statistics import mean
from time import perf_counter

from rich.console import Console
from rich.table import Table

from robusttune.cli import main as robusttune
from robusttune.paths import whole_file

CONFIGS = Path(__file__).parents[2] / "configs"
MODELS = {
    "experts": [f"--config={CONFIGS}/fusion/experts.yaml"],
    "MoLT": [],
    "late fusion": [f"--config={CONFIGS}/baselines/late_fusion.yaml"],
}
CONDITIONS = ("complete", "no_image", "no_text")
STEPS = 600  # at least, however few the samples


def shares(root: Path, model: str, hidden: str, both: float, size: int, seed: int) -> dict[str, float]:
    """By condition, of the best possible accuracy; kept in the root folder."""
    name = f"{model}-{hidden}-{both}-{size}-{seed}"
    done = root / f"{name}.json"
    if not done.exists():
        alone = (1 - both) / 2
        batch = min(128, size)
        flags = [
            f"--config={CONFIGS}/demo.yaml",
            *MODELS[model],
            f"--data.source.world.hidden={hidden}",
            f"--data.source.world.visibility={{image: {alone}, text: {alone}, both: {both}}}",
            f"--data.source.train={size}",
            f"--data.source.seed={seed}",
            f"--data.seed={seed}",
            f"--seed_everything={seed}",
            f"--data.batch_size={batch}",
            f"--trainer.max_epochs={max(3, STEPS * batch // size)}",
            "--trainer.check_val_every_n_epoch=1000",
            "--trainer.enable_progress_bar=false",
            "--trainer.enable_model_summary=false",
            f"--data.cache={root}/cache",
            f"--run_root={root}/runs",
            f"--name={name}",
        ]
        if robusttune(["fit", *flags]):
            raise RuntimeError(f"the fit of {name} failed")
        folder = max((root / "runs" / name).iterdir(), key=lambda path: path.stat().st_mtime)
        if robusttune(["test", f"--config={folder}/config.yaml", f"--ckpt_path={folder}/checkpoints/last.ckpt"]):
            raise RuntimeError(f"the test of {name} failed")
        found = json.loads((folder / "report/test.json").read_text())["conditions"]
        with whole_file(done) as path:
            path.write_text(json.dumps({name: found[name]["of_the_best_possible"] for name in CONDITIONS}))
    kept: dict[str, float] = json.loads(done.read_text())
    return kept


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=Path("runs/bayes"), help="of runs, cache and results")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--hidden", nargs="+", default=["neutral", "distractor"])
    parser.add_argument("--redundancy", nargs="+", type=float, default=[0.2, 0.6, 1.0])
    parser.add_argument("--sizes", nargs="+", type=int, default=[50, 500, 5000, 50_000])
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    given.root.mkdir(parents=True, exist_ok=True)
    start, console = perf_counter(), Console(width=120)
    table = Table(
        "scenes", "redundancy", "samples", *given.models, title=f"of the best possible: {', '.join(CONDITIONS)}"
    )
    for hidden, both, size in product(given.hidden, given.redundancy, given.sizes):
        cells = []
        for model in given.models:
            of = [shares(given.root, model, hidden, both, size, seed) for seed in range(given.seeds)]
            cells.append(" ".join(f"{mean(one[condition] for one in of):.3f}" for condition in CONDITIONS))
        table.add_row({"neutral": "easy", "distractor": "hard"}.get(hidden, hidden), str(both), str(size), *cells)
        console.print(table)
    print(f"{perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
