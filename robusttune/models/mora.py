"""MoRA: low-rank updates of both towers of a frozen CLIP, with a part that both share.

Source: "MoRA" (ICLR 2026, arXiv 2511.06225), as its published implementation computes it. The results are the same;
`robusttune.models.low_rank` lists the shortcuts.

The published code overwrites the last word of a text that fills the text tower. That is the same as ``max_length: 76``
of the text encoder.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from robusttune.encoders.adapted_block import AdaptedBlock
from robusttune.encoders.blocks import Block
from robusttune.models.low_rank import LowRank, LowRankModel, refuse_ranks

LEAST_NORM = 1e-5  # of a column that is divided by its norm
NEAR_CLIP = 0.01  # factor of the start of A with ``near_clip``; the shared update is quadratic in it


@dataclass(frozen=True)
class MoRA(LowRankModel):
    """Settings of a `LowRankNetwork` with MoRA. The default is the published configuration of Hateful Memes.

    Args:
        shared_rank: Rank of the update that both towers share.
        image_rank: Rank of the image tower's own updates.
        text_rank: Rank of the text tower's own updates.
        alpha: Factor of all updates, which is not divided by their rank.
        near_clip: False for the published start, whose weights are far from CLIP's: two full weights are
            added, and one of them is a random direction. True for a start within about a percent of CLIP's weights.

    Raises:
        RobustTuneError: A value is out of its range.

    Example:
        >>> from robusttune.encoders import CLIPImageEncoder, CLIPTextEncoder
        >>> from robusttune.types import Facts
        >>> clip = {"name": "robusttune:demo_clip", "weights": "random", "first_layer": 3}
        >>> towers = CLIPImageEncoder(**clip).load(), CLIPTextEncoder(**clip).load()
        >>> network = MoRA().build_on(*towers, Facts(["cat", "dog"], [0.5, 0.5], multilabel=False))
        >>> len(network.layers), network.head.weight.shape
        (2, torch.Size([2, 256]))
    """

    shared_rank: int = 8
    image_rank: int = 8
    text_rank: int = 8
    alpha: float = 0.1
    near_clip: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        refuse_ranks(shared_rank=self.shared_rank, image_rank=self.image_rank, text_rank=self.text_rank)

    def adapt(self, image: Block, text: Block) -> nn.ModuleDict:
        """Return the trained part of a layer, see `LowRankModel.adapt`."""
        shared = Shared(text.width, image.width, self.shared_rank, NEAR_CLIP if self.near_clip else 1.0)
        layer = nn.ModuleDict({"shared": shared})
        for name, block, rank in (("image", image, self.image_rank), ("text", text, self.text_rank)):
            adapters: dict[str, nn.Module] = {
                target: MoRAUpdate(block.weight(target), rank, self, shared, name == "image") for target in self.targets
            }
            layer[name] = AdaptedBlock(block, adapters, self.dropout)
        return layer


class Shared(nn.Module):
    """The update of a layer that both towers share: ``C = A B^T`` couples text and image directions.

    Args:
        text: Width ``d_t`` of the text tower.
        image: Width ``d_v`` of the image tower.
        rank: Rank ``r``.
        factor: Factor of the start of ``A``.

    Attributes:
        a: Text directions, shape (d_t, r), initialised from N(0, 1 / r).
        b: Image directions, shape (d_v, r), initialised from N(0, 1 / r).
    """

    def __init__(self, text: int, image: int, rank: int, factor: float) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.randn(text, rank) * factor * rank**-0.5)
        self.b = nn.Parameter(torch.randn(image, rank) * rank**-0.5)

    def factors(self, of_images: bool) -> tuple[Tensor, Tensor]:
        """Return the factors, shape (d, r), of ``C^T C`` (image tower) or ``C C^T`` (text tower)."""
        own, other = (self.b, self.a) if of_images else (self.a, self.b)
        return own, own @ (other.T @ other)


class MoRAUpdate(LowRank):
    """The update of one projection: a sum of two directions, each with a magnitude for every input feature.

    Args:
        frozen: Frozen weight, shape (d, d).
        rank: Rank of the projection's own update.
        settings: Settings of MoRA.
        shared: Update that the projections of a layer share. It does not become a submodule.
        of_images: True in the image tower, False in the text tower.

    Attributes:
        shared_magnitude: Magnitudes of ``W + alpha S``, shape (1, d), initially the norms of W's columns.
        specific_magnitude: Magnitudes of ``W + alpha P``, shape (1, d), with the same start.
    """

    def __init__(self, frozen: Tensor, rank: int, settings: MoRA, shared: Shared, of_images: bool) -> None:
        super().__init__(len(frozen), rank, settings.alpha)
        self.of_images = of_images
        self._shared = (shared,)  # In a tuple, it does not become a submodule.
        start = frozen.detach().norm(dim=0, keepdim=True) * (0.5 if settings.near_clip else 1.0)
        self.shared_magnitude, self.specific_magnitude = (nn.Parameter(start.clone()) for _ in range(2))

    def forward(self, frozen: Tensor) -> Tensor:
        """Return the weight that replaces the frozen one, shape (d, d) each.

        The sum of both directions is ``W c + alpha L R^T`` with a factor ``c`` of each column, so that only one matrix
        of this shape is formed.
        """
        with _full_precision(frozen):
            updates = (self._shared[0].factors(self.of_images), (self.b.T, self.a))
            magnitudes, squares = (self.shared_magnitude, self.specific_magnitude), frozen.square().sum(0)
            lefts, rights = zip(*updates, strict=True)
            factors = [m[0] / self._norms(frozen, squares, *f) for m, f in zip(magnitudes, updates, strict=True)]
            right = torch.cat([r * factor.unsqueeze(1) for r, factor in zip(rights, factors, strict=True)], 1)
            return torch.addmm(frozen * sum(factors), torch.cat(lefts, 1), right.T, alpha=self.scale)

    def _norms(self, frozen: Tensor, squares: Tensor, left: Tensor, right: Tensor) -> Tensor:
        """Return the norms of the columns of ``W + alpha L R^T``, shape (d,), from products with thin matrices.

        Args:
            frozen: Frozen weight ``W``, shape (d, d).
            squares: Squared norms of its columns, shape (d,).
            left: Factor ``L``, shape (d, r).
            right: Factor ``R``, shape (d, r).
        """
        mixed = ((frozen.T @ left) * right).sum(1)
        own = ((right @ (left.T @ left)) * right).sum(1)
        return (squares + 2 * self.scale * mixed + self.scale**2 * own).clamp(min=LEAST_NORM**2).sqrt()


def _full_precision(weight: Tensor) -> AbstractContextManager[object]:
    """Return a context without autocast, so that norms keep the precision of the weights."""
    device = weight.device.type
    return torch.autocast(device, enabled=False) if torch.is_autocast_enabled(device) else nullcontext()
