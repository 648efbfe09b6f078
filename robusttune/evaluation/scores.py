"""A container for the logits of some samples."""

from __future__ import annotations

from typing import NamedTuple

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
        >>> import torch
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
