"""The shipped batch files on a real SLURM: `make test-slurm`, with ROUNDS=20 for more rounds."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml
from same_run import differences

from slurm import cluster

ROOT = Path(__file__).parents[2]
ROUNDS = int(os.environ.get("ROUNDS", "5"))
SIZES = {"train": 600, "val": 100, "test": 100}
FIT = [
    *("--config", "configs/demo.yaml", "--data.batch_size", "8", "--trainer.max_epochs", "3"),
    *(flag for split, size in SIZES.items() for flag in (f"--data.source.{split}", str(size))),
    *("--trainer.log_every_n_steps", "2", "--trainer.accelerator", "cpu"),
]
WHERE = ["--gpus-per-node=0", "--cpus-per-task=1", "--time=10"]

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(900)]


class Slurm(NamedTuple):
    """The cluster, where jobs write to, and the machine on which they are submitted."""

    environment: dict[str, str]
    folder: Path
    machine: cluster.Machine = cluster.HERE

    def call(self, *command: str) -> str:
        inside = self.machine.inside(command)
        done = subprocess.run(inside, env=self.environment, capture_output=True, text=True, check=False, cwd=ROOT)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def submit(self, *arguments: str, tasks: int = 2, file: str = "fit", where: tuple[str, ...] = ()) -> str:
        """The number of a job of a shipped batch file."""
        options = [*WHERE, f"--ntasks-per-node={tasks}", f"--output={self.folder}/%A_%a.log", *where]
        return self.call("sbatch", "--parsable", *options, f"configs/slurm/{file}.sbatch", *arguments)

    def state(self, job: str) -> tuple[str, int]:
        """Of a job: its state, and how often it was restarted."""
        shown = dict(part.split("=", 1) for part in self.call("scontrol", "show", "job", job).split() if "=" in part)
        return shown["JobState"], int(shown["Restarts"])

    def ended(self, job: str, seconds: float = 300) -> str:
        """The state in which a job ends; one that hangs fails."""

        def final() -> str:
            state = self.state(job)[0]
            return state if state in ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL") else ""

        return self.wait(final, seconds)

    def trains(self, folder: Path) -> None:
        """Wait until training has begun in the folder of a run."""
        self.wait(lambda: "begun" if (folder / "checkpoints").exists() or [*folder.glob("events*")] else "", 120)

    def processes(self) -> str:
        return subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout

    def wait(self, found: Callable[[], str], seconds: float) -> str:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if value := found():
                return value
            time.sleep(0.05)
        raise AssertionError(f"nothing came of it in {seconds} s:\n{self.log()[-3000:]}")

    def log(self) -> str:
        return "\n".join(path.read_text() for path in self.folder.glob("*.log"))

    def fit(self, name: str) -> list[str]:
        return [*FIT, "--run_root", str(self.folder), "--name", name]


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    if not cluster.installed():
        pytest.skip("the packages slurm-wlm and munge are not there, and cannot be installed")
    folder = tmp_path_factory.mktemp("slurm")
    daemons = Path(tempfile.mkdtemp(prefix="slurm"))  # munge wants others to have access to all folders above
    environment = cluster.up(daemons)
    environment |= {"OMP_NUM_THREADS": "1", "XDG_CACHE_HOME": str(folder / "cache")}
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    try:
        yield Slurm(environment, folder)
    finally:
        cluster.down(daemons)
        shutil.rmtree(daemons, ignore_errors=True)


@pytest.fixture(scope="module")
def undisturbed(slurm: Slurm) -> tuple[Path, float]:
    """The folder of a run that nothing interrupts, and how many seconds it trains."""
    assert slurm.ended(slurm.submit(*slurm.fit("undisturbed"))) == "COMPLETED", slurm.log()
    folder = slurm.folder / "undisturbed/0"
    return folder, json.loads((folder / "finished.json").read_text())["seconds"]


@pytest.mark.parametrize("number", range(ROUNDS))
def test_a_signal_in_the_middle_changes_nothing(slurm: Slurm, undisturbed: tuple[Path, float], number: int) -> None:
    """Wherever SIGUSR1 comes, the job saves itself, is requeued, and ends as it would have ended: in the same bits."""
    expected, seconds = undisturbed
    name = f"round{number}"
    job = slurm.submit(*slurm.fit(name))
    folder = slurm.folder / name / "0"
    slurm.trains(folder)
    time.sleep(random.Random(number).uniform(0.05, 0.7) * seconds)
    slurm.call("scancel", "--signal=USR1", job)
    assert slurm.ended(job) == "COMPLETED"
    assert slurm.state(job)[1] == 1, slurm.log()
    assert [path.name for path in folder.parent.iterdir()] == ["0"]
    assert differences(folder, expected) == []


def test_a_signal_before_training_requeues_at_once(slurm: Slurm, undisturbed: tuple[Path, float]) -> None:
    """Also while the processes still import what they need."""
    job = slurm.submit(*slurm.fit("early"))
    slurm.wait(lambda: "begun" if "bin/robusttune fit" in slurm.processes() else "", 60)
    time.sleep(1.0)
    slurm.call("scancel", "--signal=USR1", job)
    assert slurm.ended(job) == "COMPLETED"
    assert slurm.state(job)[1] == 1, slurm.log()
    assert differences(slurm.folder / "early/0", undisturbed[0]) == []


def test_a_new_job_goes_on_only_when_asked_to(slurm: Slurm, undisturbed: tuple[Path, float]) -> None:
    """Not from what another left in its folder, nor from what Lightning's own handler has left in the working one."""
    root = slurm.folder / "cancelled"
    first = slurm.submit(*slurm.fit("cancelled"))
    slurm.trains(root / "0")
    slurm.call("scancel", first)  # by SIGTERM
    assert slurm.ended(first) == "CANCELLED"
    assert (root / "0/checkpoints/last.ckpt").is_file()
    elsewhere = slurm.folder / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "configs").symlink_to(ROOT / "configs")
    shutil.copy(root / "0/checkpoints/last.ckpt", elsewhere / "hpc_ckpt_1.ckpt")
    where = (f"--chdir={elsewhere}", f"--output={slurm.folder}/new.log")
    assert slurm.ended(slurm.submit(*slurm.fit("cancelled"), where=where)) == "COMPLETED"
    assert differences(root / "1", undisturbed[0]) == []
    assert "Restor" not in (slurm.folder / "new.log").read_text()
    shutil.move(root / "1", slurm.folder / "moved")
    assert slurm.ended(slurm.submit(*slurm.fit("cancelled"), "--resume", "auto")) == "COMPLETED"
    assert differences(root / "0", undisturbed[0]) == []
    again = slurm.submit(*slurm.fit("cancelled"), "--resume", "auto")
    assert slurm.ended(again) == "COMPLETED"
    assert f"{root}/0 is finished" in slurm.log()


