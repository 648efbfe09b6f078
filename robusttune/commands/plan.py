"""The command ``plan``: estimate the memory, disk space and time of a fit from a few of its steps."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import torch
from jsonargparse import Namespace
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.pytorch import Trainer
from lightning.pytorch.accelerators import AcceleratorRegistry
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI
from rich.console import Console

from robusttune.commands.lightning_cli import CLIWithoutRun, launch_without_run
from robusttune.commands.plan_table import show
from robusttune.commands.quiet import quiet
from robusttune.commands.strategies import refuse_sharding
from robusttune.commands.user_errors import user_errors
from robusttune.data import ImageTextDataModule
from robusttune.errors import RobustTuneError
from robusttune.paths import atomic_write, user_path
from robusttune.planning import TRAINER, Extent, Plan, estimate
from robusttune.run_names import run_folders
from robusttune.types import Facts

BACKENDS = {"gpu": ("cuda", "mps")}  # backends of accelerator names that stand for several


class PlanCLI(CLIWithoutRun):
    """A command line that constructs task, data and a Trainer of a configuration, without a run.

    Attributes:
        extent: Amount of work of the fit, from the settings of its Trainer.
        absent: Accelerator of the configuration if this machine lacks it, else None.
    """

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the command's own options."""
        super().add_arguments_to_parser(parser)
        parser.add_argument(
            "--steps", type=int, default=20, help="Number of steps to measure; slow steps are measured less often."
        )
        parser.add_argument("--json", type=str | None, help="JSON file to write all numbers to.")

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Parse and check the arguments.

        Raises:
            RobustTuneError: An argument is invalid.
        """
        self.parse_settings(parser, args)
        refuse_sharding(self.config.trainer.strategy)
        run_folders(self.config.run_root, self.config.name)
        if self.config.steps < 1:
            raise RobustTuneError(f"--steps is {self.config.steps}: give at least 1")
        if self.config.json is not None and user_path(self.config.json).is_dir():
            raise RobustTuneError(f"--json {self.config.json} is a folder: give another path")

    def checked_facts(self, data: ImageTextDataModule) -> Facts:
        """Check the data for a fit, and return their facts.

        Raises:
            RobustTuneError: The data are invalid, or the training samples are a stream.
        """
        if data.source.training_stream is not None:
            raise RobustTuneError(
                "plan counts the training samples, and data.source.stream reads them while training: leave it out, or "
                "see the speed of a fit with --trainer.max_steps 100"
            )
        data.check("fit")
        return data.facts

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Return a Trainer with one process, on an accelerator that this machine has."""
        config = self._get(self.config_init, "trainer")
        self.extent = extent_of(config)
        self.absent = absent_accelerator(config.accelerator)
        accelerator = config.accelerator if self.absent is None else "auto"
        plugins = config.plugins if isinstance(config.plugins, list) else [config.plugins] if config.plugins else []
        alone = TRAINER | {"accelerator": accelerator, "plugins": [*plugins, LightningEnvironment()]}
        return LightningCLI.instantiate_trainer(self, **alone, **kwargs)


def run(args: list[str]) -> None:
    """Run the command.

    Args:
        args: Arguments of the command line after ``plan``.

    Raises:
        RobustTuneError: An argument is invalid, a class or file that it names cannot be used, or the steps fail.
    """
    cli = launch_without_run(PlanCLI, "plan", args)
    plan = _measured(cli)
    show(plan, cli.absent, Console())
    if cli.config.json is not None:
        path = user_path(cli.config.json)
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as partial:
            partial.write_text(json.dumps(asdict(plan), indent=2) + "\n", encoding="utf-8")


def extent_of(trainer: Namespace) -> Extent:
    """Return the amount of work of a fit (devices, epochs, batches, validations) from the settings of its Trainer.

    Args:
        trainer: Settings of the Trainer.

    Raises:
        RobustTuneError: A setting is out of its range, or the training has no end.
    """
    least = {"num_nodes": 1, "accumulate_grad_batches": 1, "check_val_every_n_epoch": 1}
    for name, value in least.items():
        if trainer[name] is not None and trainer[name] < value:
            raise RobustTuneError(f"trainer.{name} is {trainer[name]}: give at least {value}")
    if trainer.max_epochs == -1 and trainer.max_steps == -1:
        raise RobustTuneError("the schedule has no end: set trainer.max_epochs or trainer.max_steps")
    interval = trainer.val_check_interval
    return Extent(
        devices=device_count(trainer.devices, trainer.accelerator),
        nodes=trainer.num_nodes,
        max_epochs=trainer.max_epochs,
        max_steps=trainer.max_steps,
        accumulate=trainer.accumulate_grad_batches,
        limit_train=_limit(trainer.limit_train_batches),
        limit_val=_limit(trainer.limit_val_batches),
        validate_every=trainer.check_val_every_n_epoch or 1,
        check_interval=_limit(interval) if isinstance(interval, int | float) else 1.0,
    )


def device_count(devices: Any, accelerator: Any) -> int:
    """Return the number of devices on a node, at least 1.

    Args:
        devices: Setting ``trainer.devices``: a number, a list, a comma-separated text, or ``auto`` or -1 for all
            devices of this machine.
        accelerator: Setting ``trainer.accelerator``.

    Raises:
        RobustTuneError: The setting is not a number of at least 1.

    Example:
        >>> device_count("0,1", "gpu"), device_count("auto", "cpu")
        (2, 1)
    """
    listed = devices.split(",") if isinstance(devices, str) and "," in devices else devices
    if isinstance(listed, list):
        return len([device for device in listed if str(device).strip()])
    if str(devices) in ("auto", "-1"):
        on_gpu = accelerator != "cpu" and torch.cuda.is_available()
        return torch.cuda.device_count() if on_gpu else 1
    if not str(devices).isdigit() or int(devices) < 1:
        raise RobustTuneError(f"trainer.devices is {devices}: give a number of at least 1, or auto")
    return int(devices)


def absent_accelerator(accelerator: Any) -> str | None:
    """Return the name of an accelerator that this machine lacks, or None if it is available.

    Args:
        accelerator: Setting ``trainer.accelerator``. A name that Lightning does not know counts as available, so that
            Lightning itself refuses it.

    Example:
        >>> absent_accelerator("cpu") is None
        True
    """
    if not isinstance(accelerator, str) or accelerator == "auto":
        return None
    backends = BACKENDS.get(accelerator, (accelerator,))
    if any(name not in AcceleratorRegistry for name in backends):
        return None
    is_available = any(AcceleratorRegistry[name]["accelerator"].is_available() for name in backends)
    return None if is_available else accelerator


def _limit(given: int | float | None) -> int | float:
    """Convert a limit of batches: an int is a number of batches (also if written as 6.0), a float a fraction."""
    if given is None:
        return 1.0
    return int(given) if given > 1 else given


def _measured(cli: Any) -> Plan:
    with quiet(), user_errors("plan"):
        try:
            return estimate(cli.model, cli.datamodule, cli.trainer, cli.extent, cli.config.steps)
        except torch.OutOfMemoryError:
            raise RobustTuneError(
                f"a batch of {cli.datamodule.batch_size} samples does not fit on {cli.trainer.strategy.root_device}: "
                "lower data.batch_size, and raise trainer.accumulate_grad_batches by as much"
            ) from None
