"""The command line of a configuration: LightningCLI with this project's data, encoders and tasks."""

from __future__ import annotations

import os
from typing import Any, Literal, TypeVar

from lightning.pytorch import Trainer
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI

from robusttune.commands.configs import prepare_arguments
from robusttune.commands.links import ENCODERS, add_encoders, link_facts
from robusttune.commands.nulls import check_nulls
from robusttune.commands.quiet import quiet
from robusttune.commands.recipe import apply_recipe, without_recipe
from robusttune.commands.user_errors import user_errors
from robusttune.data import ImageTextDataModule
from robusttune.errors import RobustTuneError
from robusttune.tasks import RobustTask
from robusttune.types import Facts

CLI = TypeVar("CLI", bound=LightningCLI)
KINDS: dict[str, Any] = {  # types of the settings that must not be null
    "trainer": Trainer,
    "data": ImageTextDataModule,
    "model": RobustTask,
    **ENCODERS,
    "name": str,
    "run_root": str,
    "checkpoint_minutes": float,
    "test_best": bool,
    "steps": int,  # an option of ``plan``
}


class RobustTuneCLI(LightningCLI):
    """A LightningCLI that passes encoders to data and model, and the facts of the data to the model.

    Attributes:
        applies_recipe: True to replace ``recipe: auto`` by the settings that it chooses, which reads the data.
    """

    applies_recipe = True

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the options of a run, the encoders, and the links between encoders, data and model."""
        parser.add_argument(
            "--name",
            type=str,
            default="run",
            help="Name: files go to <run_root>/<name>/<n>. It may have slashes: sweep/lr1.",
        )
        parser.add_argument("--run_root", type=str, default="runs", help="Folder of all runs.")
        parser.add_argument(
            "--resume",
            type=Literal["auto"] | None,
            default=None,
            help="auto: continue the newest unfinished run of this name and these settings, in its own folder. "
            "A requeued SLURM job always does this.",
        )
        parser.add_argument(
            "--checkpoint_minutes",
            type=float,
            default=30.0,
            help="Minutes between two writes of last.ckpt; it is also written after epochs, at most every 10 seconds.",
        )
        parser.add_argument(
            "--test_best",
            type=bool,
            default=False,
            help="True to test the best checkpoint right after the fit, as robusttune test would.",
        )
        parser.add_argument(
            "--monitor",
            type=str | None,
            default=None,
            help="Metric that selects the best checkpoint: val/<condition>/<metric>, or its mean over the "
            "conditions, val/mean/<metric>. By default val/mean/accuracy, in multi-label data val/mean/f1_macro.",
        )
        parser.add_argument(
            "--recipe",
            type=Literal["auto"] | None,
            default=None,
            help="auto: choose the model, its training and the feature cache from the number of training samples and "
            "classes, where they are not set. It decides settings of `FusionTask`. The log says what was chosen, and "
            "config.yaml has the chosen values.",
        )
        add_encoders(parser, "data", "model.init_args")
        link_facts(parser, self.checked_facts)

    def checked_facts(self, data: ImageTextDataModule) -> Facts:
        """Check the data, before any encoder is loaded, and return their facts.

        Raises:
            RobustTuneError: The data do not work for this command.
        """
        data.check(str(self.subcommand))
        return data.facts

    def parse_settings(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Parse the arguments, replace null groups by their defaults, and refuse other settings that must not be null.

        Raises:
            RobustTuneError: See `check_nulls`, or a configuration behind the flag --recipe has a recipe.
        """
        super().parse_arguments(parser, args)
        settings = self.config[self.config.subcommand] if "subcommand" in self.config else self.config
        if settings.trainer is None:
            settings.trainer = self._parser(self.config.get("subcommand")).get_defaults().trainer
        if self.applies_recipe and settings.recipe is not None:  # `apply_recipe` found another value behind it
            raise RobustTuneError("a --config replaces --recipe, which stands before it: give --recipe behind it")
        check_nulls(settings, KINDS)

    def _parse_ckpt_path(self) -> None:
        """Do nothing. Lightning would override settings with a checkpoint's hyperparameters, and import their class."""


class CLIWithoutRun(RobustTuneCLI):
    """A command line that creates task, data and Trainer of a configuration, and leaves the rest to its command."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the options that the config.yaml of a run has, although this command ignores them."""
        super().add_arguments_to_parser(parser)
        parser.add_argument("--ckpt_path", type=str | None, help="Ignored: the config.yaml of a run has it.")
        parser.add_argument("--weights_only", type=bool | None, help="Ignored: the config.yaml of a run has it.")


def launch(cli: type[CLI], verb: str, args: list[str], **settings: Any) -> CLI:
    """Construct a command line, which parses the arguments, creates the objects, and runs the command.

    Args:
        cli: Class of the command line.
        verb: Name of the command, for error messages.
        args: Arguments of the command line.
        settings: Further arguments of LightningCLI. By default the model is a task, and the data are image-text data.

    Raises:
        RobustTuneError: An argument is invalid, or a class or file that it names cannot be used.
    """
    prepared = prepare_arguments(args)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # The loader workers already run in parallel.
    with quiet(), user_errors(verb, prepared.settings):
        defaults: dict[str, Any] = {
            "model_class": RobustTask,
            "datamodule_class": ImageTextDataModule,
            "subclass_mode_model": True,
            "auto_configure_optimizers": False,
            "load_from_checkpoint_support": False,  # A task's checkpoint contains its settings in its own format.
            "seed_everything_default": 0,
        }
        args = prepared.args
        if issubclass(cli, RobustTuneCLI):
            args = (apply_recipe if cli.applies_recipe else without_recipe)(verb, prepared)
        return cli(args=args, **(defaults | settings))


def launch_without_run(cli: type[CLIWithoutRun], command: str, args: list[str]) -> Any:
    """Construct a command line that parses the arguments and creates the objects only. See `launch`."""
    settings: dict[str, Any] = {"run": False, "save_config_callback": None, "trainer_defaults": {"logger": False}}
    return launch(cli, command, args, parser_kwargs={"exit_on_error": False}, **settings)
