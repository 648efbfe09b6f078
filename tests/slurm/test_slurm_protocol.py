"""A protocol as a job array on a real SLURM: `make test-slurm`."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import pytest
import yaml
from same_run import differences

from slurm.test_slurm import SIZES, Slurm, slurm  # noqa: F401, a fixture

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(900)]

CONTENT = {
    "settings": {
        "trainer.max_epochs": 3,
        "trainer.accelerator": "cpu",
        "trainer.log_every_n_steps": 2,
        "data.batch_size": 8,
        **{f"data.source.{split}": size for split, size in SIZES.items()},
    },
    "axes": {
        "method": {"MoLT": {"configs": ["demo"]}, "late fusion": {"configs": ["demo", "baselines/late_fusion"]}},
        "seed": {1: {"settings": {"seed_everything": 1}}},
    },
    "tests": [{"checkpoint": "last"}],
}
OPTIONS = "--gpus-per-node=0 --cpus-per-task=1 --time=10"


def protocol(slurm: Slurm, *args: str) -> str:  # noqa: F811
    """Return what the command prints, whether it fails or not."""
    command = ["robusttune", "protocol", *args]
    folder = slurm.folder / "protocol"
    folder.mkdir(exist_ok=True)
    (folder / "two.yaml").write_text(yaml.safe_dump(CONTENT, sort_keys=False))
    environment = {**slurm.environment, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, cwd=folder)
    return done.stdout + done.stderr


def submit(slurm: Slurm) -> str:  # noqa: F811
    output = protocol(slurm, "run", "two.yaml", f"--slurm={OPTIONS}")
    found = re.search(r"SLURM job (\d+): an array of (\d+) run", output)
    assert found is not None, output
    return found[1]


def run_of(slurm: Slurm, name: str) -> Path:  # noqa: F811
    return next((slurm.folder / "protocol/runs/two").glob(f"{name}-seed1-*"))


def test_an_array_of_fits_and_tests_is_requeued_and_repeats_nothing(slurm: Slurm) -> None:  # noqa: F811
    """One member gets SIGUSR1 in its fit: it saves itself, is requeued, and ends as without the signal."""
    job = submit(slurm)
    runs = slurm.folder / "protocol/runs/two"
    slurm.wait(lambda: "begun" if len([*runs.glob("*/0/checkpoints/last.ckpt")]) else "", 300)
    member = 1 if [*runs.glob("MoLT-*/0/checkpoints/last.ckpt")] else 2
    slurm.call("scancel", "--signal=USR1", f"{job}_{member}")
    assert [slurm.ended(f"{job}_{number}") for number in (1, 2)] == ["COMPLETED"] * 2, slurm.log()
    assert slurm.state(f"{job}_{member}")[1] == 1
    status = protocol(slurm, "status", "two.yaml")
    assert "2 runs: 2 done" in status, status
    name = ("MoLT", "late_fusion")[member - 1]
    requeued = run_of(slurm, name)
    assert [path.name for path in requeued.iterdir() if path.is_dir()] == ["0"]
    # SLURM may send the signal to the fit as well as to the runner, which sends SIGTERM.
    assert re.search("SIG(TERM|USR1) has ended the run in epoch", (requeued / "fit.log").read_text())
    assert json.loads((requeued / "0/report/test.json").read_text())["samples"] == SIZES["test"]

    undisturbed = slurm.folder / "undisturbed"
    only = ("--only", f"method={name.replace('_', ' ')}", f"--runs={undisturbed}")
    environment = {key: value for key, value in os.environ.items() if not key.startswith("SLURM")}
    subprocess.run(
        ["robusttune", "protocol", "run", "two.yaml", *only],
        env={**environment, "PATH": slurm.environment["PATH"], "PYTHONPATH": str(Path(__file__).parents[2])},
        check=True,
        cwd=slurm.folder / "protocol",
    )
    assert differences(requeued / "0", undisturbed / "two" / requeued.name / "0") == []
    assert "nothing to submit" in protocol(slurm, "run", "two.yaml", f"--slurm={OPTIONS}")


def test_a_wrong_option_of_sbatch_is_one_sentence(slurm: Slurm) -> None:  # noqa: F811
    output = protocol(slurm, "run", "two.yaml", "--runs=other", "--slurm=--partition=none")
    assert "robusttune: error: sbatch refuses the job" in output
