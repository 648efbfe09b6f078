"""Predictions that follow from logits: probabilities, predicted classes, and the rank of the label."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def probabilities(logits: Tensor, multilabel: bool) -> Tensor:
    """Return the probabilities of logits (..., C): their sigmoid in multi-label data, else their softmax."""
    return logits.sigmoid() if multilabel else logits.softmax(-1)


def predicted_classes(logits: Tensor, multilabel: bool) -> Tensor:
    """Return the predicted classes: the most likely one; in multi-label data all with a probability of at least 0.5.

    Args:
        logits: Class scores, shape (N, C).
        multilabel: True if a sample may have several labels.

    Returns:
        Predicted classes, shape (N, C), bool.

    Example:
        >>> import torch
        >>> predicted_classes(torch.tensor([[2.0, 1.0, -1.0]]), multilabel=True)
        tensor([[ True,  True, False]])
    """
    if multilabel:
        return logits.sigmoid() >= 0.5
    return functional.one_hot(logits.argmax(1), logits.shape[1]).bool()


def label_ranks(logits: Tensor, label: Tensor) -> Tensor:
    """Return the rank of each sample's label among the classes sorted by logit, from 1, shape (N,).

    Classes with equal logits are ranked by their index.

    Args:
        logits: Class scores, shape (N, C).
        label: Class indices, shape (N,), int64.
    """
    own, place = logits.gather(1, label.unsqueeze(1)), torch.arange(logits.shape[1], device=logits.device)
    return ((logits > own) | ((logits == own) & (place < label.unsqueeze(1)))).sum(1) + 1