def test_training_goes_on_where_the_job_cannot_be_requeued(slurm: Slurm, undisturbed: tuple[Path, float]) -> None:
    job = slurm.submit(*slurm.fit("stays"), where=("--no-requeue",))
    slurm.trains(slurm.folder / "stays/0")
    slurm.call("scancel", "--signal=USR1", job)
    assert slurm.ended(job) == "COMPLETED"
    assert slurm.state(job)[1] == 0
    assert "cannot be requeued" in slurm.log()
    assert differences(slurm.folder / "stays/0", undisturbed[0]) == []


def test_an_array_of_runs(slurm: Slurm) -> None:
    """A member has a line of the file each, and is requeued alone."""
    flags = " ".join(slurm.fit("seeds"))
    lines = [f"{flags} --seed_everything {seed} --data.source.world.factors '[colour, shape]'" for seed in (1, 2)]
    (slurm.folder / "runs.txt").write_text("\n".join(lines) + "\n")
    job = slurm.submit(str(slurm.folder / "runs.txt"), tasks=1, file="array", where=("--array=1-2",))
    for number in "01":
        slurm.trains(slurm.folder / "seeds" / number)
    slurm.call("scancel", "--signal=USR1", f"{job}_2")
    assert [slurm.ended(f"{job}_{member}") for member in (1, 2)] == ["COMPLETED"] * 2
    assert [slurm.state(f"{job}_{member}")[1] for member in (1, 2)] == [0, 1]
    runs = [slurm.folder / "seeds" / number for number in "01"]
    assert [path.name for path in sorted(runs[0].parent.iterdir())] == ["0", "1"]
    assert {yaml.safe_load((run / "config.yaml").read_text())["seed_everything"] for run in runs} == {1, 2}
    assert all((run / "finished.json").is_file() for run in runs)
