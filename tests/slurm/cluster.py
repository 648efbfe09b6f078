"""A SLURM cluster on this machine for tests: Debian's packages, one node, on loopback, no root but to install them.

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
from collections.abc import Callable
from pathlib import Path

PROGRAMS = ("slurmctld", "slurmd", "srun", "sbatch", "munged", "mungekey")
DAEMONS = ("slurmd", "slurmctld", "munged")
CONFIGURATION = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
SlurmctldPort={port}
MailProg=/bin/true
CommunicationParameters={bind}
AuthType=auth/munge
# How long a requeued job waits at least is cred_expire, too; it is two minutes by default.
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
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
# A node by its address: what takes a host from SLURM_NODELIST can connect to it.
NodeName=127.0.0.1 NodeHostname={host} NodeAddr=127.0.0.1 Port={node_port} CPUs=4 RealMemory={memory} Gres=gpu:4
PartitionName=test Nodes=ALL Default=YES MaxTime=INFINITE State=UP OverSubscribe=NO
"""


def installed() -> bool:
    """Whether the packages are there; as root they are installed if they can be had."""
    if not all(map(_program, PROGRAMS)) and os.geteuid() == 0 and shutil.which("apt-get"):
        _install()
    return all(map(_program, PROGRAMS))


def up(folder: Path) -> dict[str, str]:
    """Start the cluster, in place of an earlier one in the folder. Returns the environment to use it in."""
    down(folder)
    shutil.rmtree(folder, ignore_errors=True)
    for name in ("state", "spool"):
        (folder / name).mkdir(parents=True)
    folder.chmod(0o755)
    host = socket.gethostname().split(".")[0]
    loopback = socket.gethostbyname(host) == "127.0.0.1"  # daemons bind to their host's address or to all there are
    port = 6000 + 2 * (os.getpid() % 4000)  # of two; Lightning's rendezvous takes 15000 to 24999
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20
    settings = CONFIGURATION.format(
        folder=folder,
        host=host,
        user=subprocess.check_output(["id", "-un"], text=True).strip(),
        port=port,
        node_port=port + 1,
        bind="NoCtldInAddrAny,NoInAddrAny" if loopback else "",
        first_job=1000 + os.getpid() % 8000,  # whose last digits are Lightning's port
        memory=memory,
    )
    (folder / "slurm.conf").write_text(settings.replace("CommunicationParameters=\n", ""))
    for number in range(4):
        (folder / f"gpu{number}").touch()
    (folder / "gres.conf").write_text(f"Name=gpu File={folder}/gpu[0-3]\n")
    # A cgroup plugin is loaded in any case; this one touches nothing, while another might want systemd.
    (folder / "cgroup.conf").write_text(
        f"CgroupPlugin=cgroup/v1\nCgroupAutomount=no\nCgroupMountpoint={folder}/no-cgroup\n"
    )
    (folder / "env.sh").write_text(f"export SLURM_CONF='{folder}/slurm.conf'\n")
    environment = {**os.environ, "SLURM_CONF": f"{folder}/slurm.conf"}
    munge = [f"--socket={folder}/munge.socket", f"--key-file={folder}/munge.key", f"--pid-file={folder}/munged.pid"]
    munge += [f"--seed-file={folder}/munged.seed", f"--log-file={folder}/munged.log"]
    for command in (
        ["mungekey", "--create", f"--keyfile={folder}/munge.key"],
        ["munged", *munge],
        ["slurmctld", "-c"],
        ["slurmd", "-N", "127.0.0.1"],
    ):
        subprocess.run([_program(command[0]), *command[1:]], env=environment, check=True)
    for _ in range(150):
        if _said(["sinfo", "-h", "-o", "%t"], environment).strip() == "idle":
            return environment
        time.sleep(0.2)
    raise RuntimeError(f"the node did not become idle: see {folder}/*.log")


def down(folder: Path) -> None:
    """Cancel the cluster's jobs, then end what `up` has started."""
    environment = {**os.environ, "SLURM_CONF": f"{folder}/slurm.conf"}
    if _pid(folder, "slurmctld") is not None:
        queue = ["squeue", "-h", "-o", "%A"]
        for job in set(_said(queue, environment).split()):
            subprocess.run(["scancel", job], env=environment, check=False)
        _wait(lambda: not _said(queue, environment))
    for name in DAEMONS:
        pid = _pid(folder, name)
        if pid is not None:
            os.kill(pid, signal.SIGTERM)
            _wait(lambda name=name: _pid(folder, name) is None)


def _pid(folder: Path, name: str) -> int | None:
    """Of a daemon that runs; the number may belong to another process by now."""
    try:
        pid = int((folder / f"{name}.pid").read_text())
        return pid if Path(f"/proc/{pid}/comm").read_text().strip() == name else None
    except (OSError, ValueError):
        return None


def _said(command: list[str], environment: dict[str, str]) -> str:
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False).stdout


def _wait(done: Callable[[], bool]) -> None:
    for _ in range(100):
        if done():
            return
        time.sleep(0.2)


def _program(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


def _install() -> None:
    """Debian's packages, without starting their daemons."""
    policy = Path("/usr/sbin/policy-rc.d")
    made = not policy.exists()
    if made:
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
        if made:
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
