"""Submission of a protocol's runs as a SLURM job array, through the batch file that comes with robusttune."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Sequence
from pathlib import Path

from robusttune.errors import RobustTuneError
from robusttune.escaping import shell
from robusttune.packaged_configs import find_packaged
from robusttune.paths import atomic_write
from robusttune.protocols.matrix import PlannedRun

BATCH_FILE = "slurm/protocol.sbatch"


def submit(runs: Sequence[PlannedRun], folder: Path, options: str, at_once: int | None, args: Sequence[str]) -> str:
    """Submit runs as an array with one member each.

    Args:
        runs: Runs to submit, at least one.
        folder: Folder of the runs of the protocol. ``slurm`` in it gets the list of the runs, and the output of jobs.
        options: Options of ``sbatch``, as a shell reads them.
        at_once: Number of members that SLURM may run at a time; None for all.
        args: Arguments of ``robusttune protocol run`` that all members share.

    Returns:
        Id of the job.

    Raises:
        RobustTuneError: ``sbatch`` is missing, or refuses the job.
    """
    logs = folder.absolute() / "slurm"
    logs.mkdir(parents=True, exist_ok=True)
    # A list that a waiting job reads must not change, so each submission has its own.
    runs_file = logs / f"runs_{len([*logs.glob('runs_*.txt')])}.txt"
    with atomic_write(runs_file) as partial:
        partial.write_text("".join(f"{_labels(run)}\n" for run in runs), encoding="utf-8")
    array = f"--array=1-{len(runs)}" + (f"%{at_once}" if at_once is not None else "")
    command = ["sbatch", "--parsable", f"--output={logs}/%A_%a.log", array, *shlex.split(options)]
    try:
        done = subprocess.run(
            [*command, str(find_packaged(BATCH_FILE)), str(runs_file), *args],
            capture_output=True,
            text=True,
            check=False,
        )
    except FileNotFoundError:
        raise RobustTuneError(
            "sbatch is not installed: give --slurm on a login node of a cluster, or leave it out"
        ) from None
    if done.returncode:
        raise RobustTuneError(f"sbatch refuses the job ({' '.join(done.stderr.split()):.300}): correct --slurm=...")
    return done.stdout.strip().partition(";")[0]


def _labels(run: PlannedRun) -> str:
    return " ".join(shell(f"{axis}={label}") for axis, label in run.labels.items())
