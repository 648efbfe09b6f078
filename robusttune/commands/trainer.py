"""The commands of the Trainer with a configuration: ``fit``, ``validate`` and ``test``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from jsonargparse import Namespace
from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Callback, LearningRateMonitor, ModelSummary, ProgressBar
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI
from lightning.pytorch.utilities import rank_zero_info
from rich.console import Console

from robusttune.callbacks import (
    BestCheckpoint,
    ConditionReport,
    HostWatch,
    LastCheckpoint,
    LinearBaseline,
    MaskFiles,
    NotebookProgress,
    Resumed,
    RunFolder,
    SafeCheckpointIO,
    TrainingState,
    ValidationInterval,
)
from robusttune.checkpoint_file import KEY, checkpoint_path, read_checkpoint
from robusttune.commands.configs import prepare_arguments
from robusttune.commands.connections import LostConnectionError, require_reachable_name
from robusttune.commands.lightning_cli import RobustTuneCLI, launch
from robusttune.commands.resume import (
    FinishedRunError,
    last_checkpoint,
    other_settings,
    plain_settings,
    seed_of,
    unfinished,
)
from robusttune.commands.run_config import with_run_config
from robusttune.commands.strategies import refuse_sharding
from robusttune.commands.workers import DeadWorkerError
from robusttune.data import ImageTextDataModule
from robusttune.errors import RobustTuneError
from robusttune.interruption import ignore, slurm_job, was_requeued
from robusttune.ranks import leave
from robusttune.run_names import check_report_name, run_folders
from robusttune.types import Facts


class TrainerCLI(RobustTuneCLI):
    """The command line of ``fit``, ``validate`` and ``test``.

    Attributes:
        resumed: Callback that checks a resumed fit, alone in a sequence; empty for other runs.
        same_run: True if the fit resumes in the folder of the checkpoint's own run.
    """

    resumed: Sequence[Resumed] = ()
    same_run = False

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the options of a run, and the name of a test's report."""
        super().add_arguments_to_parser(parser)
        if "test" in self.subcommands():
            parser.add_argument(
                "--report",
                type=str,
                default="test",
                help="Name of the report: files go to report/<name>.* in the folder of the checkpoint's run.",
            )

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Parse the arguments, find the run to resume, and read the checkpoint.

        The facts in a checkpoint take precedence over those of the data.

        Raises:
            RobustTuneError: An argument is invalid, or the checkpoint is missing or cannot be used.
            FinishedRunError: The run to resume has already finished.
        """
        self.parse_settings(parser, args)
        verb = self.config["subcommand"]
        config = self.config[verb]
        refuse_sharding(config.trainer.strategy)
        root = run_folders(config.run_root, config.name)
        if verb == "test":
            check_report_name(config.report)
        if "verbose" in config:
            config.verbose = False  # ConditionReport prints its own table.
        if verb == "fit":
            if config.test_best and config.trainer.enable_checkpointing is False:
                raise RobustTuneError("test_best is true, and trainer.enable_checkpointing false: leave one out")
            self._resume(config, root)
        if config.ckpt_path is None:
            if verb != "fit":
                raise RobustTuneError(f"{verb} needs a checkpoint: give --ckpt_path")
            return
        config.ckpt_path = str(checkpoint_path(config.ckpt_path))
        checkpoint = read_checkpoint(config.ckpt_path)
        if verb == "fit":
            state = TrainingState.of(checkpoint, str(config.ckpt_path))
            self.resumed = [Resumed(str(config.ckpt_path), state, self.same_run)]
        facts = Facts(**checkpoint[KEY]["facts"])
        if config.data.facts is not None and config.data.facts.class_names != facts.class_names:
            raise RobustTuneError("data.facts contradict those of the checkpoint: leave them out")
        config.data.facts = facts

    def checked_facts(self, data: ImageTextDataModule) -> Facts:
        """Check the data, those of a test after a fit as well, and return their facts."""
        facts = super().checked_facts(data)
        if self.subcommand == "fit" and self._get(self.config, "test_best"):
            data.check("test")
        return facts

    def _resume(self, config: Namespace, root: Path) -> None:
        """Resume an earlier run, if ``--resume`` or a requeued SLURM job asks for it: set its folder and checkpoint."""
        job = slurm_job() if was_requeued() else None
        if job is None and config.resume is None:
            return
        settings = plain_settings(self._parser("fit").dump(config, skip_unset=False))
        try:
            folder = unfinished(settings, root, job if config.resume is None else None)
        except FinishedRunError as done:
            done.test_best = config.test_best
            raise
        if folder is None:
            rank_zero_info("\n".join(other_settings(settings, root)) or f"there is no unfinished run in {root}")
            return
        self.save_config_kwargs = {"folder": folder}
        config.seed_everything = seed_of(folder)
        last = last_checkpoint(folder)
        if last is not None and config.ckpt_path is not None and job is None:
            rank_zero_info(f"the run continues from {last}, not from {config.ckpt_path}")
        config.ckpt_path = last or config.ckpt_path
        self.same_run = last is not None

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Create the Trainer with this project's callbacks and plugins.

        Raises:
            RobustTuneError: A setting of the Trainer is 0 where Lightning divides by it, or the metric to monitor does
                not exist.
        """
        config = self._get(self.config_init, "trainer")
        for name in ("accumulate_grad_batches", "val_check_interval", "check_val_every_n_epoch"):
            if config[name] == 0:  # Lightning divides by it.
                raise RobustTuneError(f"trainer.{name} is 0: give more, or leave it out")
        plugins = [*cluster_plugins(config), SafeCheckpointIO()]
        callbacks = [HostWatch(), *as_list(config.callbacks)]
        callbacks += self._fit_callbacks(config) if self.subcommand == "fit" else []
        callbacks += self.resumed
        if self.subcommand != "fit":
            callbacks.append(
                ConditionReport(self._get(self.config_init, "report") if self.subcommand == "test" else "")
            )
        if not any(isinstance(callback, ModelSummary) for callback in callbacks):
            # RobustTask logs the parameters: Lightning's summary would not count encoders whose memory was freed.
            kwargs["enable_model_summary"] = False
        own_bar = config.enable_progress_bar is False or any(isinstance(each, ProgressBar) for each in callbacks)
        if _is_notebook_without_widgets() and not own_bar:
            callbacks.append(NotebookProgress())  # Lightning's default, a bar of Rich, would show nothing there.
        if config.default_root_dir is None:
            # In a SLURM job, Lightning would resume from an hpc_ckpt file in the working folder. This folder is empty.
            root = run_folders(*(self._get(self.config_init, name) for name in ("run_root", "name")))
            kwargs["default_root_dir"] = root / "lightning"
        return super().instantiate_trainer(plugins=plugins, callbacks=callbacks, **kwargs)

    def before_fit(self) -> None:
        """Add the comparison with logistic regression. Lightning's command line calls this before the fit."""
        callbacks: list[Callback] = self.trainer.callbacks  # type: ignore[attr-defined]
        callbacks.append(LinearBaseline())  # after RunFolder, which stops the clock of training at the same event

    def _fit_callbacks(self, trainer: Namespace) -> list[Callback]:
        default = "val/mean/f1_macro" if self.datamodule.facts.multilabel else "val/mean/accuracy"
        monitor = self._get(self.config_init, "monitor") or default
        measured = self.model.monitored_metrics(self.datamodule.conditions("val"))
        if monitor not in measured:
            conditions, metrics = (list(dict.fromkeys(name.split("/")[part] for name in measured)) for part in (1, 2))
            raise RobustTuneError(
                f"{monitor} is not measured: monitor val/<condition>/<metric>, of the metrics {', '.join(metrics)}, "
                f"under {', '.join(conditions[:-1][:3])}{', ...' * (len(conditions) > 4)} or mean"
            )
        callbacks: list[Callback] = [ValidationInterval()]
        if not trainer.fast_dev_run:
            callbacks.append(LearningRateMonitor())
        if trainer.enable_checkpointing is False:
            ignore()  # Without checkpoints, SIGUSR1 would requeue the job forever.
            return callbacks
        minutes = self._get(self.config_init, "checkpoint_minutes")
        return [*callbacks, BestCheckpoint(monitor), LastCheckpoint(minutes)]


