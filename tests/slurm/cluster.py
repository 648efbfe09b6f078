"""A SLURM cluster on this machine, for tests; only the installation of the packages and several hosts need root.

python tests/slurm/cluster.py up FOLDER     # then: source FOLDER/env.sh
python tests/slurm/cluster.py down FOLDER
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

PROGRAMS = ("slurmctld", "slurmd", "srun", "sbatch", "munged", "mungekey")
DAEMONS = ("slurmd", "slurmctld", "munged")
CONFIGURATION = """
ClusterName=test
SlurmctldHost={controller}
SlurmUser={user}
SlurmdUser={user}
SlurmctldPort={port}
MailProg=/bin/true
CommunicationParameters={bind}
AuthType=auth/munge
# A requeued job waits at least cred_expire seconds, which is two minutes by default.
AuthInfo=socket={folder}/munge.socket,cred_expire=5
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
GresTypes=gpu
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,batch_sched_delay=0,bf_interval=1
KillWait=5
FirstJobId={first_job}
JobRequeue=1
ReturnToService=2
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
{nodes}
PartitionName=test Nodes=ALL Default=YES MaxTime=INFINITE State=UP OverSubscribe=NO
"""


class Machine(Protocol):
    """A computer of the cluster, such as a `two_hosts.Host`."""

    @property
    def name(self) -> str:
        """Name that the other machines resolve."""

    @property
    def address(self) -> str:
        """IPv4 address."""

    def inside(self, command: Sequence[str]) -> list[str]:
        """Return the command that runs a command on the machine."""


class ThisMachine(NamedTuple):
    """This machine as the only one, named by its address, since programs connect to the hosts in SLURM_NODELIST."""

    name: str = "127.0.0.1"
    address: str = "127.0.0.1"

    def inside(self, command: Sequence[str]) -> list[str]:
        """Return the command itself."""
        return [*command]


HERE = ThisMachine()


def installed() -> bool:
    """Return whether SLURM and MUNGE are installed; as root, try to install their Debian packages first."""
    if not all(map(_program, PROGRAMS)) and os.geteuid() == 0 and shutil.which("apt-get"):
        _install()
    return all(map(_program, PROGRAMS))


def up(folder: Path, nodes: Sequence[Machine] = (HERE,), controller: Machine = HERE) -> dict[str, str]:
    """Start a cluster and return the environment variables for its commands.

    An earlier cluster in the folder is stopped and replaced.

    Args:
        folder: Folder for the configuration, state and logs.
        nodes: Machines that run jobs.
        controller: Machine of the controller, on which the commands must be run, too.

    Raises:
        RuntimeError: The nodes did not become idle within 30 seconds.
    """
    down(folder, controller)
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "state").mkdir(parents=True)
    folder.chmod(0o755)
    host = socket.gethostname().split(".")[0]
    loopback = socket.gethostbyname(host) == "127.0.0.1"  # daemons bind to the host's address or to all addresses
    port = 6000 + 2 * (os.getpid() % 4000)  # first of two ports, outside of Lightning's range of 15000 to 24999
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20
    (folder / "spool").mkdir()
    lines = []
    for node in nodes:
        (folder / "spool" / node.name).mkdir()
        where = f"NodeHostname={host if node is HERE else node.name} NodeAddr={node.address}"
        lines.append(f"NodeName={node.name} {where} Port={port + 1} CPUs=4 RealMemory={memory} Gres=gpu:4")
    settings = CONFIGURATION.format(
        folder=folder,
        controller=f"{host if controller is HERE else controller.name}({controller.address})",
        user=subprocess.check_output(["id", "-un"], text=True).strip(),
        port=port,
        nodes="\n".join(lines),
        bind="NoCtldInAddrAny,NoInAddrAny" if loopback and controller is HERE else "",
        first_job=1000 + os.getpid() % 8000,  # Lightning derives its port from the last digits of the job's number
    )
    (folder / "slurm.conf").write_text(settings.replace("CommunicationParameters=\n", ""))
    for number in range(4):
        (folder / f"gpu{number}").touch()
    (folder / "gres.conf").write_text(f"Name=gpu File={folder}/gpu[0-3]\n")
    # SLURM always loads a cgroup plugin. This one changes nothing, while others may need systemd.
    (folder / "cgroup.conf").write_text(
        f"CgroupPlugin=cgroup/v1\nCgroupAutomount=no\nCgroupMountpoint={folder}/no-cgroup\n"
    )
    (folder / "env.sh").write_text(f"export SLURM_CONF='{folder}/slurm.conf'\n")
    environment = {**os.environ, "SLURM_CONF": f"{folder}/slurm.conf"}
    munge = [f"--socket={folder}/munge.socket", f"--key-file={folder}/munge.key", f"--pid-file={folder}/munged.pid"]
    munge += [f"--seed-file={folder}/munged.seed", f"--log-file={folder}/munged.log"]
    _start(["mungekey", "--create", f"--keyfile={folder}/munge.key"], environment)
    _start(["munged", *munge], environment)
    _start(["slurmctld", "-c"], environment, controller)
    for node in nodes:
        boot(node, environment)
    for _ in range(150):
        if _output(["sinfo", "-h", "-o", "%t"], environment, controller).split() == ["idle"]:
            return environment
        time.sleep(0.2)
    raise RuntimeError(f"the nodes did not become idle: see {folder}/*.log")


def boot(node: Machine, environment: dict[str, str]) -> None:
    """Start the daemon of a node, also after the node was lost."""
    _start(["slurmd", "-N", node.name], environment, node)


def down(folder: Path, controller: Machine = HERE) -> None:
    """Cancel the cluster's jobs, then end the daemons that `up` has started."""
    environment = {**os.environ, "SLURM_CONF": f"{folder}/slurm.conf"}
    if _pid(folder, "slurmctld") is not None:
        queue = ["squeue", "-h", "-o", "%A"]
        for job in set(_output(queue, environment, controller).split()):
            subprocess.run(controller.inside(["scancel", job]), env=environment, check=False)
        _wait(lambda: not _output(queue, environment, controller))
    for file in sorted(folder.glob("*.pid"), key=lambda file: DAEMONS.index(file.stem.partition("-")[0])):
        pid = _pid(folder, file.stem)
        if pid is not None:
            os.kill(pid, signal.SIGTERM)
            _wait(lambda file=file: _pid(folder, file.stem) is None)  # type: ignore[misc]


