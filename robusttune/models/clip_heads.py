"""The trained ends of networks on CLIP towers: output projections, and the linear classifier of both features."""

from __future__ import annotations

import copy

from torch import Tensor, nn

from robusttune.encoders.clip import UpperTower


class LinearHead(nn.Linear):
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
        """Return logits (B, C), given features (B, 2 d_e); the ``pattern`` of present modalities is not needed."""
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
