"""The shipped batch file on two nodes of a real SLURM, each a host of its own: `make test-slurm`."""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from same_run import differences
from two_hosts import Host, two_hosts, unavailable

from slurm import cluster
from slurm.test_slurm import Slurm

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(1800)]
NODES = ("--nodes=2", "--time=60")  # of 60 minutes, the last five are announced by a signal
ENDED_WITHIN = 900  # seconds
LOST_WITHIN = {"killed": 30, "link": 120}  # seconds


class Cluster(NamedTuple):
    """Two nodes, and the machine of the controller, from which jobs are submitted."""

    slurm: Slurm
    nodes: tuple[Host, Host]

    def submit(self, name: str) -> str:
        """Submit a fit of more epochs, with one process on each node, and return the number of its job."""
        flags = [*self.slurm.fit(name), "--trainer.max_epochs", "8"]
        return self.slurm.submit(*flags, tasks=1, where=(*NODES, f"--output={self.slurm.folder}/{name}.log"))

    def wait_for_checkpoint(self, name: str) -> None:
        """Wait until a fit has written a checkpoint."""
        path = self.slurm.folder / name / "0/checkpoints/last.ckpt"
        self.slurm.wait(lambda: "written" if path.is_file() else "", 600)

    def log(self, name: str) -> str:
        """Return what a job has printed."""
        return (self.slurm.folder / f"{name}.log").read_text()


@pytest.fixture(scope="module")
def two_nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    if reason := unavailable():
        pytest.skip(reason)
    if not cluster.installed():
        pytest.skip("the packages slurm-wlm and munge are not there, and cannot be installed")
    folder = tmp_path_factory.mktemp("two_nodes")
    daemons = Path(tempfile.mkdtemp(prefix="slurm"))  # munge wants others to have access to all folders above
    with two_hosts() as (alpha, beta, switch):
        try:
            environment = cluster.up(daemons, (alpha, beta), switch)
            environment |= {"OMP_NUM_THREADS": "1", "XDG_CACHE_HOME": str(folder / "cache")}
            environment["PYTHONPATH"] = str(Path(__file__).parents[2])
            environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
            yield Cluster(Slurm(environment, folder, switch), (alpha, beta))
        finally:
            cluster.down(daemons, switch)
            shutil.rmtree(daemons, ignore_errors=True)


@pytest.fixture(scope="module")
def undisturbed(two_nodes: Cluster) -> Path:
    """Return the folder of a run that nothing disturbs."""
    assert two_nodes.slurm.ended(two_nodes.submit("undisturbed"), ENDED_WITHIN) == "COMPLETED", two_nodes.slurm.log()
    assert "MEMBER: 2/2" in two_nodes.slurm.log()
    return two_nodes.slurm.folder / "undisturbed/0"


@pytest.mark.exhaustive
def test_a_signal_saves_and_requeues(two_nodes: Cluster, undisturbed: Path) -> None:
    job = two_nodes.submit("signal")
    two_nodes.wait_for_checkpoint("signal")
    two_nodes.slurm.call("scancel", "--signal=USR1", job)
    assert two_nodes.slurm.ended(job, ENDED_WITHIN) == "COMPLETED", two_nodes.slurm.log()
    assert two_nodes.slurm.state(job)[1] == 1
    assert differences(two_nodes.slurm.folder / "signal/0", undisturbed) == []


@pytest.mark.parametrize("lost", [1, pytest.param(0, marks=pytest.mark.exhaustive)], ids=["second", "first"])
@pytest.mark.parametrize("how", ["killed", pytest.param("link", marks=pytest.mark.exhaustive)])
def test_a_lost_node_requeues_the_job_which_goes_on(two_nodes: Cluster, undisturbed: Path, how: str, lost: int) -> None:
    """One sentence names the node. Once it is back, the job continues, and ends with the same bits.

    The first node writes the log, so the sentence about its own death is lost. When a link is back, the log may get the
    sentence of the other half, too.
    """
    name, node = f"{how}{lost}", two_nodes.nodes[lost]
    job = two_nodes.submit(name)
    two_nodes.wait_for_checkpoint(name)
    begun = time.monotonic()
    if how == "killed":
        node.kill()
    else:
        node.connect(up=False)
    try:
        two_nodes.slurm.wait(lambda: "requeued" if two_nodes.slurm.state(job)[1] == 1 else "", LOST_WITHIN[how])
        print(f"{name}: the job was requeued after {time.monotonic() - begun:.1f} s")
    finally:
        if how == "killed":
            cluster.boot(node, two_nodes.slurm.environment)
        else:
            node.connect(up=True)
    assert two_nodes.slurm.ended(job, ENDED_WITHIN) == "COMPLETED", two_nodes.slurm.log()
    print(f"{name}: the job was complete after {time.monotonic() - begun:.1f} s")
    if lost == 1:
        printed = [line for line in two_nodes.log(name).splitlines() if line.startswith("robusttune: error: ")]
        assert len(printed) == 1 or (how == "link" and len(printed) == 2)
        assert printed[0].startswith(f"robusttune: error: lost rank 1 on host {node.name} (")
        assert {line.partition("): ")[2] for line in printed} == {
            f"SLURM job {job} is requeued, and continues from its last checkpoint"
        }
    assert "Traceback" not in two_nodes.log(name)
    assert two_nodes.slurm.state(job)[1] == 1
    assert [path.name for path in (two_nodes.slurm.folder / name).iterdir()] == ["0"]
    assert differences(two_nodes.slurm.folder / name / "0", undisturbed) == []
