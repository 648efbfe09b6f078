"""fit, validate, test, predict: LightningCLI with this project's data, tasks and run folder."""

from __future__ import annotations

import os
import warnings
from argparse import ArgumentError
from typing import Any

from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Trainer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

from robusttune.callbacks import ConditionReport, PredictionWriter, RunFolder, SafeCheckpointIO
from robusttune.commands.quiet import quieten
from robusttune.data import ImageTextDataModule
from robusttune.encoders import ImageEncoder, TextEncoder
from robusttune.errors import RobustTuneError
from robusttune.tasks import RobustTask
from robusttune.tasks.checkpoint import KEY, read_checkpoint
from robusttune.types import Facts

LINKS = {
    "image_encoder": ("data.image_encoder", "model.init_args.image_encoder"),
    "text_encoder": ("data.text_encoder", "model.init_args.text_encoder"),
    "data.facts": ("model.init_args.facts",),
}


class RobustTuneCLI(LightningCLI):
    """Encoders are named once and linked to data and model; facts are linked from the data to the model."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument(
            "--name", type=str, default="run", help="Name of the run: files go to <run_root>/<name>/<n>."
        )
        parser.add_argument("--run_root", type=str, default="runs", help="Folder of all runs.")
        parser.add_subclass_arguments(ImageEncoder, "image_encoder", required=True)
        parser.add_subclass_arguments(TextEncoder, "text_encoder", required=True)
        for source, targets in LINKS.items():
            for target in targets:
                parser.link_arguments(source, target, apply_on="instantiate")

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        plugins = self._get(self.config_init, "trainer").plugins or []
        plugins = plugins if isinstance(plugins, list) else [plugins]
        return super().instantiate_trainer(plugins=[*plugins, SafeCheckpointIO()], **kwargs)

    def before_instantiate_classes(self) -> None:
        """The facts of a given checkpoint win over those of the data at hand."""
        config = self.config[self.subcommand]
        if "verbose" in config:
            config.verbose = False  # the report has a table of its own
        if config.ckpt_path is None:
            if self.subcommand != "fit":
                raise RobustTuneError(f"{self.subcommand} needs a checkpoint: give --ckpt_path")
            return
        facts = Facts(**read_checkpoint(config.ckpt_path)[KEY]["facts"])
        if config.data.facts is not None and config.data.facts.class_names != facts.class_names:
            raise RobustTuneError("data.facts contradict those of the checkpoint: leave them out")
        config.data.facts = facts


def run(verb: str, args: list[str]) -> None:
    """Run a Trainer verb.

    Raises:
        RobustTuneError: the arguments or what they name do not work.
    """
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # loader workers are processes already
    with warnings.catch_warnings():
        quieten()
        try:
            RobustTuneCLI(
                RobustTask,
                ImageTextDataModule,
                subclass_mode_model=True,
                save_config_callback=RunFolder,
                auto_configure_optimizers=False,
                seed_everything_default=0,
                trainer_defaults={"logger": False, "callbacks": [ConditionReport(), PredictionWriter()]},
                parser_kwargs={"exit_on_error": False}
                | {name: {"exit_on_error": False} for name in LightningCLI.subcommands()},
                args=[verb, *args],
            )
        except ArgumentError as error:
            raise RobustTuneError(one_sentence(str(error))) from None
        except MisconfigurationException as error:
            raise RobustTuneError(" ".join(str(error).split())) from error
        except ValueError as error:
            raise project_error(error) or error from None


def one_sentence(message: str) -> str:
    """jsonargparse's report of a wrong argument, without the parts that say the same in other words."""
    noise = ("Given value", "Subtypes:", "Errors:", "Does not validate", "- Expected a <class 'NoneType'>")
    lines = [line.strip() for line in message.splitlines()]
    return " ".join(line.removeprefix("- ") for line in lines if line and not line.startswith(noise))


def project_error(error: BaseException) -> RobustTuneError | None:
    """This project's error behind another one: jsonargparse wraps what is raised while a class is made."""
    behind = error.__cause__ or error.__context__
    return behind if isinstance(behind, RobustTuneError) or behind is None else project_error(behind)
