"""A reference implementation of MoRA and LoRA without any shortcut, on an unmodified CLIP of transformers.

Every layer runs on every token, of texts at full length, and for dummies like for any other image or text. Weights are
written as their definitions say.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

ADAPTED = re.compile(r"model\.((text|vision)_model\.encoder\.layers\.(\d+)\.self_attn\.(\w+_proj))\.modality_A")
SHARED = "model.text_model.encoder.layers.{}.self_attn.{}.shared_params.shared_{}"


class PlainProjection(nn.Module):
    """A projection of CLIP with an update.

    Args:
        linear: CLIP's own projection.
        tensors: Trained tensors of the projection by the last part of their published name, and ``A`` and ``B``, the
            directions that a layer shares; LoRA has neither these nor magnitudes.
        scale: Factor of the updates.
        of_text: True in the text tower.
    """

    def __init__(self, linear: nn.Linear, tensors: Mapping[str, Tensor], scale: float, of_text: bool) -> None:
        super().__init__()
        self.linear, self.tensors, self.scale, self.of_text = linear, tensors, scale, of_text
        self.dropout: nn.Module = nn.Identity()

    def weight(self) -> Tensor:
        """Return the weight that takes part in the product."""
        tensors, frozen = self.tensors, self.linear.weight
        specific = frozen + self.scale * (tensors["modality_A"] @ tensors["modality_B"]).T
        if "A" not in tensors:
            return specific
        coupling = tensors["A"] @ tensors["B"].T
        shared = coupling @ coupling.T if self.of_text else coupling.T @ coupling
        return tensors["shared_magnitude"] * _unit(frozen + self.scale * shared) + tensors[
            "specific_magnitude"
        ] * _unit(specific)

    def forward(self, states: Tensor) -> Tensor:
        """Apply dropout to the input, and project it."""
        return functional.linear(self.dropout(states), self.weight(), self.linear.bias)


class PlainAdapted(nn.Module):
    """A whole CLIP with adapted projections and a linear head.

    Args:
        clip: CLIP of transformers, which is copied.
        tensors: Trained tensors by published name.
        scale: Factor of the updates.

    Attributes:
        projections: Adapted projections by name, without ``model.`` in front.
    """

    def __init__(self, clip: Any, tensors: Mapping[str, Tensor], scale: float) -> None:
        super().__init__()
        self.clip, self.tensors = copy.deepcopy(clip), tensors
        self.projections: dict[str, PlainProjection] = {}
        shared = {
            name.rpartition(".")[2] + name.split(".")[4]: t for name, t in tensors.items() if ".shared_params." in name
        }
        for found in filter(None, map(ADAPTED.fullmatch, tensors)):
            path, tower, layer, _ = found.groups()
            start = f"model.{path}."
            own = {name.removeprefix(start): t for name, t in tensors.items() if name.startswith(start)}
            own |= {part: shared[f"shared_{part}{layer}"] for part in "AB" if f"shared_{part}{layer}" in shared}
            room, _, name = path.rpartition(".")
            attention = self.clip.get_submodule(room)
            self.projections[path] = PlainProjection(getattr(attention, name), own, scale, tower == "text")
            setattr(attention, name, self.projections[path])

    def forward(self, pixels: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
        """Return logits, shape (B, C).

        Args:
            pixels: Normalised images, shape (B, 3, H, W).
            ids: Ids of the tokens, shape (B, T).
            mask: Mask of the tokens, shape (B, T).
        """
        clip = self.clip
        image = clip.visual_projection(clip.vision_model(pixels).pooler_output)
        text = clip.text_projection(clip.text_model(ids, mask).pooler_output)
        return functional.linear(
            torch.cat([image, text], 1), self.tensors["cls_head.weight"], self.tensors["cls_head.bias"]
        )


def rewritten(ids: Tensor, end: int, pad: int) -> Tensor:
    """Return the ids of texts, shape (B, T), as the published code changes them before the text tower."""
    ids = ids.clone()
    ids[ids[:, -2] != end, -2] = pad
    return ids


class Kept(nn.Module):
    """Dropout with a given mask in place of a drawn one.

    Args:
        keep: 1 where an input is kept, 0 where it is dropped, shape (B, n, d).
        dropout: Dropout probability.
        place: Position of the token that a last layer reads alone, in each row, shape (B,).
    """

    def __init__(self, keep: Tensor, dropout: float, place: Tensor) -> None:
        super().__init__()
        self.scale, self.place = keep / (1 - dropout), place

    def forward(self, inputs: Tensor) -> Tensor:
        """Apply the mask to all tokens, shape (B, n, d), or to the one that is read, shape (B, 1, d)."""
        scale = self.scale[:, : inputs.shape[1]]
        if inputs.shape[1] == 1:
            scale = self.scale[torch.arange(len(inputs)), self.place].unsqueeze(1)
        return inputs * scale


def _unit(weight: Tensor) -> Tensor:
    """Divide each column by its norm."""
    return weight / weight.norm(dim=0, keepdim=True).clamp(min=1e-5)
