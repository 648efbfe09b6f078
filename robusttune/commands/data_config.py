"""The data of a configuration, without the model that it is for."""

from __future__ import annotations

import warnings
from argparse import ArgumentError
from collections.abc import Callable
from typing import Any

from jsonargparse import ArgumentParser, Namespace

from robusttune.commands.configs import check_configs, locate_configs
from robusttune.commands.nulls import settle_nulls
from robusttune.commands.quiet import quieten
from robusttune.commands.wording import argument_error, instantiation_error
from robusttune.data import ImageTextDataModule
from robusttune.encoders import ImageEncoder, TextEncoder
from robusttune.errors import RobustTuneError

# What else a configuration has, and the config.yaml of a run; it is passed over here.
OF_THE_MODEL = ("model", "trainer", "optimizer", "lr_scheduler")
OF_THE_RUN = (
    *("name", "run_root", "resume", "checkpoint_minutes", "monitor", "seed_everything", "ckpt_path"),
    *("weights_only", "return_predictions", "verbose"),
)


KINDS: dict[str, Any] = {  # of settings that must not be null
    "data": ImageTextDataModule,
    "image_encoder": ImageEncoder,
    "text_encoder": TextEncoder,
    "split": str,
    "samples": int,
    "severity": int,
    "out": str,
}


def read_data(
    command: str, about: str, args: list[str], add: Callable[[ArgumentParser], None]
) -> tuple[Namespace, ImageTextDataModule]:
    """The data module of the configurations and flags of a command line, and all that it says.

    Args:
        command: as it is called, for help and errors.
        about: what it does, for help.
        args: of the command line.
        add: adds what the command takes beside the data.

    Raises:
        RobustTuneError: the arguments or what they name do not work.
    """
    args = locate_configs(args)
    known = check_configs(args)
    parser = ArgumentParser(prog=f"robusttune {command}", description=about, exit_on_error=False)
    parser.add_argument("-c", "--config", action="config", help="A configuration; several are laid over.")
    add(parser)
    parser.add_class_arguments(ImageTextDataModule, "data")
    for encoder, kind in {"image_encoder": ImageEncoder, "text_encoder": TextEncoder}.items():
        parser.add_subclass_arguments(kind, encoder, required=True)
        parser.link_arguments(encoder, f"data.{encoder}", apply_on="instantiate")
    for name in OF_THE_MODEL:
        parser.add_argument(f"--{name}", type=dict | None, help="Of no use here.")
    for name in OF_THE_RUN:
        parser.add_argument(f"--{name}", type=Any, help="Of no use here.")
    with warnings.catch_warnings():
        quieten()
        try:
            given = parser.parse_args(args)
            settle_nulls(given, KINDS)
            return given, parser.instantiate(given).data
        except ArgumentError as error:
            raise argument_error(str(error), command, known) from None
        except RobustTuneError:
            raise
        except Exception as error:
            told = instantiation_error(error)
            if told is None:
                raise
            raise told from error
