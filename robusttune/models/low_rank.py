"""Low-rank updates of both towers of a frozen CLIP: plain LoRA, and its common parts with MoRA.

The layers below the first adapted one run once if their features are cached. Texts are cut to the longest of a batch.
The last layer runs for the token that is read alone. Weights are merged once in each pass. Without dropout, all absent
images of a batch are one image, and all absent texts one text.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from robusttune.encoders import FrozenEncoder
from robusttune.encoders.adapted_block import AdaptedBlock
from robusttune.encoders.blank_inputs import blank_states
from robusttune.encoders.blocks import PROJECTIONS, Block
from robusttune.encoders.upper_tower import UpperTower
from robusttune.errors import RobustTuneError
from robusttune.models.clip_heads import LinearHead
from robusttune.models.clip_network import CLIPModel, CLIPNetwork, Towers
from robusttune.types import Encoded, Facts

Projection = Literal["q_proj", "k_proj", "v_proj", "out_proj"]


@dataclass(frozen=True)
class LowRankModel(CLIPModel):
    """Settings of a `LowRankNetwork`.

    Args:
        targets: Projections of the attention that are adapted, in every layer from ``first_layer`` on that both towers
            have: any of ``q_proj``, ``k_proj``, ``v_proj``, ``out_proj``.
        dropout: Dropout probability of the whole input of an adapted projection, in [0, 1).
        absent: Replacement of an absent modality: ``dummy``, a white image or an empty text that runs through the
            tower like any other, as MoRA was published; or ``zeros`` for the feature, without a run of the tower.

    Raises:
        RobustTuneError: A value is out of its range.
    """

    targets: tuple[Projection, ...] = ("k_proj", "v_proj")
    dropout: float = 0.1
    absent: Literal["dummy", "zeros"] = "dummy"

    def __post_init__(self) -> None:
        if not self.targets or len({*self.targets}) < len(self.targets) or not {*self.targets} <= {*PROJECTIONS}:
            raise RobustTuneError(
                f"model.fusion.targets is {[*self.targets]}: give some of {', '.join(PROJECTIONS)}, each once"
            )
        if not 0 <= self.dropout < 1:
            raise RobustTuneError(f"model.fusion.dropout is {self.dropout}: give a share in [0, 1)")

    @abstractmethod
    def adapt(self, image: Block, text: Block) -> nn.ModuleDict:
        """Return the trained part of a layer, which has an `AdaptedBlock` for each tower, ``image`` and ``text``."""

    def build_on(self, image: FrozenEncoder, text: FrozenEncoder, facts: Facts) -> LowRankNetwork:
        """Build the network.

        Raises:
            RobustTuneError: The encoders are not the towers of a CLIP, their first layers differ, or no layer with such
                a number is in both.
        """
        towers = Towers.of(image, text, type(self).__name__, siglip=True)
        first, other = towers.first_layers
        if first != other or not all(len(tower.upper.blocks) for tower in towers):
            raise RobustTuneError(
                f"{type(self).__name__} adapts layers with the same numbers in both towers, and first_layer is {first} "
                f"in image_encoder, {other} in text_encoder: give both the number of a layer that both have"
            )
        return LowRankNetwork(self, towers, facts)


class LowRankNetwork(CLIPNetwork):
    """A CLIP whose attention has low-rank updates in the upper layers of both towers, and a linear head.

    The features are CLIP's own: projected, not normalised. Layers of the towers are paired by their number. Layers
    that the other tower does not have run unchanged. The towers may be those of a SigLIP, which is our extension: the
    features are its attention pooling of the patches and its last position of a text, whose pooling is not adapted.

    Args:
        settings: Settings of the network.
        towers: Towers, from the first adapted layer on.
        facts: Class names and class frequencies of the training data.

    Attributes:
        layers: Trained part of each adapted layer, of both towers.
        image_dummy: States of a white image that enter the upper layers, shape (n, d_v).
        text_dummy: States of an empty text that enter the upper layers, shape (2, d_t).
    """

    reads_pattern = False
    image_dummy: Tensor
    text_dummy: Tensor

    def __init__(self, settings: LowRankModel, towers: Towers, facts: Facts) -> None:
        super().__init__(towers, facts)
        self.skips_absent, self.drops = settings.absent == "zeros", settings.dropout > 0
        pairs = zip(*(upper.blocks for upper in self.upper), strict=False)
        self.layers = nn.ModuleList(settings.adapt(*pair) for pair in pairs)
        self.head = LinearHead(2 * self.upper[0].shape.shared_width, len(facts.class_names), zero_bias=False)
        image, text = (self._adapted(upper, name) for upper, name in zip(self.upper, Towers._fields, strict=True))
        self._upper = image, text
        dummies = (None, None) if self.skips_absent else blank_states(*towers)
        for name, states in zip(Towers._fields, dummies, strict=True):
            self.register_buffer(f"{name}_dummy", states, persistent=False)

    def image_features(self, states: Tensor, pattern: Tensor) -> Tensor:
        """Compute the features of images, see `CLIPNetwork.image_features`."""
        del pattern
        return self._feature(self.upper[0], states, None)

    def text_features(self, states: Tensor, mask: Tensor, pattern: Tensor) -> Tensor:
        """Compute the features of texts, see `CLIPNetwork.text_features`."""
        del pattern
        return self._feature(self.upper[1], states, mask)

    def _feature(self, upper: UpperTower, states: Tensor, mask: Tensor | None) -> Tensor:
        """Run a tower and project the states of `UpperTower.read`, without normalisation, shape (B, d_e)."""
        for block in upper.blocks[:-1]:
            states = self.run(block, states, upper.causal)
        last = upper.blocks[-1].read_some(states, upper.read(states, mask), mask if upper.causal else None)
        feature: Tensor = upper.projection(upper.norm(last)).squeeze(1)
        return feature

    def pair_logits(
        self, image: Encoded, text: Encoded, rows: tuple[Tensor, Tensor], present: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Compute the logits of pairs, see `PairNetwork.pair_logits`, with a dummy for each absent modality."""
        if self.skips_absent:
            return super().pair_logits(image, text, rows, present)
        image, images = self._with_dummies(image, self.image_dummy, rows[0], present[0])
        text, texts = self._with_dummies(text, self.text_dummy, rows[1], present[1])
        everywhere = torch.ones_like(present[0])
        logits, _ = super().pair_logits(image, text, (images, texts), (everywhere, everywhere))
        return logits, present[0] | present[1]

    def _with_dummies(self, encoded: Encoded, dummy: Tensor, rows: Tensor, present: Tensor) -> tuple[Encoded, Tensor]:
        """Append rows with a dummy, and let pairs without the modality refer to them.

        With dropout each of these pairs has a row of its own. Otherwise they share one, which is computed once.

        Args:
            encoded: Output of the encoder.
            dummy: States of the dummy, shape (m, d).
            rows: Row of the output in each pair, shape (R,).
            present: Mask of the pairs with the modality, shape (R,), bool.

        Returns:
            Output with the dummies behind the other rows, and the row of each pair.
        """
        number = (~present).cumsum(0) - 1 if self.training and self.drops else torch.zeros_like(rows)
        count = 1 if torch.compiler.is_compiling() else int(torch.where(present, 0, number + 1).amax())
        tokens, mask = encoded.tokens[0], encoded.mask[0]
        if not torch.compiler.is_compiling():  # A batch without texts has one token, an exported graph four at least.
            missing = max(0, len(dummy) - tokens.shape[1])
            tokens, mask = functional.pad(tokens, (0, 0, 0, missing)), functional.pad(mask, (0, missing))
        length = tokens.shape[1]
        padded = functional.pad(dummy.to(tokens.dtype), (0, 0, 0, length - len(dummy))).expand(count, -1, -1)
        real = (torch.arange(length, device=mask.device) < len(dummy)).expand(count, -1)
        joined = Encoded(encoded.pooled, [torch.cat([tokens, padded])], [torch.cat([mask, real])])
        return joined, torch.where(present, rows, len(tokens) + number)

    def _adapted(self, upper: UpperTower, name: str) -> UpperTower:
        """Return a tower with its adapted layers in place of frozen ones."""
        adapted = [layer[name] for layer in self.layers]  # type: ignore[index]
        blocks = [*adapted, *upper.blocks[len(adapted) :]]
        return UpperTower(blocks, upper.norm, upper.projection, upper.reads)


