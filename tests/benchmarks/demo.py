"""How near MoLT comes to the best possible accuracy on the demo's data, beside concatenation: mean of three seeds.

Every seed is another start and other samples of the same distribution. Concatenation is trained on complete samples
alone, as people do who have not thought of missing sides; with modality dropout it stands beside that.

`make demo-table`
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from statistics import mean, stdev
from time import perf_counter

from rich.console import Console
from rich.table import Table

from robusttune.callbacks.run_folder import next_folder
from robusttune.cli import main as robusttune

CONFIG = Path(__file__).parents[2] / "configs/demo.yaml"
FOLDER = Path("runs/benchmarks")
CONCATENATION = [
    "--model.fusion=robusttune.models.Concatenation",
    "--model.beta=0",
]
COMPLETE = ["--data.corruption.image_dropout=0", "--data.corruption.text_dropout=0"]
MODELS = {
    "MoLT": [],
    "MoLT, no modality dropout": COMPLETE,
    "concatenation": CONCATENATION,
    "concatenation, no modality dropout": CONCATENATION + COMPLETE,
}
CONDITIONS = ("complete", "no_image", "no_text")


def run(*args: str) -> None:
    if robusttune(args):
        sys.exit(1)


def shares(flags: list[str], root: Path, name: str, seed: int) -> dict[str, dict[str, float]]:
    """Train with one seed, and test: condition -> accuracy, and its share of the best possible."""
    seeds = [f"--seed_everything={seed}", f"--data.seed={seed}", f"--data.source.seed={seed}"]
    run("fit", f"--config={CONFIG}", *seeds, *flags, f"--run_root={root}", f"--name={name}")
    folder = root / name / "0"
    run("test", f"--config={folder}/config.yaml", f"--ckpt_path={folder}/checkpoints/best.ckpt")
    conditions = json.loads((folder / "report/test.json").read_text())["conditions"]
    return {c: {key: conditions[c][key] for key in ("accuracy", "of_the_best_possible")} for c in CONDITIONS}


def show(found: dict[str, list[dict[str, dict[str, float]]]], seconds: float) -> None:
    """Means and standard deviations over the seeds; the same as JSON, with every seed."""
    table = Table("of the best possible", *CONDITIONS, title=f"demo; {seconds:.0f} s in all", title_justify="left")
    for model, seeds in found.items():
        cells = []
        for condition in CONDITIONS:
            values = [seed[condition]["of_the_best_possible"] for seed in seeds]
            cells.append(f"{mean(values):.3f} +- {stdev(values):.3f}")
        table.add_row(model, *cells)
    Console(width=120).print(table)
    FOLDER.mkdir(parents=True, exist_ok=True)
    (FOLDER / "demo.json").write_text(json.dumps({"seconds": seconds, "models": found}, indent=2) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=Path("runs/demo-table"), help="of runs and cache, in a new folder")
    parser.add_argument("--seeds", type=int, default=3, help="how many, at least 2")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS), help="which of them")
    given, extra = parser.parse_known_args()
    if given.seeds < 2:
        parser.error("--seeds: at least 2")
    root = next_folder(given.root)
    flags = [
        f"--data.cache={root}/cache",
        "--trainer.enable_progress_bar=false",
        "--trainer.enable_model_summary=false",
        *extra,
    ]
    start = perf_counter()
    found = {
        model: [shares([*MODELS[model], *flags], root, f"{number}-{seed}", seed) for seed in range(given.seeds)]
        for number, model in enumerate(given.models)
    }
    show(found, perf_counter() - start)


if __name__ == "__main__":
    main()
