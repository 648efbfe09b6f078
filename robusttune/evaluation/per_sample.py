"""Metrics of single samples, whose means over the samples are metrics of a data set and can be bootstrapped."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def sample_losses(logits: Tensor, label: Tensor, smoothing: float = 0.0, frequencies: Tensor | None = None) -> Tensor:
    """Return the cross-entropy of each sample, shape (B,).

    It is categorical in multi-class data. In multi-label data it is binary and averaged over the classes.

    Args:
        logits: Class scores, shape (B, C).
        label: Class indices, shape (B,), or 0/1 per class, shape (B, C).
        smoothing: Label smoothing, the fraction of the label that is spread evenly over all classes (Szegedy et al.
            2016), in [0, 1).
        frequencies: Class frequencies in multi-label data, shape (C,), towards which smoothing moves the labels; None
            for 1/2.

    Example:
        >>> import torch
        >>> sample_losses(torch.zeros(1, 2), torch.tensor([0])).exp()
        tensor([2.])
    """
    if label.dim() == 1:
        return functional.cross_entropy(logits, label, reduction="none", label_smoothing=smoothing)
    target = label * (1 - smoothing) + smoothing * (0.5 if frequencies is None else frequencies)
    return functional.binary_cross_entropy_with_logits(logits, target, reduction="none").mean(1)


def sample_briers(logits: Tensor, label: Tensor) -> Tensor:
    """Return the Brier score of each sample, shape (B,): the squared distance between probabilities and label.

    In multi-class data it is summed over the classes (Brier 1950), so it is in [0, 2]. In multi-label data it is
    averaged over them, in [0, 1].

    Args:
        logits: Class scores, shape (B, C).
        label: Class indices, shape (B,), or 0/1 per class, shape (B, C).
    """
    if label.dim() == 1:
        return (logits.softmax(1) - functional.one_hot(label, logits.shape[1])).square().sum(1)
    return (logits.sigmoid() - label).square().mean(1)


def samples_f1(predicted: Tensor, label: Tensor) -> Tensor:
    """Return the F1 of each sample over its predicted and true classes, shape (N,); 0 if both are empty.

    Args:
        predicted: Predicted classes, shape (N, C), bool.
        label: True classes, shape (N, C), bool.
    """
    both = (predicted & label).sum(1)
    return 2 * both / (predicted.sum(1) + label.sum(1)).clamp(min=1)


def label_ranks(logits: Tensor, label: Tensor) -> Tensor:
    """Return the rank of each sample's label among the classes sorted by logit, from 1, shape (N,).

    Classes with equal logits are ranked by their index.

    Args:
        logits: Class scores, shape (N, C).
        label: Class indices, shape (N,), int64.
    """
    own, place = logits.gather(1, label.unsqueeze(1)), torch.arange(logits.shape[1], device=logits.device)
    return ((logits > own) | ((logits == own) & (place < label.unsqueeze(1)))).sum(1) + 1
