"""The position of this process in a distributed run, as launchers tell it, before the processes are connected."""

from __future__ import annotations

import os

VARIABLES = ("RANK", "LOCAL_RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK")  # of torchrun, Lightning, SLURM and jsrun


def is_first_process() -> bool:
    """Return whether this process is the first of its run, by the environment variables that launchers set.

    Example:
        >>> is_first_process()  # one process
        True
    """
    numbers = [os.environ[name] for name in VARIABLES if name in os.environ]
    return not numbers or numbers[0] == "0"
