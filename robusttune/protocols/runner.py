"""The local runner: fits and tests as child processes, one after the other or several at once."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from robusttune.counting import counted
from robusttune.interruption import SAVE_AND_REQUEUE, requeue, slurm_job
from robusttune.protocols import locks
from robusttune.protocols.command_lines import data_root_flags
from robusttune.protocols.identity import IdentifiedRun
from robusttune.protocols.processes import Child
from robusttune.protocols.reading import read_state
from robusttune.protocols.records import FIT, Records, StepRecord, name_of_test
from robusttune.protocols.remaining import Duration, in_words, remaining_seconds
from robusttune.protocols.state import Progress, RunState
from robusttune.protocols.stopping import Stopping

POLL, RETRY = 0.05, 2.0  # seconds between looks at the children, and at runs of other processes
LOGGED = ("--trainer.enable_progress_bar=false",)  # the output goes to a file


@dataclass(frozen=True)
class Options:
    """Options of all runs.

    Attributes:
        folder: Folder of the runs of this protocol.
        data_root: Folder that replaces a leading ``data`` in paths of data, or None.
        parallel: Number of runs at a time, at least 1.
        environments: Environment variables of the runs, by their place among those that run at a time.
        waits: True to wait for runs that another process works on.
    """

    folder: Path
    data_root: str | None = None
    parallel: int = 1
    environments: Sequence[Mapping[str, str]] = ({},)
    waits: bool = True


class Active:
    """A run that this process works on. It holds the lock of the run.

    Args:
        run: The run.
        options: Options of all runs.
        lock: Open file that holds the lock.
        place: Place among the runs at a time.
    """

    def __init__(self, run: IdentifiedRun, options: Options, lock: IO[str], place: int) -> None:
        self.run, self.place, self.began = run, place, time.monotonic()
        self.child: Child | None = None
        self.steps = 0  # number of commands that were started
        self._options, self._lock = options, lock
        self._home = options.folder / run.name
        self._records = Records.read(self._home)
        self._step = FIT
        self._tried: set[str] = set()

    @property
    def state(self) -> RunState:
        """Return the state of the run."""
        return read_state(self.run, self._home, self._options.data_root, is_own=True)

    def start_next(self) -> bool:
        """Start the next command; return False if there is none."""
        state = self.state
        if state.fit.progress is not Progress.DONE:
            return state.fit.progress is not Progress.DATA_MISSING and FIT not in self._tried and self._fit()
        assert state.folder is not None
        for index, step in enumerate(state.tests):
            name = name_of_test(self.run.run.tests[index].report)
            if step.progress in (Progress.NOT_STARTED, Progress.FAILED) and name not in self._tried:
                return self._test(index, state.folder)
        return False

    def is_running(self, is_stopping: bool) -> bool:
        """Look at the command, and record its end.

        Args:
            is_stopping: True if this process has asked the command to end.
        """
        assert self.child is not None
        status = self.child.poll()
        if status is None:
            return True
        seconds, child, self.child = self.child.seconds, self.child, None
        if not is_stopping:
            failed = None if status == 0 and self._is_done() else child.sentence()
            self._records.steps[self._step].end(seconds, failed)
            self._records.write()
        return False

    def has_failed_since(self, time: float) -> bool:
        """Return whether a step has failed since then, in another process.

        Args:
            time: Seconds since 1970.
        """
        return any(step.failed is not None and (step.at or 0) > time for step in self._records.steps.values())

    def release(self) -> None:
        """Give the lock back."""
        self._lock.close()

    def _is_done(self) -> bool:
        state = self.state
        if self._step == FIT:
            return state.fit.progress is Progress.DONE
        names = [name_of_test(test.report) for test in self.run.run.tests]
        return state.tests[names.index(self._step)].progress is Progress.DONE

    def _fit(self) -> bool:
        flags = data_root_flags(self.run.fit.paths, self._options.data_root)
        where = [f"--run_root={self._options.folder}", f"--name={self.run.name}", "--resume=auto"]
        self._start(FIT, StepRecord(self.run.fit.identity), ["fit", *LOGGED, *self.run.fit.args, *flags, *where])
        return True

    def _test(self, index: int, folder: Path) -> bool:
        test, identified = self.run.run.tests[index], self.run.tests[index]
        # A report of another test must not count as that of this one.
        (folder / "report" / f"{test.report}.json").unlink(missing_ok=True)
        flags = data_root_flags(identified.paths, self._options.data_root)
        checkpoint = folder / "checkpoints" / f"{test.checkpoint}.ckpt"
        where = [f"--ckpt_path={checkpoint}", f"--report={test.report}"]
        record = StepRecord(identified.identity, folder.name)
        self._start(name_of_test(test.report), record, ["test", *LOGGED, *identified.args, *flags, *where])
        return True

    def _start(self, step: str, record: StepRecord, args: list[str]) -> None:
        self._step, self.steps = step, self.steps + 1
        self._tried.add(step)
        self._records.steps[step] = record
        self._records.write()
        log = self._home / f"{step.replace(' ', '_')}.log"
        self.child = Child(args, log, self._lock, self._options.environments[self.place])


@dataclass
class Runner:
    """A loop over runs.

    Attributes:
        runs: Runs of the protocol.
        options: Options of all runs.
        tell: Function that shows a line to the user.
        stopping: Signals that this process has received.
    """

    runs: Sequence[IdentifiedRun]
    options: Options
    tell: Callable[[str], None]
    stopping: Stopping
    _active: list[Active] = field(default_factory=list)

    def run(self) -> None:
        """Run everything that is not done, once. A run that fails does not stop the others."""
        self._began = time.time()
        self._open = [run for run in self.runs if has_work(self._state(run))]
        self._total, self._finished = len(self._open), list[Duration]()
        self._elsewhere: list[IdentifiedRun] = []  # runs that other processes work on
        retry_at = 0.0
        while self._active or self._open or self._elsewhere:
            if not self._active and self.stopping.requested and self._ends():
                return
            self._fill()
            if not self._active and not self._open and time.monotonic() >= retry_at:
                if not self.options.waits:
                    return
                if retry_at == 0.0 and self._elsewhere:
                    self.tell(f"waiting for {counted(len(self._elsewhere), 'run')} that other processes work on")
                self._open, self._elsewhere, retry_at = self._elsewhere, [], time.monotonic() + RETRY
            self.stopping.forward([active.child for active in self._active if active.child is not None])
            for active in [*self._active]:
                self._look_at(active)
            time.sleep(POLL)

    def _ends(self) -> bool:
        """Have SLURM requeue the job if its time is over; return False if it cannot, so that the runs go on."""
        job = slurm_job()
        if self.stopping.signal != SAVE_AND_REQUEUE or job is None:
            return True
        problem = requeue(job)
        if problem is None:
            return True
        self.tell(f"SLURM job {job} cannot be requeued ({problem}): the runs go on")
        self.stopping.clear()
        return False

    def _state(self, run: IdentifiedRun) -> RunState:
        return read_state(run, self.options.folder / run.name, self.options.data_root)

    def _fill(self) -> None:
        """Start runs until as many run as may run at a time."""
        while self._open and len(self._active) < self.options.parallel and not self.stopping.requested:
            run = self._open.pop(0)
            lock = locks.acquire(self.options.folder / run.name)
            if lock is None:
                self._elsewhere.append(run)
                continue
            place = min({*range(self.options.parallel)} - {active.place for active in self._active})
            active = Active(run, self.options, lock, place)
            if not active.has_failed_since(self._began) and active.start_next():
                self._active.append(active)
            else:  # Another process has finished it, or has tried it.
                active.release()
                self._total -= 1

    def _look_at(self, active: Active) -> None:
        """Start the next command of a run whose command has ended, or end the run."""
        if active.is_running(self.stopping.requested):
            return
        if not self.stopping.requested and active.start_next():
            return
        active.release()
        self._active.remove(active)
        if self.stopping.requested:
            self._open.insert(0, active.run)
            return
        seconds = time.monotonic() - active.began
        self._finished.append((active.run.run.labels, seconds))
        place, outcome = f"{len(self._finished)} of {self._total}", _outcome(active.state, seconds)
        self.tell(f"{place}: {active.run.run.slug} {outcome}{self._left()}")

    def _left(self) -> str:
        """Return the remaining time as the end of a line."""
        waiting = [run.run.labels for run in (*(active.run for active in self._active), *self._open)]
        if not waiting:
            return ""
        return f"; about {in_words(remaining_seconds(self._finished, waiting, self.options.parallel))} left"


def has_work(state: RunState) -> bool:
    """Return whether a run has a step that can be run: it is not done, and its data are there."""
    steps = [state.fit] if state.fit.progress is not Progress.DONE else state.tests
    return any(step.progress not in (Progress.DONE, Progress.DATA_MISSING) for step in steps)


def _outcome(state: RunState, seconds: float) -> str:
    failed = [reason for reason in state.reasons if state.progress is Progress.FAILED]
    duration = in_words(seconds)
    return f"has failed after {duration}: {failed[0]}" if failed else f"{state.progress} in {duration}"
