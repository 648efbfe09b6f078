"""Training with DDP in one process and, if there are two devices, in two: by NCCL, or by gloo on CPUs."""

from __future__ import annotations

import json
import math
import os
import socket
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.environments.lightning import LightningEnvironment

from gpu_check.context import Context
from gpu_check.scenes import data_of, task_of
from gpu_check.stepping import trainer_of
from robusttune.ranks import any_over_ranks, leave, on_rank_zero, rank, sum_over_ranks, world_size

BATCH, STEPS = 32, 4  # samples of all processes together
# One DDP process computes what a process without DDP computes, in the same order but for the sums of gradients.
TOLERANCE = 1e-3


def run(context: Context) -> None:
    """Train without DDP, then with it in each number of processes."""
    kind = "MoLT"
    alone = in_processes(context, kind, 1, strategy="auto")[0]
    counts = [1, 2] if not context.on_gpu or torch.cuda.device_count() > 1 else [1]
    for count in counts:
        name = f"{count} process{'es' * (count > 1)}"
        with context.case(name):
            found = in_processes(context, kind, count, strategy="ddp")
            off = difference(found[0]["weights"], alone["weights"])
            same = all(other["weights"] == found[0]["weights"] for other in found)
            right = all(other["sum"] == count * (count + 1) / 2 and other["any"] for other in found)
            finite = all(map(math.isfinite, found[0]["weights"]))
            # Two processes draw other random numbers for dropout, so their weights are those of another training.
            passed = same and right and finite and (count > 1 or off <= TOLERANCE)
            values = {"backend": found[0]["backend"], "difference_to_no_ddp": off, "seconds": found[0]["seconds"]}
            context.add(name, passed, "same weights in all processes, and collective operations are right", **values)
    if counts == [1]:
        context.add("2 processes", note="there is one GPU")


def difference(found: list[float], expected: list[float]) -> float:
    """Return the difference of the sums of all weights, relative to all of them.

    Weights whose gradients are rounding errors, such as the bias of keys, differ more than that by themselves.
    """
    return sum(abs(a - b) for a, b in zip(found, expected, strict=True)) / sum(map(abs, expected))


def in_processes(context: Context, kind: str, count: int, strategy: str) -> list[dict[str, Any]]:
    """Train in new processes, and return what each has written."""
    folder = context.folder / f"{strategy}-{count}"
    folder.mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    arguments = [(number, count, port, strategy, kind, context.device, str(folder)) for number in range(count)]
    processes = [get_context("spawn").Process(target=train, args=each) for each in arguments]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    failed = [process.exitcode for process in processes if process.exitcode != 0]
    if failed:
        raise RuntimeError(f"exit statuses {failed}; see the output above")
    return [json.loads((folder / f"{number}.json").read_text()) for number in range(count)]


def train(number: int, count: int, port: int, strategy: str, kind: str, device: str, folder: str) -> None:
    """Train in this process, which is one of ``count``, and write sums of the weights to a file."""
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    os.environ |= {"LOCAL_RANK": str(number), "NODE_RANK": "0"}
    torch.set_num_threads(1)
    torch.backends.cudnn.allow_tf32 = False
    torch.manual_seed(0)
    context = Context(device, True, Path(folder), Path(folder) / f"records-{number}.json")
    data = data_of(kind, BATCH * STEPS, None, BATCH // count, workers=0)
    task = task_of(kind, data)
    settings: dict[str, Any] = {"devices": count, "strategy": strategy, "plugins": [LightningEnvironment()]}
    trainer = trainer_of(context, max_epochs=1, gradient_clip_val=1.0, log_every_n_steps=2, **settings)
    seconds = context.seconds(lambda: trainer.fit(task, datamodule=data))
    own = torch.tensor(float(number + 1), device=device if device == "cpu" else f"cuda:{number}")
    found = {
        "seconds": seconds,
        "backend": torch.distributed.get_backend() if torch.distributed.is_initialized() else "none",
        "sum": float(sum_over_ranks(own)),
        "any": any_over_ranks(rank() == world_size() - 1) and on_rank_zero(rank(), sum) == count * (count - 1) // 2,
        "weights": [float(p.detach().double().abs().sum()) for p in task.parameters() if p.requires_grad],
    }
    (Path(folder) / f"{number}.json").write_text(json.dumps(found))
    leave()
