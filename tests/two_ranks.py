"""Run a function in gloo processes, forked so that nothing is imported again."""

from __future__ import annotations

import multiprocessing
import pickle
import tempfile
import traceback
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

TIMEOUT = 60  # seconds; a test that hangs fails


def in_two_ranks(fn: Callable[[int], Any]) -> list[Any]:
    """What ``fn(rank)`` returns, or the exception that it raises, on rank 0 and on rank 1."""
    return in_ranks(2, fn)


def in_ranks(count: int, fn: Callable[[int], Any]) -> list[Any]:
    """The same on so many ranks."""
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    with tempfile.TemporaryDirectory() as folder:  # a file to meet at: a port that is free may not stay so
        arguments = [(fn, rank, count, f"file://{folder}/store", queue) for rank in range(count)]
        processes = [context.Process(target=_run, args=args, daemon=True) for args in arguments]
        for process in processes:
            process.start()
        found = dict(pickle.loads(queue.get(timeout=TIMEOUT)) for _ in processes)
        for process in processes:
            process.join(TIMEOUT)
    return [found[rank] for rank in range(count)]


def _run(fn: Callable[[int], Any], rank: int, count: int, store: str, queue: Any) -> None:
    torch.set_num_threads(1)  # the parent's thread pool does not survive a fork
    dist.init_process_group("gloo", store, timeout=timedelta(seconds=TIMEOUT), rank=rank, world_size=count)
    try:
        result = fn(rank)
    except Exception as error:
        traceback.print_exc()
        result = error
    queue.put(pickle.dumps((rank, result)))  # not as shared memory, which ends with its process
    if dist.is_initialized():
        dist.barrier()
        dist.destroy_process_group()
