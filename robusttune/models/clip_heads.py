"""The trained ends of networks on CLIP towers: output projections, and the linear classifier of both features."""

from __future__ import annotations

import copy
from abc import abstractmethod

from torch import Tensor, nn

from robusttune.encoders.upper_tower import UpperTower


class Head(nn.Module):
    """The last part of a network on CLIP towers, from the features of both modalities to logits.

    Attributes:
        gives_cosines: True if the logits are cosines, in [-1, 1].
    """

    gives_cosines = False

    @abstractmethod
    def forward(self, features: Tensor, pattern: Tensor) -> Tensor:
        """Return logits, shape (B, C).

        Args:
            features: Features of both modalities, image first, zeros where one is absent, shape (B, 2 d_e).
            pattern: Pattern of present modalities of each row, shape (B,), int64.
        """

    def training_logits(self, logits: Tensor, label: Tensor, pattern: Tensor) -> Tensor:
        """Return the logits that the training loss is computed from; by default the logits themselves.

        Args:
            logits: Logits, shape (B, C).
            label: Class indices, shape (B,), or 0/1 per class, shape (B, C).
            pattern: Pattern of present modalities of each row, shape (B,), int64.
        """
        del label, pattern
        return logits

    def extra_losses(self) -> dict[str, Tensor]:
        """Return losses of the head's own weights, see `FusionNetwork.extra_losses`."""
        return {}


class LinearHead(nn.Linear, Head):
    """A linear classifier of the features of both modalities, initialised from N(0, 0.02^2).

    Args:
        width: Width ``2 d_e`` of both features together.
        classes: Number ``C`` of classes.
        zero_bias: True for a bias that starts at zero, as in DCP; False for torch's own start, as in MoRA.
    """

    def __init__(self, width: int, classes: int, zero_bias: bool) -> None:
        super().__init__(width, classes)
        nn.init.normal_(self.weight, std=0.02)
        if zero_bias:
            nn.init.zeros_(self.bias)

    def forward(self, features: Tensor, pattern: Tensor) -> Tensor:  # type: ignore[override]
        """Return logits, see `Head.forward`; the ``pattern`` is not needed."""
        del pattern
        return super().forward(features)


class TrainedOutput(nn.Module):
    """Trained copies of a tower's last layer norm and, in the vision tower, of its projection, as in DCP and DPL.

    Args:
        upper: Frozen tower that the copies start from.
        project: True to train the projection, too; False to use the frozen one.

    Attributes:
        projection: Weight of shape (d_e, d), or None.
    """

    def __init__(self, upper: UpperTower, project: bool) -> None:
        super().__init__()
        self.norm: nn.Module = copy.deepcopy(upper.norm).requires_grad_(True)
        self.projection = nn.Parameter(upper.projection.weight.detach().clone()) if project else None

    def forward(self, upper: UpperTower, states: Tensor) -> Tensor:
        """Return features, shape (B, d_e), not normalised.

        Args:
            upper: Frozen tower.
            states: Last states of class or end tokens, shape (B, d).
        """
        weight = upper.projection.weight if self.projection is None else self.projection
        return nn.functional.linear(self.norm(states), weight)
