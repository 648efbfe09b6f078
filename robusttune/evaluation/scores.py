"""What a model says of samples, gathered from batches and ranks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Scores(NamedTuple):
    """What was found for ``N`` samples in ``W`` views.

    Attributes:
        sample_id: N strings.
        label: (N,) int64 class indices, or (N, C) float 0/1 in multi-label data.
        present: (N, 2) bool, whether samples have an image, and a text.
        logits: (W, N, C) float32.
        unknown: (W, N, C) float32, where some classes are of training and some are not: the logits of a model that is
            not told of which kind a sample is. Else the same as ``logits``.
    """

    sample_id: list[str]
    label: Tensor
    present: Tensor
    logits: Tensor
    unknown: Tensor


def join(parts: Sequence[Scores]) -> Scores:
    """One after the other."""
    if len(parts) == 1:
        return parts[0]
    ids, label, present, logits, unknown = zip(*parts, strict=True)
    joined = torch.cat(logits, 1)
    same = all(a is b for a, b in zip(logits, unknown, strict=True))
    return Scores(
        [sample_id for some in ids for sample_id in some],
        torch.cat(label),
        torch.cat(present),
        joined,
        joined if same else torch.cat(unknown, 1),
    )


def by_id(parts: Sequence[Scores]) -> Scores:
    """Each sample once, in the order of the ids."""
    scores = join(parts)
    row = {sample_id: i for i, sample_id in enumerate(scores.sample_id)}
    ids = sorted(row)
    if ids == scores.sample_id:
        return scores
    rows = torch.tensor([row[sample_id] for sample_id in ids])
    logits = scores.logits[:, rows]
    unknown = logits if scores.unknown is scores.logits else scores.unknown[:, rows]
    return Scores(ids, scores.label[rows], scores.present[rows], logits, unknown)
