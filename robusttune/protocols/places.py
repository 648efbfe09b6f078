"""Environment variables that keep runs at the same time apart: each has its own GPU and its share of the cores."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

GPUS = Path("/proc/driver/nvidia/gpus")  # a folder for each GPU


def environments(parallel: int) -> list[Mapping[str, str]]:
    """Return environment variables for each of the runs at a time.

    A single run keeps everything. Of several, each gets one GPU, alternately, and as many threads as leaves each of
    them cores, unless the user has set their number.

    Args:
        parallel: Number of runs at a time.
    """
    if parallel == 1:
        return [{}]
    gpus = _visible_gpus()
    threads = {} if "OMP_NUM_THREADS" in os.environ else {"OMP_NUM_THREADS": str(max(_cores() // parallel, 1))}
    return [threads | ({"CUDA_VISIBLE_DEVICES": gpus[place % len(gpus)]} if gpus else {}) for place in range(parallel)]


def _visible_gpus() -> list[str]:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [gpu for gpu in visible.split(",") if gpu]
    return [str(number) for number in range(len([*GPUS.iterdir()]))] if GPUS.is_dir() else []


def _cores() -> int:
    return len(os.sched_getaffinity(0))
