"""From class scores to probabilities and predicted classes, for samples of one class and of several."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional


def probabilities(logits: Tensor, multilabel: bool) -> Tensor:
    """Return the probabilities of logits (..., C): their sigmoid in multi-label data, else their softmax.

    Example:
        >>> import torch
        >>> probabilities(torch.zeros(1, 4), multilabel=False)
        tensor([[0.2500, 0.2500, 0.2500, 0.2500]])
    """
    return logits.sigmoid() if multilabel else logits.softmax(-1)


def predicted_classes(logits: Tensor, multilabel: bool, cuts: Tensor | float = 0.0) -> Tensor:
    """Return the predicted classes: the most likely one; in multi-label data all whose logit reaches a threshold.

    Args:
        logits: Class scores, shape (N, C).
        multilabel: True if a sample may have several labels.
        cuts: Logits from which a class is predicted in multi-label data, shape (N, C), or one for all; 0 stands for a
            probability of 0.5.

    Returns:
        Predicted classes, shape (N, C), bool.

    Example:
        >>> import torch
        >>> predicted_classes(torch.tensor([[2.0, 1.0, -1.0]]), multilabel=True)
        tensor([[ True,  True, False]])
    """
    if multilabel:
        return (logits - cuts).sigmoid() >= 0.5
    return functional.one_hot(logits.argmax(1), logits.shape[1]).bool()
