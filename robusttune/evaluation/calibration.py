"""Expected calibration error, and the confidence bins that it shares with reliability diagrams."""

from __future__ import annotations

import torch
from torch import Tensor

from robusttune.evaluation.exact import as_integers, from_integers

BINS = 15  # number of confidence bins (Guo et al. 2017, arXiv 1706.04599)


def binned(confidence: Tensor, right: Tensor) -> Tensor:
    """Add up predictions in each confidence bin. The sums are exact, so those of parts of the data can be added.

    Args:
        confidence: Probabilities of predictions, shape (Q,), floating point.
        right: Flags of right predictions, shape (Q,), bool.

    Returns:
        Number of predictions, number of right ones, and summed confidence (as in `as_integers`) of each bin, shape
        (15, 4), int64.
    """
    values = torch.stack([torch.ones_like(right, dtype=torch.int64), right.long()], 1)
    values = torch.cat([values, as_integers(confidence)], 1)
    return torch.zeros(BINS, 4, dtype=torch.int64).index_add_(0, confidence_bins(confidence.double()), values)


def calibration_error(bins: Tensor) -> float:
    """Compute the expected calibration error (Guo et al. 2017, arXiv 1706.04599), in [0, 1]; lower is better.

    It is the mean absolute difference of confidence and accuracy over confidence bins, weighted by their size. The
    confidence is the probability of the most likely class. In multi-label data each class of each sample counts as a
    prediction, and its confidence is the probability of the class.

    Args:
        bins: Sums of the predictions in each bin, see `binned`; at least one prediction.

    Example:
        >>> round(calibration_error(binned(torch.tensor([1.0, 1.0]), torch.tensor([True, False]))), 6)
        0.5
    """
    return float((bins[:, 1] - from_integers(bins[:, 2:])).abs().sum() / bins[:, 0].sum())


def confidence_bins(confidence: Tensor) -> Tensor:
    """Return the bin of each confidence, from 0 to `BINS` - 1; a bin contains its lower edge, the last one also 1.

    Args:
        confidence: Probabilities, any shape, floating point.

    Example:
        >>> confidence_bins(torch.tensor([0.0, 0.1, 0.95, 1.0]))
        tensor([ 0,  1, 14, 14])
    """
    inner_edges = torch.linspace(0, 1, BINS + 1, dtype=confidence.dtype)[1:-1]
    return torch.bucketize(confidence, inner_edges, right=True)
