"""Fits by torchrun across two hosts: equal to a fit by one process, and ended by one sentence when a host is lost."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from same_run import differences
from two_hosts import Host, two_hosts, unavailable

from robusttune.heartbeat import LOST_AFTER

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
FIT = [
    *("fit", "--config", "configs/demo.yaml", "--data.source.train", "320", "--data.source.val", "64"),
    *("--trainer.max_epochs", "8", "--trainer.log_every_n_steps", "1", "--trainer.accelerator", "cpu"),
    *("--model.fusion.cca_dim", "2", "--model.fusion.dropout", "0", "--data.loader.workers", "0"),
    *("--trainer.enable_progress_bar", "false"),
    # AdamW would make a large difference of a rounding error where a gradient is almost zero.
    *("--model.optimizer", "torch.optim.SGD", "--model.optimizer.lr", "0.01"),
]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


class Pair:
    """Two hosts that run a fit together.

    Args:
        alpha: Host of rank 0.
        beta: Host of rank 1.
        folder: Folder for runs, logs and the feature cache.
    """

    def __init__(self, alpha: Host, beta: Host, folder: Path) -> None:
        self.hosts = alpha, beta
        self.folder = folder
        self.environment = {**os.environ, "OMP_NUM_THREADS": "1", "XDG_CACHE_HOME": str(folder / "cache")}
        self.environment |= {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "PATH": f"{BIN}:{os.environ['PATH']}"}

    def start(self, name: str, *flags: str) -> list[Any]:
        """Start a fit with one process on each host, and return both torchruns."""
        started = []
        for rank, host in enumerate(self.hosts):
            where = ["--nnodes=2", "--nproc-per-node=1", f"--node-rank={rank}", "--master-addr=alpha"]
            command = [*where, "--master-port=29500", "--no-python", "robusttune", *FIT, *self.run(name)]
            ranks = ["--trainer.num_nodes=2", "--trainer.devices=1", "--trainer.strategy=ddp", "--data.batch_size=16"]
            command = [str(BIN / "torchrun"), *command, *ranks, *flags]
            started.append(host.start(command, self.log(host, name), self.environment))
        return started

    def fit(self, name: str, *flags: str) -> Path:
        """Fit on both hosts, and return the folder of the run."""
        codes = [process.wait(600) for process in self.start(name, *flags)]
        assert codes == [0, 0], "\n".join(self.log(host, name).read_text() for host in self.hosts)
        return self.folder / name / "0"

    def run(self, name: str) -> list[str]:
        """Return the flags that name a run."""
        return ["--run_root", str(self.folder), "--name", name]

    def log(self, host: Host, name: str) -> Path:
        """Return the file with what a fit printed on a host."""
        return self.folder / f"{name}-{host.name}.log"

    def wait_for_checkpoint(self, name: str) -> None:
        """Wait until a fit has written a checkpoint."""
        path = self.folder / name / "0/checkpoints/last.ckpt"
        until(path.is_file, 600)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    reason = unavailable()
    if reason is not None:
        pytest.skip(reason)
    with two_hosts() as (alpha, beta, _):
        yield Pair(alpha, beta, tmp_path_factory.mktemp("hosts"))


@pytest.fixture(scope="module")
def undisturbed(pair: Pair) -> Path:
    return pair.fit("undisturbed")


def until(holds: Callable[[], bool], seconds: float) -> None:
    """Wait until a condition holds."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it does not come"
        time.sleep(0.05)


def logged(folder: Path) -> list[dict[str, float]]:
    """Return the rows of a run's metrics.csv."""
    with (folder / "metrics.csv").open() as file:
        return [{name: float(value) for name, value in row.items() if value} for row in csv.DictReader(file)]


def errors(log: str) -> list[str]:
    """Return the sentences with which a command has ended."""
    return [line for line in log.splitlines() if line.startswith("robusttune: error: ")]


def test_losses_and_metrics_are_those_of_one_process(pair: Pair, undisturbed: Path) -> None:
    """Sums of floats in another order differ in the last digit. Each step multiplies the difference, up to a limit.

    Only the correlation of shuffled pairs differs at once, which are shuffled in the order that a rank has them in.
    """
    command = ["robusttune", *FIT, *pair.run("one"), "--trainer.devices=1", "--data.batch_size=32"]
    subprocess.run(command, env=pair.environment, check=True, cwd=ROOT, capture_output=True)
    one, two = (logged(folder) for folder in (pair.folder / "one/0", undisturbed))
    assert [row.keys() for row in two] == [row.keys() for row in one]
    for name, count, first, later in (("train/loss", 80, 1e-5, 1e-2), ("val/mean/loss", 8, 1e-2, 1e-2)):
        found, expected = ([row[name] for row in rows if name in row] for rows in (two, one))
        assert len(found) == count
        assert found[:5] == pytest.approx(expected[:5], rel=first)
        assert found == pytest.approx(expected, rel=later)


@pytest.mark.parametrize("lost", [pytest.param(0, marks=pytest.mark.exhaustive), 1], ids=["first", "second"])
def test_a_killed_host_ends_the_other_and_the_run_goes_on(pair: Pair, undisturbed: Path, lost: int) -> None:
    name = f"killed{lost}"
    processes = pair.start(name)
    pair.wait_for_checkpoint(name)
    begun = time.monotonic()
    pair.hosts[lost].kill()
    assert processes[1 - lost].wait(60) == 1
    print(f"host {lost} killed: the other ended after {time.monotonic() - begun:.1f} s")
    log = pair.log(pair.hosts[1 - lost], name).read_text()
    sentence = f"lost rank {lost} on host {pair.hosts[lost].name} (the connection is closed): "
    assert len(errors(log)) == 1, log
    assert sentence in errors(log)[0]
    assert "[rank" not in log.partition(sentence)[2]  # torch's mark in front of tracebacks
    assert differences(pair.fit(name, "--resume=auto"), undisturbed) == []


def test_an_error_of_one_ends_the_other(pair: Pair) -> None:
    """Not by the error of gloo, which only says that a connection is closed."""
    pair.environment["AT_STEP"] = "4"
    processes = pair.start("error", "--trainer.callbacks+=interrupting.LastRankFails")
    assert [process.wait(600) for process in processes] == [1, 1]
    found = [errors(pair.log(host, "error").read_text()) for host in pair.hosts]
    assert found == [
        ["robusttune: error: rank 1 on host beta has ended: a page of the atlas is torn: mend it"],
        ["robusttune: error: a page of the atlas is torn: mend it"],
    ]


def test_a_link_that_goes_down_ends_both(pair: Pair) -> None:
    processes = pair.start("link")
    pair.wait_for_checkpoint("link")
    begun = time.monotonic()
    pair.hosts[1].connect(up=False)
    try:
        for rank, process in enumerate(processes):
            assert process.wait(LOST_AFTER + 60) == 1
            print(f"link down: host {rank} ended after {time.monotonic() - begun:.1f} s")
    finally:
        pair.hosts[1].connect(up=True)
    for rank, host in enumerate(pair.hosts):
        log = pair.log(host, "link").read_text()
        assert len(errors(log)) == 1, log
        assert f"lost rank {1 - rank} on host {pair.hosts[1 - rank].name} (no sign of life for 6" in errors(log)[0]
