"""Containers for the logits of all samples, joined over batches and ranks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Scores(NamedTuple):
    """The logits of ``N`` samples in ``W`` views.

    Attributes:
        sample_id: Ids of the samples.
        label: Class indices, shape (N,), int64, or 0/1 per class, shape (N, C), float, in multi-label data.
        present: Flags that the sample has an image and that it has a text, shape (N, 2), bool.
        logits: Class scores, shape (W, N, C), float32.
        unknown: Class scores of a model that does not know if a sample belongs to a class of training (base) or not
            (new), shape (W, N, C), float32. They equal ``logits`` unless there are classes of both kinds.

    Example:
        >>> logits, present = torch.zeros(3, 2, 10), torch.ones(2, 2, dtype=torch.bool)
        >>> scores = Scores(["a", "b"], torch.tensor([4, 9]), present, logits, unknown=logits)
        >>> scores.logits.shape  # 3 views, 2 samples, 10 classes
        torch.Size([3, 2, 10])
    """

    sample_id: list[str]
    label: Tensor
    present: Tensor
    logits: Tensor
    unknown: Tensor


def join(parts: Sequence[Scores]) -> Scores:
    """Concatenate the samples of several parts.

    Example:
        >>> import torch
        >>> logits = torch.zeros(1, 1, 2)
        >>> part = Scores(["a"], torch.tensor([0]), torch.ones(1, 2, dtype=torch.bool), logits, logits)
        >>> join([part, part]).sample_id
        ['a', 'a']
    """
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
    """Concatenate the samples of several parts, keep each id once, and sort the samples by id."""
    scores = join(parts)
    row = {sample_id: i for i, sample_id in enumerate(scores.sample_id)}
    ids = sorted(row)
    if ids == scores.sample_id:
        return scores
    rows = torch.tensor([row[sample_id] for sample_id in ids])
    logits = scores.logits[:, rows]
    unknown = logits if scores.unknown is scores.logits else scores.unknown[:, rows]
    return Scores(ids, scores.label[rows], scores.present[rows], logits, unknown)
