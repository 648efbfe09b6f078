"""Train a configuration, test it, and read the metrics of its report."""

from __future__ import annotations

import json
from pathlib import Path

from experiments.records import ROOT

from robusttune.cli import main as robusttune

CONDITIONS = ("complete", "no_image", "no_text")


def overlays(*names: str) -> list[str]:
    """Return the flags that choose configurations by their path in `configs/`."""
    return [f"--config={ROOT}/configs/{name}.yaml" for name in names]


def train(root: Path, name: str, seed: int, *flags: str, validate: bool = False) -> Path:
    """Run `robusttune fit` and return the folder of the run.

    Args:
        root: Folder of the runs and of the feature cache.
        name: Name of the run.
        seed: Seed of the model and of the data module.
        flags: Configurations, and values that differ from them.
        validate: Whether to validate in each epoch; otherwise the last weights are what counts.
    """
    command(
        "fit",
        *flags,
        f"--seed_everything={seed}",
        f"--data.seed={seed}",
        f"--data.cache.folder={root}/cache",
        "--data.loader.workers=0",  # starting them takes longer than these runs
        f"--run_root={root}/runs",
        f"--name={name}",
        *([] if validate else ["--trainer.check_val_every_n_epoch=1000"]),
        "--trainer.enable_progress_bar=false",
        "--trainer.enable_model_summary=false",
    )
    return max((root / "runs" / name).iterdir(), key=lambda path: path.stat().st_mtime)


def evaluate(folder: Path, *flags: str, checkpoint: str = "last") -> Path:
    """Run `robusttune test` and return the folder of the report."""
    weights = f"{folder}/checkpoints/{checkpoint}.ckpt"
    command("test", f"--config={folder}/config.yaml", f"--ckpt_path={weights}", *flags)
    return folder / "report"


def by_condition(report: Path, metric: str) -> dict[str, float]:
    """Return the values of a metric under every condition, and their mean as `mean`."""
    conditions = json.loads((report / "test.json").read_text())["conditions"]
    return {name: round(values[metric], 6) for name, values in conditions.items()}


def command(*args: str) -> None:
    if robusttune(args):
        raise RuntimeError(f"robusttune {' '.join(args)} failed")
