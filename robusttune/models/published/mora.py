"""The names of MoRA's weights in the published implementation."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor

from robusttune.errors import RobustTuneError
from robusttune.models.published.names import Names, Place

PROJECTION = "model.{}_model.encoder.layers.{}.self_attn.{}."
TOWERS = {"image": "vision", "text": "text"}
PARTS = {"a": "modality_A", "b": "modality_B"}
ORDER = ("k_proj", "v_proj", "q_proj", "out_proj")  # the first target of them holds a layer's shared directions
ADAPTER = re.compile(r"layers\.(\d+)\.(image|text)\.adapters\.(\w+)\.(\w+)")
SHARED = re.compile(r"layers\.(\d+)\.shared\.([ab])")
PUBLISHED = re.compile(r"model\.(text|vision)_model\.encoder\.layers\.(\d+)\.self_attn\.(\w+_proj)\.modality_A")
FROZEN = re.compile(r"model\.(?!.*(_magnitude|modality_[AB]|shared_[AB])$).*")


def mora_names(own: Mapping[str, Tensor], first_layer: int) -> Names:
    """Return the published names of the tensors in the state dict of a network with MoRA.

    Args:
        own: State dict.
        first_layer: First adapted layer, counted from 1.
    """
    return Names(dict(_places(own, first_layer)), FROZEN, "model.fusion", _describe)


def _places(own: Mapping[str, Tensor], first_layer: int) -> Iterator[tuple[str, Place]]:
    """Yield published names and places."""
    targets = {found[3] for name in own if (found := ADAPTER.fullmatch(name))}
    holder = next((name for name in ORDER if name in targets), "")
    for name in own:
        if found := ADAPTER.fullmatch(name):
            layer, tower, target, part = found.groups()
            start = PROJECTION.format(TOWERS[tower], first_layer - 1 + int(layer), target)
            yield start + PARTS.get(part, part), Place(name)
        elif found := SHARED.fullmatch(name):
            start = PROJECTION.format("text", first_layer - 1 + int(found[1]), holder)
            yield f"{start}shared_params.shared_{found[2].upper()}", Place(name)
        elif name.startswith("head."):
            yield f"cls_{name}", Place(name)


def _describe(given: Mapping[str, Tensor]) -> str:
    """Describe the settings that a published checkpoint was probably trained with."""
    found = {name: match for name in given if (match := PUBLISHED.fullmatch(name))}
    if not found:
        return "it is none of MoRA's"
    targets = sorted({match[3] for match in found.values()})
    ranks = {match[1]: given[name].shape[-1] for name, match in found.items()}
    shared = next((t.shape[-1] for name, t in given.items() if name.endswith(".shared_A")), None)
    first = 1 + min(int(match[2]) for match in found.values())
    return (
        f"its targets are {', '.join(targets)}, shared_rank {shared}, image_rank {ranks.get('vision')}, "
        f"text_rank {ranks.get('text')}, first_layer {first}"
    )


def refuse_another_alpha(metadata: Mapping[str, Any], alpha: float) -> None:
    """Check the factor of the updates, which no tensor contains.

    Args:
        metadata: Entry ``_metadata`` of a published checkpoint; a name with ``alpha`` has the factor.
        alpha: Factor of the network.

    Raises:
        RobustTuneError: The checkpoint was trained with another one.
    """
    for name, value in metadata.items():
        if "alpha" in str(name).lower() and isinstance(value, int | float) and abs(value - alpha) > 1e-9:
            raise RobustTuneError(
                f"the published checkpoint was trained with alpha {value:g}, and model.fusion.alpha is {alpha:g}: "
                f"set it to {value:g}"
            )
