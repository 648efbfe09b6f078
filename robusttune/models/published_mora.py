"""The names of MoRA's weights in the published implementation."""

from __future__ import annotations

import re
from collections.abc import Iterable

PROJECTION = "model.{}_model.encoder.layers.{}.self_attn.{}."
TOWERS = {"image": "vision", "text": "text"}
PARTS = {
    "a": "modality_A",
    "b": "modality_B",
    "shared_magnitude": "shared_magnitude",
    "specific_magnitude": "specific_magnitude",
}
ORDER = ("k_proj", "v_proj", "q_proj", "out_proj")  # the first target of them holds a layer's shared directions
ADAPTER = re.compile(r"layers\.(\d+)\.(image|text)\.adapters\.(\w+)\.(\w+)")
SHARED = re.compile(r"layers\.(\d+)\.shared\.([ab])")


def published_names(own: Iterable[str], first_layer: int) -> dict[str, str]:
    """Map the names of a MoRA network's trained tensors to their published names.

    Args:
        own: Names of the tensors.
        first_layer: First adapted layer, counted from 1.

    Example:
        >>> own = ["layers.0.text.adapters.q_proj.a", "layers.0.shared.b"]
        >>> published_names(own, first_layer=11)["layers.0.shared.b"]
        'model.text_model.encoder.layers.10.self_attn.q_proj.shared_params.shared_B'
    """
    own = [*own]
    targets = {found[3] for name in own if (found := ADAPTER.fullmatch(name))}
    holder = next((name for name in ORDER if name in targets), "")
    names = {}
    for name in own:
        if found := ADAPTER.fullmatch(name):
            layer, tower, target, part = found.groups()
            names[name] = PROJECTION.format(TOWERS[tower], first_layer - 1 + int(layer), target) + PARTS[part]
        elif found := SHARED.fullmatch(name):
            start = PROJECTION.format("text", first_layer - 1 + int(found[1]), holder)
            names[name] = f"{start}shared_params.shared_{found[2].upper()}"
        elif name.startswith("head."):
            names[name] = f"cls_{name}"
    return names