def run(verb: str, args: list[str]) -> None:
    """Run a command of the Trainer.

    Args:
        verb: Name of the command: ``fit``, ``validate`` or ``test``.
        args: Arguments of the command line after the command.

    Raises:
        RobustTuneError: An argument is invalid, a class or file that it names cannot be used, or the run fails for a
            reason that the user can correct.
    """
    try:
        tested = _checkpoint_to_test(start(verb, args))
    except FinishedRunError as done:
        rank_zero_info(str(done))
        is_untested = done.test_best and not (done.folder / "report/test.json").exists()
        tested = str(done.folder) if is_untested else None
    if tested is not None:  # Nothing else holds the objects of the fit any more.
        start("test", [f"--ckpt_path={tested}"])


def _checkpoint_to_test(cli: RobustTuneCLI) -> str | None:
    """Return the best checkpoint of a fit that is to be tested, or None.

    Raises:
        RobustTuneError: There is no such checkpoint.
    """
    config = cli.config[cli.subcommand]
    if cli.subcommand != "fit" or not config.test_best:
        return None
    best = [each.best_model_path for each in cli.trainer.checkpoint_callbacks if isinstance(each, BestCheckpoint)]
    if not any(best):
        raise RobustTuneError("test_best is true, and the fit has written no best checkpoint: leave it out")
    return str(best[0])


