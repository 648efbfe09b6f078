"""Expected calibration error, and the confidence bins that it shares with reliability diagrams."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics.functional.classification import binary_calibration_error

BINS = 15  # number of confidence bins (Guo et al. 2017, arXiv 1706.04599)


def calibration_error(logits: Tensor, label: Tensor) -> float:
    """Compute the expected calibration error (Guo et al. 2017, arXiv 1706.04599), in [0, 1]; lower is better.

    It is the mean absolute difference of confidence and accuracy over confidence bins, weighted by their size. The
    confidence is the probability of the most likely class. In multi-label data each class of each sample counts as a
    prediction, and its confidence is the probability of the class.

    Args:
        logits: Class scores, shape (N, C).
        label: Class indices, shape (N,), or 0/1 per class, shape (N, C).

    Example:
        >>> import torch
        >>> round(calibration_error(torch.tensor([[100.0, 0.0], [100.0, 0.0]]), torch.tensor([0, 1])), 6)
        0.5
    """
    if label.dim() == 2:
        confidence, right = logits.sigmoid(), label
    else:
        predicted = logits.argmax(1, keepdim=True)
        confidence, right = logits.softmax(1).gather(1, predicted), predicted == label.unsqueeze(1)
    # torchmetrics gives a confidence of exactly 1 a bin of its own, and in float32 its sums over many samples lose
    # digits: its counts stop at 2^24.
    below_one = confidence.flatten().double().clamp(max=1 - torch.finfo(torch.float64).eps)
    error = binary_calibration_error(below_one, right.flatten().long(), n_bins=BINS, norm="l1", validate_args=False)
    return float(error)


def confidence_bins(confidence: Tensor) -> Tensor:
    """Return the bin of each confidence, from 0 to `BINS` - 1; a bin contains its lower edge, the last one also 1.

    Args:
        confidence: Probabilities, any shape, floating point.

    Example:
        >>> import torch
        >>> confidence_bins(torch.tensor([0.0, 0.1, 0.95, 1.0]))
        tensor([ 0,  1, 14, 14])
    """
    inner_edges = torch.linspace(0, 1, BINS + 1, dtype=confidence.dtype)[1:-1]
    return torch.bucketize(confidence, inner_edges, right=True)
