"""The search with Optuna, whose state is in a database: it can be stopped, continued, and joined by other processes."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

from robusttune.counting import counted
from robusttune.errors import RobustTuneError
from robusttune.evaluation.metric_names import LOWER_IS_BETTER
from robusttune.terminal import print_line
from robusttune.tuning.space import Choices, Space
from robusttune.tuning.trial_process import TrialProcess

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.trial import FrozenTrial

FAILURES = 3  # failed trials in a row that end the search
RANDOM_TRIALS = 10  # before the sampler models the results
UNPRUNED_TRIALS = 5  # that are finished before any is pruned
HEARTBEAT, GRACE = 5, 30  # seconds: a trial without a heartbeat for so long is given up, and tried again
FOLDER, PROCESS, PROBLEM, SECONDS = "folder", "process", "problem", "seconds"  # attributes of a trial
PRUNED = "pruned"


@dataclass
class Search:
    """A search for the settings with the best validation metric.

    Args:
        args: Arguments of ``robusttune fit`` that all trials share: configurations and flags.
        space: Settings to vary.
        monitor: Validation metric that judges a trial by its best validation; minimised if it is a loss or an error.
        out: Folder of the database and of the runs of all trials.
        key: Text that differs for other settings of the fit, and so separates searches in one folder and database.
        storage: URL of a database that Optuna can use; None for a file in ``out``.
        seed: Seed of the search.
    """

    args: Sequence[str]
    space: Space
    monitor: str
    out: Path
    key: str
    storage: str | None = None
    seed: int = 0
    _failed: list[str] = field(default_factory=list, init=False)

    def run(self, trials: int, parallel: int = 1) -> None:
        """Continue the search until it has a number of finished or pruned trials.

        Args:
            trials: Number of trials in all, with those of earlier calls.
            parallel: Number of trials that this process runs at once.

        Raises:
            RobustTuneError: The database cannot be used, or the last trials have failed.
        """
        from optuna.study import MaxTrialsCallback
        from optuna.trial import TrialState

        ended = (TrialState.COMPLETE, TrialState.PRUNED)
        study = self._open()
        with _quiet():
            self._retry_abandoned(study)
            left = trials - len(study.get_trials(deepcopy=False, states=ended))
            if left > 0:
                print_line(f"{counted(left, 'trial')} to go, in {self.out}")
                progress = _Progress(trials, left)
                callbacks: list[Any] = [MaxTrialsCallback(trials, states=ended), progress, self._stop_after_failures]
                study.optimize(self._trial, n_trials=None, n_jobs=parallel, callbacks=callbacks, catch=RobustTuneError)
        if len(self._failed) >= FAILURES:
            raise RobustTuneError(f"the last {counted(FAILURES, 'trial')} failed: {self._failed[-1]}")

    def trials(self) -> list[FrozenTrial]:
        """Return the finished trials, the best first."""
        from optuna.trial import TrialState

        study = self._open()
        found = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        return sorted(found, key=lambda trial: trial.value or 0.0, reverse=study.direction.name == "MAXIMIZE")

    def flags_of(self, trial: FrozenTrial) -> list[str]:
        """Return the values of a trial as flags of the command line."""
        return [f"--{name}={value}" for name, value in trial.params.items()]

    def _open(self) -> Study:
        """Open the database, or create it."""
        import optuna
        from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback

        self.out.mkdir(parents=True, exist_ok=True)
        url = self.storage or f"sqlite:///{self.out.resolve()}/trials.db"
        lower_is_better = self.monitor.endswith(LOWER_IS_BETTER)
        try:
            with _quiet():
                storage = RDBStorage(
                    url,
                    heartbeat_interval=HEARTBEAT,
                    grace_period=GRACE,
                    heartbeat_stale_trial_callback=RetryHeartbeatStaleTrialCallback(),
                )
                study = optuna.create_study(
                    storage=storage,
                    study_name=self._name(),
                    direction="minimize" if lower_is_better else "maximize",
                    pruner=optuna.pruners.MedianPruner(UNPRUNED_TRIALS, n_warmup_steps=1),
                    load_if_exists=True,
                )
        except Exception as error:  # of the database's driver
            reason = " ".join(str(error).split())
            raise RobustTuneError(f"the trials cannot be stored in {url} ({reason:.200}): correct --storage") from error
        # With the same seed, a search that goes on would draw its first random values again.
        seed = self.seed + len(study.get_trials(deepcopy=False))
        with _quiet():
            study.sampler = optuna.samplers.TPESampler(n_startup_trials=RANDOM_TRIALS, seed=seed, constant_liar=True)
        return study

    def _name(self) -> str:
        """Return the name of the search in its database, which differs for other settings, spaces and metrics."""
        return f"robusttune {_hash(self.key, self.monitor, repr(self.space))}"

    def _retry_abandoned(self, study: Study) -> None:
        """Queue the trials again that a process of this machine has left unfinished because it was killed."""
        from optuna.storages import RetryHeartbeatStaleTrialCallback
        from optuna.trial import TrialState

        for trial in study.get_trials(states=(TrialState.RUNNING,)):
            host, process = trial.user_attrs.get(PROCESS, (None, 0))
            if host == socket.gethostname() and not _is_alive(process):
                study.tell(trial.number, state=TrialState.FAIL)
                RetryHeartbeatStaleTrialCallback()(study, trial)

    def _trial(self, trial: Trial) -> float:
        """Train with the values of a trial, and return its best value.

        Raises:
            RobustTuneError: The fit has failed.
            TrialPruned: The values are worse than the median of the earlier trials.
        """
        import optuna

        begun = monotonic()
        trial.set_user_attr(PROCESS, (socket.gethostname(), os.getpid()))
        flags = [f"--{name}={self._suggest(trial, name)}" for name in self.space]
        process = TrialProcess(
            [*self.args, *flags], self.out / "runs", f"trial-{_hash(self._name(), *flags)}", self.monitor
        )
        best = max if trial.study.direction.name == "MAXIMIZE" else min
        values: list[float] = []
        try:
            for value in process.values():
                if isfinite(value):
                    values.append(value)
                    trial.report(value, len(values))
                if trial.should_prune():
                    raise optuna.TrialPruned
        except RobustTuneError as error:
            trial.set_user_attr(PROBLEM, str(error))
            raise
        finally:
            process.stop()
            trial.set_user_attr(FOLDER, str(process.folder))
            trial.set_user_attr(SECONDS, monotonic() - begun)
        if not values:
            trial.set_user_attr(PROBLEM, f"{self.monitor} was never a finite number")
            raise RobustTuneError(f"{self.monitor} was never a finite number")
        return best(values)

    def _suggest(self, trial: Trial, name: str) -> str:
        """Return the value of a setting in a trial, as a text of the command line."""
        values = self.space[name]
        if isinstance(values, Choices):
            return str(trial.suggest_categorical(name, values.texts))
        if values.is_integer:
            step = int(values.step or 1)
            return str(trial.suggest_int(name, int(values.low), int(values.high), log=values.log, step=step))
        return str(trial.suggest_float(name, values.low, values.high, log=values.log, step=values.step))

    def _stop_after_failures(self, study: Study, trial: FrozenTrial) -> None:
        """End the search when the last trials have all failed."""
        if trial.state.name == "FAIL":
            self._failed.append(trial.user_attrs.get(PROBLEM, "its process was ended"))
        else:
            self._failed.clear()
        if len(self._failed) >= FAILURES:
            study.stop()


class _Progress:
    """A callback of Optuna that prints one line a trial.

    Args:
        trials: Number of trials in all.
        left: Number of trials that are left at the start.
    """

    def __init__(self, trials: int, left: int) -> None:
        self.trials, self.left, self.begun, self.done = trials, left, monotonic(), 0

    def __call__(self, study: Study, trial: FrozenTrial) -> None:
        values = ", ".join(f"{name} {short(value)}" for name, value in trial.params.items())
        problem = trial.user_attrs.get(PROBLEM)
        if problem is not None:
            print_line(f"trial {trial.number}: failed: {problem} ({values})")
            return
        self.done += 1
        outcome = f"{trial.value:.4f}" if trial.state.name == "COMPLETE" else PRUNED
        minutes = (monotonic() - self.begun) / self.done * max(self.left - self.done, 0) / 60
        print_line(
            f"trial {trial.number}: {outcome} ({values}), {trial.user_attrs[SECONDS]:.0f} s; best {_best(study)}; "
            f"{self.trials - self.left + self.done} of {self.trials}, about {minutes:.0f} min left"
        )


def short(value: Any) -> str:
    """Return a value of a setting as a short text.

    Example:
        >>> short(0.0012520653814999472), short("[0, 1]")
        ('0.001252', '[0, 1]')
    """
    return f"{value:.4g}" if isinstance(value, float) else str(value)


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide Optuna's own log, and its warnings that heartbeats are experimental."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        yield


def _hash(*texts: str) -> str:
    return hashlib.blake2b(json.dumps(texts).encode(), digest_size=8).hexdigest()


def _best(study: Study) -> str:
    try:
        return f"{study.best_value:.4f} of trial {study.best_trial.number}"
    except ValueError:
        return "unknown"


def _is_alive(process: Any) -> bool:
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
