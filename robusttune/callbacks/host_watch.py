"""The end of a run on several hosts when one of them is lost: one sentence within a minute, and no hanging process."""

from __future__ import annotations

import os
import secrets
import socket
import sys
import time
from pathlib import Path

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn

from robusttune import heartbeat
from robusttune.callbacks.last_checkpoint import LastCheckpoint
from robusttune.errors import RobustTuneError
from robusttune.heartbeat import LOST_AFTER, Ending, Heartbeat, is_connection_error
from robusttune.interruption import Stopped, kill_workers, requeue, slurm_job, was_requeued
from robusttune.ranks import any_over_ranks, on_rank_zero, rank, world_size
from robusttune.streams import print_error

GRACE = 10.0  # Seconds for a rank to end by its own error, once another has. Errors such as a signal are those of all.
AFTER_REPORT = 2.0  # Seconds that silent ranks live longer: when one has ended, a launcher kills the others.


class HostWatch(Callback):
    """A callback that ends a run on several hosts with one sentence if one of its processes is lost.

    Processes of a single host are watched by whatever started them: Lightning, torchrun or srun. A process that waits
    in a collective operation cannot raise an error, so it is ended by ``os._exit``. In a SLURM job, a fit that has
    written a checkpoint is requeued.

    Example:
        >>> HostWatch().state_dict()  # a checkpoint does not depend on the hosts
        {}
    """

    def __init__(self) -> None:
        self._heartbeat: Heartbeat | None = None
        self._hosts: list[str] = []
        self._checkpoint: Path | None = None
        self._saved_before: float | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Connect the ranks, if there are several hosts. All ranks must call this."""
        if trainer.num_nodes == 1 or world_size() == 1:
            return
        try:
            peers, problem = self._connect(), ""
        except OSError as error:
            peers, problem = {}, str(error)
        if any_over_ranks(bool(problem)):
            for connection in peers.values():
                connection.close()
            rank_zero_warn(
                f"the hosts do not watch each other, since they cannot connect ({problem or 'see the other hosts'}): "
                "allow connections between them on all ports, or a host that is lost is noticed late"
            )
            return
        self._trains = stage == "fit"
        self._heartbeat = Heartbeat(rank(), peers, self._end)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note when the checkpoint to resume from was written."""
        last = next((each for each in trainer.callbacks if isinstance(each, LastCheckpoint)), None)  # type: ignore[attr-defined]
        if last is not None:
            self._checkpoint = Path(str(last.dirpath)) / "last.ckpt"
            self._saved_before = _written(self._checkpoint)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Tell the other ranks about an error; end this process if the error is that another rank is lost."""
        if self._heartbeat is None:
            return
        if is_connection_error(exception):
            self._heartbeat.suspected.set()
            self._heartbeat.wait(LOST_AFTER + GRACE)  # Its thread ends this process.
        self._heartbeat.stop(_reason(exception))
        self._heartbeat = None

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Stop the watch, since the work is done."""
        if self._heartbeat is not None:
            self._heartbeat.stop()
            self._heartbeat = None

    def _connect(self) -> dict[int, socket.socket]:
        """Connect this rank to rank 0, or rank 0 to all others."""
        server: list[socket.socket] = []

        def open_port(names: list[str]) -> tuple[list[str], int, str]:
            """Open a port on rank 0."""
            opened, port = heartbeat.listen(len(names))
            server.append(opened)
            return names, port, secrets.token_hex(16)

        self._hosts, port, token = on_rank_zero(os.uname().nodename, open_port)
        if server:
            return heartbeat.accept(server[0], len(self._hosts) - 1, token)
        return heartbeat.connect(os.environ["MASTER_ADDR"], port, rank(), token)  # Lightning sets the variable.

    def _end(self, ending: Ending) -> None:
        """End this process since another one has ended, unless its work was done.

        This runs in the thread of the heartbeat.
        """
        beat = self._heartbeat
        if not ending.reason or beat is None:
            return
        give_up = time.monotonic() + GRACE
        while not ending.lost and not beat.suspected.is_set() and time.monotonic() < give_up:
            if beat.stopped:
                return
            time.sleep(0.1)
        reports = self._reporter(ending) == rank()
        if reports:
            print_error(f"{self._sentence(ending)}: {self._remedy(ending)}" if ending.lost else self._sentence(ending))
        else:
            time.sleep(AFTER_REPORT)
        kill_workers()
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(1 if reports else 0)

    def _reporter(self, ending: Ending) -> int:
        """Return the rank that reports for this process: the first one alive of the job or, without SLURM, of its host.

        In a SLURM job, all ranks write to one file. If rank 0 is lost, so may be all ranks of its host.
        """
        gone = {*ending.ranks}
        if slurm_job() is None:
            group = [each for each, host in enumerate(self._hosts) if host == self._hosts[rank()]]
        elif 0 in gone and ending.lost:
            group = [each for each, host in enumerate(self._hosts) if host != self._hosts[0]]
        else:
            group = [*range(len(self._hosts))]
        return next((each for each in group if each not in gone), rank())

    def _sentence(self, ending: Ending) -> str:
        """Return a sentence that names the ended ranks, their hosts and the reason."""
        by_host: dict[str, list[str]] = {}
        for each in ending.ranks:
            by_host.setdefault(self._hosts[each], []).append(str(each))
        who = " and ".join(
            f"rank{'s' * (len(ranks) > 1)} {', '.join(ranks)} on host {host}" for host, ranks in by_host.items()
        )
        if ending.lost:
            return f"lost {who} ({ending.reason})"
        return f"{who} has ended: {ending.reason}"

    def _remedy(self, ending: Ending) -> str:
        """Requeue the SLURM job of a fit, and return the remedy for the user."""
        job = slurm_job()
        again = f"start the command again on all hosts{' with --resume auto' if self._trains else ''}"
        one = len({self._hosts[each] for each in ending.ranks}) == 1
        look = f"check {'that host' if one else 'those hosts'} and the network"
        if job is None or not self._trains:
            return f"{look}, then {again}"
        if was_requeued() and not self._has_progressed():
            return f"SLURM job {job} is not requeued again, since it has saved nothing since the last time; {look}"
        problem = requeue(job)
        if problem is None or "pending" in problem:  # SLURM or the other half of a cut network was faster.
            return f"SLURM job {job} is requeued, and continues from its last checkpoint"
        return f"{look}, then {again}, since SLURM job {job} cannot be requeued ({problem})"

    def _has_progressed(self) -> bool:
        """Return whether this process has seen a checkpoint being written."""
        return self._checkpoint is not None and _written(self._checkpoint) != self._saved_before


def _written(path: Path) -> float | None:
    """Return when a file was written, or None if it does not exist."""
    return path.stat().st_mtime if path.is_file() else None


def _reason(exception: BaseException) -> str:
    """Describe an error of this rank for the others."""
    if isinstance(exception, RobustTuneError):
        return str(exception)
    if isinstance(exception, Stopped | KeyboardInterrupt):
        return f"{exception.signal.name if isinstance(exception, Stopped) else 'Ctrl-C'} has ended it"
    first = (str(exception).splitlines() or [""])[0]
    return f"{type(exception).__name__}: {first:.300}; its own output says more"
