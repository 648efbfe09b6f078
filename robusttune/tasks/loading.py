"""Loading of a task of any kind from its checkpoint."""

from __future__ import annotations

from typing import Any

from robusttune.checkpoint_file import KEY
from robusttune.errors import RobustTuneError
from robusttune.tasks.base import RobustTask
from robusttune.tasks.checkpoint import task_from
from robusttune.tasks.fusion import FusionTask
from robusttune.tasks.mmrl import MMRLTask
from robusttune.tasks.zero_shot import ZeroShotTask

TASKS: dict[str, type[RobustTask]] = {cls.__name__: cls for cls in (FusionTask, MMRLTask, ZeroShotTask)}


def load_any_task(checkpoint: dict[str, Any]) -> RobustTask:
    """Construct the task of a checkpoint, with its weights, in evaluation mode. Only classes of this project are used.

    Args:
        checkpoint: Checkpoint, as `read_checkpoint` returns it. It may be untrusted.

    Raises:
        RobustTuneError: It names what this version does not have, or its encoders' weights are not available.
    """
    name = checkpoint[KEY]["task"]
    if name not in TASKS:
        raise RobustTuneError(f"the checkpoint has the task {name!s:.50}, which this version does not have")
    return task_from(TASKS[name], checkpoint)
