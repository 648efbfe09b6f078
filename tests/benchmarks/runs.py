"""Runs of the command line for benchmarks that make many of them: trained, tested at the last weights, and kept."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from robusttune.cli import main as robusttune
from robusttune.paths import whole_file

CONFIGS = Path(__file__).parents[2] / "configs"


def command(*args: str) -> None:
    if robusttune(args):
        raise RuntimeError(f"robusttune {' '.join(args)} failed")


def trained(root: Path, name: str, seed: int, *flags: str) -> Path:
    """The folder of a run whose validation decides nothing."""
    command(
        "fit",
        *flags,
        f"--seed_everything={seed}",
        f"--data.seed={seed}",
        f"--data.cache={root}/cache",
        f"--run_root={root}/runs",
        f"--name={name}",
        "--trainer.check_val_every_n_epoch=1000",
        "--trainer.enable_progress_bar=false",
        "--trainer.enable_model_summary=false",
    )
    return max((root / "runs" / name).iterdir(), key=lambda path: path.stat().st_mtime)


def tested(folder: Path, *flags: str) -> Path:
    """The report of a run's last weights."""
    command("test", f"--config={folder}/config.yaml", f"--ckpt_path={folder}/checkpoints/last.ckpt", *flags)
    return folder / "report"


def by_condition(report: Path, metric: str, conditions: Iterable[str]) -> dict[str, float]:
    found = json.loads((report / "test.json").read_text())["conditions"]
    return {name: found[name][metric] for name in conditions}


def kept(path: Path, make: Callable[[], Any]) -> Any:
    """What is in a JSON file, which is made where there is none."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        made = make()
        with whole_file(path) as whole:
            whole.write_text(json.dumps(made))
    return json.loads(path.read_text())


def in_processes(work: Callable[[Any], None], jobs: Iterable[Any], processes: int | None) -> None:
    """Do all jobs, each on a core of its own."""
    os.environ["OMP_NUM_THREADS"] = "1"
    jobs = list(jobs)
    with ProcessPoolExecutor(processes, get_context("spawn"), torch.set_num_threads, (1,)) as pool:
        running = [pool.submit(work, job) for job in jobs]
        for number, (job, future) in enumerate(zip(jobs, running, strict=True)):
            future.result()
            print(f"{number + 1} of {len(jobs)}: {job}", flush=True)