def _pid(folder: Path, name: str) -> int | None:
    """Return the process id of a running daemon, or None.

    The name of the process is checked, because an old id may belong to another process by now.
    """
    try:
        pid = int((folder / f"{name}.pid").read_text())
        return pid if Path(f"/proc/{pid}/comm").read_text().strip() == name.partition("-")[0] else None
    except (OSError, ValueError):
        return None


def _start(command: list[str], environment: dict[str, str], machine: Machine = HERE) -> None:
    """Run the program that starts a daemon on a machine."""
    subprocess.run(machine.inside([_program(command[0]) or command[0], *command[1:]]), env=environment, check=True)


def _output(command: list[str], environment: dict[str, str], controller: Machine) -> str:
    return subprocess.run(
        controller.inside(command), env=environment, capture_output=True, text=True, check=False
    ).stdout


def _wait(done: Callable[[], bool]) -> None:
    """Wait up to 20 seconds until a condition holds."""
    for _ in range(100):
        if done():
            return
        time.sleep(0.2)


def _program(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


def _install() -> None:
    """Install the Debian packages without starting their daemons."""
    policy = Path("/usr/sbin/policy-rc.d")  # Debian's hook that can forbid to start daemons after an installation
    created = not policy.exists()
    if created:
        policy.write_text("#!/bin/sh\nexit 101\n")
        policy.chmod(0o755)
    apt = ["apt-get", "-o", "DPkg::Lock::Timeout=120", "-q"]
    install = [*apt, "install", "-y", "--no-install-recommends", "slurm-wlm", "munge"]
    settings = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    try:
        if subprocess.run(install, env=settings, capture_output=True, check=False).returncode:
            subprocess.run([*apt, "update"], capture_output=True, check=False)
            subprocess.run(install, env=settings, capture_output=True, check=False)
    finally:
        if created:
            policy.unlink()


if __name__ == "__main__":
    verb, folder = sys.argv[1], Path(sys.argv[2]).resolve()
    if verb == "down":
        down(folder)
    elif installed():
        up(folder)
        print(f"source {folder}/env.sh")
    else:
        sys.exit("the packages slurm-wlm and munge are not there, and cannot be installed")
