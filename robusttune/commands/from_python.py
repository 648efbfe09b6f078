"""Training and tests from Python, with the checks, folders and messages of the command line."""

from __future__ import annotations

import csv
import json
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from robusttune.callbacks import RunFolder
from robusttune.checkpoint_file import KEY, checkpoint_path, read_checkpoint
from robusttune.commands import trainer
from robusttune.commands.lightning_cli import RobustTuneCLI
from robusttune.commands.resume import FinishedRunError
from robusttune.evaluation.metric_names import names_of_metrics
from robusttune.inference import Evaluation, Predictor, load
from robusttune.interruption import SAVE_AND_REQUEUE, stopping_at_once
from robusttune.settings import as_flags

Settings = Mapping[str, Any]


@dataclass(frozen=True)
class Run:
    """A finished fit.

    Attributes:
        folder: Folder of the run, with checkpoints, settings and reports.
    """

    folder: Path

    @property
    def metrics(self) -> Evaluation:
        """Return the validation metrics of the best checkpoint, as the fit has logged them, without intervals."""
        best = read_checkpoint(checkpoint_path(self.folder))
        logged = [row for row in self._logged() if int(row["step"]) < best["global_step"]]
        found: dict[str, dict[str, float]] = {}
        for name, value in logged[-1].items():
            parts = name.split("/")
            if parts[0] == "val" and len(parts) == 3 and value:
                found.setdefault(parts[1], {})[parts[2]] = float(value)
        facts = best[KEY]["facts"]
        # The file has the names in alphabetical order.
        order = names_of_metrics(facts["multilabel"], len(facts["class_names"]), mixed=False)
        by_condition = {
            condition: {name: found[condition][name] for name in order}
            for condition in sorted(found, key="mean".__eq__)
        }
        return Evaluation(by_condition, intervals={}, samples=None)

    def load(self, device: str | torch.device = "cpu", dtype: torch.dtype | str = torch.float32) -> Predictor:
        """Load the best checkpoint for predictions, see `robusttune.load`."""
        return load(self.folder, device, dtype)

    def test(self, settings: Settings | None = None, report: str = "test") -> Evaluation:
        """Test the best checkpoint as `robusttune test` does, and write the report into the run's folder.

        Args:
            settings: Values of settings that differ from those of the fit, by their names; see `fit`.
            report: Name of the report's files, so that several tests keep their reports.

        Raises:
            RobustTuneError: There is no test split, or see `fit`.
        """
        _start("test", [f"--ckpt_path={self.folder}", f"--report={report}", *as_flags(settings or {})])
        found = json.loads((self.folder / "report" / f"{report}.json").read_text(encoding="utf-8"))
        intervals = {
            condition: {name: tuple(ends) for name, ends in values.items()}
            for condition, values in found["intervals"].items()
        }
        return Evaluation(found["conditions"], intervals, found["samples"])

    def _logged(self) -> Iterator[dict[str, str]]:
        """Yield the rows of ``metrics.csv`` that have validation metrics."""
        with (self.folder / "metrics.csv").open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                if any(value for name, value in row.items() if name.startswith("val/")):
                    yield row


def fit(config: str | Path | Sequence[str | Path], settings: Settings | None = None) -> Run:
    """Train as `robusttune fit` does: with the same checks, run folder, checkpoints and messages.

    Args:
        config: Name of a configuration that comes with robusttune, or path of a YAML file; a list for a configuration
            and its overlays.
        settings: Values of settings by their names on the command line, such as
            ``{"data.source.root": "food101", "trainer.max_epochs": 3}``.

    Returns:
        The run, whose `Run.load` gives the model.

    Raises:
        RobustTuneError: A setting is invalid, or the fit fails for a reason that the user can correct.
        KeyboardInterrupt: Ctrl-C, or the interrupt of a notebook, has ended the fit; with ``{"resume": "auto"}`` it
            continues.

    Example:
        >>> import robusttune
        >>> run = robusttune.fit("demo", {"trainer.max_epochs": 1})  # doctest: +SKIP
        >>> run.metrics.metrics["no_image"]["accuracy"]  # doctest: +SKIP
        0.68
        >>> print(run.load().predict(text="a red circle"))  # doctest: +SKIP
        red circle (0.61, from the text alone)
    """
    configs = [config] if isinstance(config, str | Path) else list(config)
    try:
        cli = _start("fit", [*(f"--config={each}" for each in configs), *as_flags(settings or {})])
    except FinishedRunError as done:
        return Run(done.folder)
    callbacks: list[Any] = cli.trainer.callbacks  # type: ignore[attr-defined]
    folders = [callback.folder for callback in callbacks if isinstance(callback, RunFolder)]
    return Run(folders[0])


def _start(verb: str, args: list[str]) -> RobustTuneCLI:
    """Run a command of the Trainer, see `robusttune.commands.trainer.start`.

    Raises:
        KeyboardInterrupt: Ctrl-C has ended the command.
    """
    with _handlers_restored():
        try:
            return trainer.start(verb, args)
        except SystemExit as ended:
            if isinstance(ended.__context__, KeyboardInterrupt):  # Lightning has caught it.
                raise KeyboardInterrupt from None
            raise


@contextmanager
def _handlers_restored() -> Iterator[None]:
    """Give the caller back its handlers of signals at the end."""
    in_main = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(SAVE_AND_REQUEUE) if in_main else None
    with stopping_at_once():
        try:
            yield
        finally:
            if before is not None:
                signal.signal(SAVE_AND_REQUEUE, before)
