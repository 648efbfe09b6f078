"""The configuration of the run that a checkpoint belongs to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lightning.pytorch.utilities import rank_zero_info

from robusttune.callbacks.run_folder import run_folder_of
from robusttune.checkpoint_file import checkpoint_path
from robusttune.errors import RobustTuneError
from robusttune.run_names import CONFIG

WHOLE = "image_encoder"  # a group that every whole configuration has, and no overlay


def with_run_config(verb: str, args: list[str], settings: Mapping[str, Sequence[Any]]) -> list[str]:
    """Add the ``config.yaml`` of a checkpoint's run to a command line that has no whole configuration.

    Other files on the command line are laid over it. The file may name classes of any package, which are then imported
    and run; a checkpoint cannot do that.

    Args:
        verb: Name of the command.
        args: Command line, which begins with the command.
        settings: Values of each setting on it, see `prepare_arguments`.

    Raises:
        RobustTuneError: There is no such file, or the folder has no checkpoint.
    """
    given = settings.get("ckpt_path", [None])[-1]
    if not isinstance(given, str) or WHOLE in settings:
        return args
    config = run_folder_of(checkpoint_path(given)) / CONFIG
    if not config.is_file():
        raise RobustTuneError(f"{verb} needs a configuration, and {config} does not exist: give --config")
    rank_zero_info(f"using {config}")
    return [args[0], f"--config={config}", *args[1:]]
