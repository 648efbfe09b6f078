"""MMRL and MMRL++: a learned representation space supplies tokens to the upper layers of both towers of a frozen CLIP.

Sources: "MMRL: Multi-Modal Representation Learning for Vision-Language Models" (CVPR 2025, arXiv 2503.08497), and its
extension MMRL++ (arXiv 2505.10088).

The results equal those of the published implementation, with less computation. Padding of prompts is not processed.
The layers below the first one that takes tokens run once. In the last layer only the tokens that are read are computed.
The common prefix of all prompts is computed once for all classes, see `MMRLNetwork.text_features`.

On SigLIP (arXiv 2303.15343, 2502.14786), which has no class token, the design is this package's own:

* The class feature is SigLIP's attention pooling over the patches. It does not attend to the representation tokens, so
  the regularisation compares it with the same pooling in the frozen model.
* The representation feature is the projected mean of the representation tokens, as on CLIP. MMRL++ adds its residual to
  the frozen pooling of that mean as a single token, since no other frozen map leads into the embedding space.
* In texts, all tokens attend to each other, representation tokens and padding included, as SigLIP was trained. The
  feature is read from the last position. Prompts share no states, so a step costs more per class than on CLIP.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from robusttune.encoders.blocks import Block
from robusttune.encoders.upper_tower import TowerShape, UpperTower, unit
from robusttune.errors import RobustTuneError
from robusttune.models.mmrl_maps import LayerMaps, Projection, ResidualMaps, ResidualProjection
from robusttune.models.packed import Packed
from robusttune.models.runner import Runner


@dataclass(frozen=True)
class MMRL:
    """Settings of an `MMRLNetwork`. MMRL++ has ``beta: 0.9, residual_rank: 4, projection_rank: 64``.

    Args:
        space_tokens: Number ``K`` of tokens in the representation space.
        space_width: Width ``d_r`` of these tokens.
        beta: Weight of a layer's new tokens, in (0, 1]. The rest is the output of the layer below at their positions.
            With 1 they overwrite that output, as in MMRL. The first layer always takes new tokens.
        residual_rank: Rank of each layer's residual map, which is added to a map that all layers of a tower share
            (MMRL++). None for an independent linear map per layer (MMRL).
        projection_rank: Rank of the residual that is added to CLIP's frozen projection (SigLIP: to its frozen pooling)
            to project representation features (MMRL++). None for a new projection (MMRL).

    Raises:
        RobustTuneError: A number is out of its range.

    Example:
        >>> from robusttune.encoders.upper_tower import TowerShape
        >>> network = MMRLNetwork(MMRL(), TowerShape(7, 768, 512), TowerShape(7, 512, 512))
        >>> sum(parameter.numel() for parameter in network.parameters())
        4992256
    """

    space_tokens: int = 5
    space_width: int = 512
    beta: float = 1.0
    residual_rank: int | None = None
    projection_rank: int | None = None

    def __post_init__(self) -> None:
        for name in ("space_tokens", "space_width", "residual_rank", "projection_rank"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise RobustTuneError(f"model.adapter.{name} is {value}: give at least 1")
        if not 0 < self.beta <= 1:  # written so that NaN is refused, too
            raise RobustTuneError(f"model.adapter.beta is {self.beta}: give a share above 0, and of at most 1")


class SpaceTokens(NamedTuple):
    """The tokens that the representation space supplies to the layers of each tower.

    Attributes:
        image: Tokens of the vision tower, shape (layers, K, d_v).
        text: Tokens of the text tower, shape (layers, K, d_t).
    """

    image: Tensor
    text: Tensor


class MMRLNetwork(nn.Module):
    """The trained part of MMRL. Its methods take the frozen upper layers of CLIP as arguments.

    Args:
        settings: Settings of the network.
        image: Sizes of the vision tower's upper layers.
        text: Sizes of the text tower's upper layers.

    Attributes:
        space: Representation space ``R``, shape (K, d_r), initialised from N(0, 0.02^2).
        run: Runner of the frozen layers.
    """

    run = Runner()

    def __init__(self, settings: MMRL, image: TowerShape, text: TowerShape) -> None:
        super().__init__()
        self.beta = settings.beta
        self.space = nn.Parameter(torch.randn(settings.space_tokens, settings.space_width) * 0.02)
        maps = LayerMaps if settings.residual_rank is None else ResidualMaps
        self.image_maps, self.text_maps = (maps(settings, t.layers, t.width) for t in (image, text))
        self.projection = Projection(image) if settings.projection_rank is None else ResidualProjection(settings, image)

    def tokens(self) -> SpaceTokens:
        """Return the tokens that are inserted into each layer. They are the same for all samples."""
        return SpaceTokens(self.image_maps(self.space), self.text_maps(self.space))

    def image_features(self, upper: UpperTower, states: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the class features ``f`` and the representation features ``f_r`` of images.

        Args:
            upper: Upper layers of the vision tower.
            states: States that enter them, shape (B, n, d), with the class token first if there is one.
            tokens: Inserted tokens of each layer, shape (layers, K, d).

        Returns:
            Class features and representation features, both scaled to length 1, shape (B, d_e) each.
        """
        return self.run(self._image_end, upper, *self._below_last(upper, states, tokens))

    def text_features(self, upper: UpperTower, texts: Packed, tokens: Tensor) -> Tensor:
        """Compute the features ``w`` of class prompts or other texts.

        In CLIP, attention is causal. So the tokens that all texts begin with (the start token, the inserted tokens and
        the opening words of a template) have the same states in every text. They run once, and each text attends to
        their keys and values. In SigLIP, all tokens of a text attend to each other, and no part of it can be shared.

        Args:
            upper: Upper layers of the text tower.
            texts: States that enter them.
            tokens: Inserted tokens of each layer, shape (layers, K, d).

        Returns:
            Features scaled to length 1, shape (C, d_e), one row per text.
        """
        if not upper.causal:
            return self.run(self._full_text_end, upper, *self._below_last(upper, texts.pad(texts.states), tokens))
        count, space = tokens.shape[1], None
        start, rest, mask = texts.shared[:1], torch.cat([texts.shared[1:], texts.states]), texts.mask(count)
        for block, new in zip(upper.blocks[:-1], tokens[:-1], strict=True):
            space = self._mix_tokens(new, space)
            start, space, rest = self.run(self._text_layer, block, start, space, rest, texts, mask)
        return self.run(self._text_end, upper, start, self._mix_tokens(tokens[-1], space), rest, texts)

    def _below_last(self, upper: UpperTower, states: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Run all layers but the last; all tokens attend to each other.

        Args:
            upper: Upper layers of a tower.
            states: States that enter them, shape (B, n, d).
            tokens: Inserted tokens of each layer, shape (layers, K, d).

        Returns:
            Inserted tokens, shape (1 or B, K, d), and other states, shape (B, n, d), that enter the last layer.
        """
        space = None
        for block, new in zip(upper.blocks[:-1], tokens[:-1], strict=True):
            space, states = self.run(self._full_layer, block, self._mix_tokens(new.unsqueeze(0), space), states)
        return self._mix_tokens(tokens[-1].unsqueeze(0), space), states

    def _full_layer(self, block: Block, space: Tensor, states: Tensor) -> tuple[Tensor, Tensor]:
        """Run one layer; all tokens attend to each other.

        Args:
            block: Frozen layer.
            space: Inserted tokens, shape (1 or B, K, d).
            states: States of the other tokens, shape (B, n, d).

        Returns:
            Output at the positions of the inserted tokens and of the other tokens. With ``beta`` 1 the next layer
            overwrites the former, so they are returned unchanged.
        """
        batch, count = len(states), space.shape[1]
        if self.beta == 1:  # the next layer overwrites the output at the inserted tokens
            return space, block(states, front=_expand(block.keys_and_values(space), batch))
        normed_space, normed = block.norm1(space), block.norm1(states)
        key_value = torch.cat([_expand(block.key_value(normed_space), batch), block.key_value(normed)], 1)
        states = torch.cat([_expand(space, batch), states], 1)
        normed = torch.cat([_expand(normed_space, batch), normed], 1)
        states = block.finish(states, block.attend(block.query(normed), key_value))
        space, states = _split(states, count, dim=1)
        return space, states

    def _image_end(self, upper: UpperTower, space: Tensor, states: Tensor) -> tuple[Tensor, Tensor]:
        """Run the last layer of the vision tower and return class and representation features, shape (B, d_e) each.

        The class feature is read from the class token or, in SigLIP, from the patches: its probe does not attend to the
        inserted tokens, as the frozen model's does not.
        """
        count, space = space.shape[1], _expand(space, len(states))
        asking = torch.cat([space, upper.read(states)], 1)
        space, read = _split(upper.blocks[-1].read_some(torch.cat([space, states], 1), asking), count, dim=1)
        return upper.read_out(read), unit(self.projection(upper, upper.norm(space).mean(1)))

    def _full_text_end(self, upper: UpperTower, space: Tensor, states: Tensor) -> Tensor:
        """Run the last layer of a text tower without causal attention, and return features, shape (C, d_e)."""
        tokens = torch.cat([_expand(space, len(states)), states], 1)
        return upper.read_out(upper.blocks[-1].read_some(tokens, upper.read(states)))

    def _text_layer(
        self, block: Block, start: Tensor, space: Tensor, rest: Tensor, texts: Packed, mask: Tensor
    ) -> tuple[Tensor, ...]:
        """Run one layer of a causal text tower.

        Args:
            block: Frozen layer.
            start: State of the start token, shape (1, d).
            space: Inserted tokens, shape (K, d).
            rest: States of all other tokens, first those that all texts share, shape (p - 1 + S, d).
            texts: Packed texts, which give the position of each token.
            mask: Attention mask of the tokens that are not shared, see `Packed.mask`.

        Returns:
            Output for ``start``, ``space`` and ``rest``.
        """
        count = len(space)
        shared_count = count + len(texts.shared)  # tokens of the common prefix
        states = torch.cat([start, space, rest])
        normed = block.norm1(states)
        shared_query, query = _split(block.query(normed), shared_count)
        shared, key_value = _split(block.key_value(normed), shared_count)
        shared_attended = block.attend(shared_query.unsqueeze(0), shared.unsqueeze(0), causal=True).squeeze(0)
        own_attended = block.attend(texts.pad(query), texts.pad(key_value, shared), mask)
        states = block.finish(states, torch.cat([shared_attended, texts.unpad(own_attended)]))
        return _split(states, 1, count)

    def _text_end(self, upper: UpperTower, start: Tensor, space: Tensor, rest: Tensor, texts: Packed) -> Tensor:
        """Run the last layer of a causal text tower for the last token of each text, and return features (C, d_e)."""
        block, count = upper.blocks[-1], len(space)
        shared_count = count + len(texts.shared)
        end = shared_count + texts.end
        states = torch.cat([start, space, rest])
        normed = block.norm1(states)
        shared, own = _split(normed, shared_count)
        tokens, mask = texts.pad(own, shared), texts.mask_of_end(count)
        attended = block.attend_few(normed[end].unsqueeze(1), tokens, mask).squeeze(1)
        return upper.read_out(block.finish(states[end], attended).unsqueeze(1))

    def _mix_tokens(self, new: Tensor, below: Tensor | None) -> Tensor:
        """Return the tokens that enter a layer: ``beta`` new + (1 - ``beta``) below, as in MMRL++.

        Args:
            new: New tokens of the layer, shape (K, d) or (1, K, d).
            below: Output of the layer below at their positions, shape (..., K, d); None in the first layer.
        """
        return new if below is None or self.beta == 1 else self.beta * new + (1 - self.beta) * below


def _split(values: Tensor, *sizes: int, dim: int = 0) -> tuple[Tensor, ...]:
    """Split a tensor into parts of the given sizes and the rest.

    The backward pass joins the gradients of all parts in one step, which slicing each part would not.
    """
    return torch.split_with_sizes(values, [*sizes, values.shape[dim] - sum(sizes)], dim)


def _expand(shared: Tensor, count: int) -> Tensor:
    """Expand a tensor of shape (1 or count, n, d) to shape (count, n, d)."""
    return shared.expand(count, -1, -1)
