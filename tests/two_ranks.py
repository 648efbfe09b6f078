"""Run a function in several gloo processes, which are forked so that no imports are repeated."""

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

TIMEOUT = 60  # seconds after which a hanging test fails


def in_two_ranks(fn: Callable[[int], Any], workers: bool = False) -> list[Any]:
    """Run ``fn(rank)`` on two ranks and return the result of each rank, or the exception that it raised."""
    return in_ranks(2, fn, workers)


def in_ranks(count: int, fn: Callable[[int], Any], workers: bool = False) -> list[Any]:
    """Run ``fn(rank)`` on ``count`` ranks and return the result of each rank, or the exception that it raised.

    Args:
        count: Number of ranks.
        fn: Function to run.
        workers: Whether it may start processes of its own.
    """
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    with tempfile.TemporaryDirectory() as folder:  # the rendezvous uses a file, because a free port may be taken
        arguments = [(fn, rank, count, f"file://{folder}/store", queue) for rank in range(count)]
        processes = [context.Process(target=_run, args=args, daemon=not workers) for args in arguments]
        for process in processes:
            process.start()
        try:
            found = dict(pickle.loads(queue.get(timeout=TIMEOUT)) for _ in processes)
            for process in processes:
                process.join(TIMEOUT)
        finally:
            for process in processes:
                process.kill()
    return [found[rank] for rank in range(count)]


def _run(fn: Callable[[int], Any], rank: int, count: int, store: str, queue: Any) -> None:
    """Run the function on one rank and put the pickled result into the queue."""
    torch.set_num_threads(1)  # the parent's thread pool does not survive a fork
    dist.init_process_group("gloo", store, timeout=timedelta(seconds=TIMEOUT), rank=rank, world_size=count)
    try:
        result = fn(rank)
    except Exception as error:
        traceback.print_exc()
        result = error
    queue.put(pickle.dumps((rank, result)))  # tensors in shared memory would vanish when this process ends
    if dist.is_initialized():
        dist.barrier()
        dist.destroy_process_group()