class LowRank(nn.Module):
    """A low-rank update of a frozen weight: ``W + scale P`` with ``P = (A B)^T``, as in LoRA.

    Args:
        width: Width ``d`` of the weight, of shape (d, d).
        rank: Rank ``r`` of the update.
        scale: Factor of the update.

    Attributes:
        a: Factor of shape (d, r), initialised from N(0, 1 / r).
        b: Factor of shape (r, d), initially zero.
    """

    def __init__(self, width: int, rank: int, scale: float) -> None:
        super().__init__()
        self.scale = scale
        self.a = nn.Parameter(torch.randn(width, rank) * rank**-0.5)
        self.b = nn.Parameter(torch.zeros(rank, width))

    def forward(self, frozen: Tensor) -> Tensor:
        """Return the updated weight, given the frozen one, shape (d, d) each."""
        return frozen + self.scale * (self.a @ self.b).T


@dataclass(frozen=True)
class LoRA(LowRankModel):
    """Settings of a `LowRankNetwork` with plain LoRA in both towers: ``W + alpha / rank P``.

    It is the baseline of MoRA under equal conditions: the same layers, projections, dropout and head.

    Args:
        rank: Rank ``r`` of an update.
        alpha: Scale of an update, which is divided by the rank.

    Raises:
        RobustTuneError: A value is out of its range.

    Example:
        >>> LoRA(targets=("q_proj", "v_proj"), rank=4).alpha
        8.0
    """

    rank: int = 8
    alpha: float = 8.0

    def __post_init__(self) -> None:
        super().__post_init__()
        refuse_ranks(rank=self.rank)

    def adapt(self, image: Block, text: Block) -> nn.ModuleDict:
        """Return the trained part of a layer, see `LowRankModel.adapt`."""
        layer = nn.ModuleDict()
        for name, block in (("image", image), ("text", text)):
            adapters: dict[str, nn.Module] = {
                target: LowRank(block.width, self.rank, self.alpha / self.rank) for target in self.targets
            }
            layer[name] = AdaptedBlock(block, adapters, self.dropout)
        return layer


def refuse_ranks(**ranks: int) -> None:
    """Check ranks, given by the names of their settings.

    Raises:
        RobustTuneError: One is below 1.
    """
    for name, rank in ranks.items():
        if rank < 1:
            raise RobustTuneError(f"model.fusion.{name} is {rank}: give at least 1")