def start(verb: str, args: list[str]) -> RobustTuneCLI:
    """Run a command of the Trainer, see `run`, and return its command line with the objects that it has created.

    Raises:
        FinishedRunError: The fit that is to be resumed has already finished.
        RobustTuneError: See `run`.
    """
    with leaving_ranks():
        return _launch(verb, args)


@contextmanager
def leaving_ranks() -> Iterator[None]:
    """Close the process groups at the end of a ``with`` block, also after an error that the user can correct."""
    try:
        yield
    except (DeadWorkerError, LostConnectionError):
        # Other processes of the run may still wait for this one, or do not exist, so it must not wait for them.
        raise
    except RobustTuneError as error:
        error.__traceback__ = error.__context__ = error.__cause__ = None  # Their frames keep the process group alive.
        leave()  # Other errors skip this, because they can occur on one rank while the others wait for it.
        raise
    leave()


def _launch(verb: str, args: list[str]) -> RobustTuneCLI:
    class VerbCLI(TrainerCLI):
        """A command line with one command: the parsers of the others would take four times as long to build."""

        @staticmethod
        def subcommands() -> dict[str, set[str]]:
            return {verb: LightningCLI.subcommands()[verb]}

    args = [verb, *args]
    if verb != "fit":
        prepared = prepare_arguments(args)
        args = with_run_config(verb, prepared.args, prepared.settings)
    return launch(
        VerbCLI,
        verb,
        args,
        save_config_callback=RunFolder,
        trainer_defaults={"logger": False, "callbacks": [MaskFiles()]},
        parser_kwargs={"exit_on_error": False, verb: {"exit_on_error": False}},
    )


def _is_notebook_without_widgets() -> bool:
    return Console().is_jupyter and find_spec("ipywidgets") is None


def cluster_plugins(trainer: Namespace) -> list[Any]:
    """Return the plugins in the settings of a Trainer, and one for SLURM if the process runs in a job of it.

    Raises:
        RobustTuneError: The run has several hosts, and the others cannot reach this one.
    """
    require_reachable_name(trainer.num_nodes)
    plugins = as_list(trainer.plugins)
    if SLURMEnvironment.detect() and not any(isinstance(plugin, ClusterEnvironment) for plugin in plugins):
        plugins.append(SLURMEnvironment(auto_requeue=False))  # Its handler can deadlock; LastCheckpoint requeues.
    return plugins


def as_list(given: Any) -> list[Any]:
    """Return the values of a setting that is a list, a single value, or null.

    Example:
        >>> as_list("a"), as_list(None)
        (['a'], [])
    """
    return [*given] if isinstance(given, list) else [] if given is None else [given]
