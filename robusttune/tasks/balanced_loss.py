"""The cross-entropy of training, with the settings for imbalanced classes."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from robusttune.evaluation import sample_losses
from robusttune.models.balance import Balance, class_weights, positive_weights, prior_logits
from robusttune.types import Facts


class BalancedLoss(nn.Module):
    """The loss of each sample, with class weights, focal factors and logit adjustment as `Balance` describes them.

    With smoothed labels, the loss is the sum over the classes of label x weight x focal factor x -log probability. So
    without a focal factor it is that of `torch.nn.CrossEntropyLoss`. The default settings give exactly
    `sample_losses`. No checkpoint stores the buffers, because they follow from the settings and the facts.

    Args:
        balance: Settings for imbalanced classes.
        facts: Class names, class frequencies and kind of task, from the training data.
        smoothing: Label smoothing, see `sample_losses`; in multi-label data towards the class frequencies. A target of
            1/2 would teach that every rare class is likely.

    Raises:
        RobustTuneError: A class lacks the training samples that a setting needs.

    Example:
        >>> facts = Facts(["cat", "dog"], [0.75, 0.25], multilabel=False)
        >>> loss = BalancedLoss(Balance(weights="inverse"), facts)
        >>> loss(torch.zeros(2, 2), torch.tensor([0, 1])), loss.weights(torch.tensor([0, 1]))
        (tensor([0.3466, 1.0397]), tensor([0.5000, 1.5000]))
    """

    class_weights: Tensor | None
    positive_weights: Tensor | None
    adjustment: Tensor | None
    frequencies: Tensor

    def __init__(self, balance: Balance, facts: Facts, smoothing: float = 0.0) -> None:
        super().__init__()
        self.smoothing = smoothing
        self.focal = balance.focal
        tau = balance.logit_adjustment
        adjustment = tau * prior_logits("logit_adjustment", facts, facts.class_names) if tau > 0 else None
        self.register_buffer("class_weights", class_weights(balance, facts), persistent=False)
        self.register_buffer("positive_weights", positive_weights(balance, facts), persistent=False)
        self.register_buffer("adjustment", adjustment, persistent=False)
        self.register_buffer("frequencies", torch.tensor(facts.class_frequencies), persistent=False)

    def forward(self, logits: Tensor, label: Tensor) -> Tensor:
        """Return the weighted loss of each sample, shape (B,). Its mean is the sum divided by that of `weights`.

        Args:
            logits: Class scores, shape (B, C).
            label: Class indices, shape (B,), or 0/1 per class, shape (B, C).
        """
        if self.adjustment is not None:
            logits = logits + self.adjustment
        if self.focal == 0 and self.class_weights is None and self.positive_weights is None:
            return sample_losses(logits, label, self.smoothing, self.frequencies)
        if logits.dtype in (torch.float16, torch.bfloat16):
            logits = logits.float()
        return self._multiclass(logits, label) if label.dim() == 1 else self._multilabel(logits, label)

    def weights(self, label: Tensor) -> Tensor | None:
        """Return what a sample counts in the mean, shape (B,): the weight of its class; None if all count the same.

        Args:
            label: Class indices, shape (B,), or 0/1 per class, shape (B, C).
        """
        if self.class_weights is None or label.dim() == 2:
            return None
        return self.class_weights[label]

    def _multiclass(self, logits: Tensor, label: Tensor) -> Tensor:
        classes = logits.shape[1]
        target = functional.one_hot(label, classes) * (1 - self.smoothing) + self.smoothing / classes
        log_probability = logits.log_softmax(1)
        losses = -target * self._focal_factor(1 - log_probability.exp()) * log_probability
        return (losses if self.class_weights is None else losses * self.class_weights).sum(1)

    def _multilabel(self, logits: Tensor, label: Tensor) -> Tensor:
        target = label * (1 - self.smoothing) + self.smoothing * self.frequencies
        positive = -target * self._focal_factor((-logits).sigmoid()) * functional.logsigmoid(logits)
        negative = -(1 - target) * self._focal_factor(logits.sigmoid()) * functional.logsigmoid(-logits)
        losses = negative + (positive if self.positive_weights is None else positive * self.positive_weights)
        return (losses if self.class_weights is None else losses * self.class_weights).mean(1)

    def _focal_factor(self, missing: Tensor) -> Tensor | float:
        """Return (1 - p) ** gamma, given 1 - p. Without the clamp, the gradient is NaN if p is 1 and gamma below 1."""
        return 1.0 if self.focal == 0 else missing.clamp(min=torch.finfo(missing.dtype).tiny) ** self.focal
