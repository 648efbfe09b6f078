"""Seeding of the random numbers of a training step."""

from __future__ import annotations

import hashlib
import os

import torch


def seed_step(epoch: int, batch_idx: int, rank: int) -> None:
    """Seed torch with (seed of the run, epoch, batch, rank), so that a resumed run draws the same dropout masks.

    Args:
        epoch: Number of the epoch, from 0.
        batch_idx: Number of the batch in the epoch, from 0.
        rank: Rank of this process.

    Example:
        >>> seed_step(epoch=0, batch_idx=3, rank=0)
        >>> first = torch.rand(2)
        >>> seed_step(epoch=0, batch_idx=3, rank=0)
        >>> torch.equal(torch.rand(2), first)
        True
    """
    seed = os.environ.get("PL_GLOBAL_SEED", "0")  # Lightning's seed_everything stores the seed there.
    position = f"{seed}/{epoch}/{batch_idx}/{rank}"
    number = int.from_bytes(hashlib.blake2b(position.encode(), digest_size=8).digest(), "little")
    if torch.accelerator.is_available():
        torch.manual_seed(number)
    else:  # It would keep every seed, with the stack of its call, for a GPU that is never used.
        torch.default_generator.manual_seed(number)
