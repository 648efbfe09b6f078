"""Run a function in two gloo processes, forked so that nothing is imported again."""

from __future__ import annotations

import multiprocessing
import pickle
import socket
import traceback
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

TIMEOUT = 60  # seconds; a test that hangs fails


def in_two_ranks(fn: Callable[[int], Any]) -> list[Any]:
    """What ``fn(rank)`` returns, or the exception that it raises, on rank 0 and on rank 1."""
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = [context.Process(target=_run, args=(fn, rank, port, queue), daemon=True) for rank in range(2)]
    for process in processes:
        process.start()
    found = dict(pickle.loads(queue.get(timeout=TIMEOUT)) for _ in processes)
    for process in processes:
        process.join(TIMEOUT)
    return [found[0], found[1]]


def _run(fn: Callable[[int], Any], rank: int, port: int, queue: Any) -> None:
    torch.set_num_threads(1)  # the parent's thread pool does not survive a fork
    address = f"tcp://127.0.0.1:{port}"
    dist.init_process_group("gloo", address, timeout=timedelta(seconds=TIMEOUT), rank=rank, world_size=2)
    try:
        result = fn(rank)
    except Exception as error:
        traceback.print_exc()
        result = error
    queue.put(pickle.dumps((rank, result)))  # not as shared memory, which ends with its process
    if dist.is_initialized():
        dist.barrier()
        dist.destroy_process_group()
