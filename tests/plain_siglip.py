"""A reference implementation of MMRL and MMRL++ on SigLIP without any optimisation: hooks on transformers' model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from robusttune.models.mmrl import MMRLNetwork


def plain_siglip_image(siglip: Any, network: MMRLNetwork, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Compute the class and the representation features of images, each of shape (B, d_e).

    Args:
        siglip: SigLIP of transformers.
        network: MMRL network with the trainable parts.
        pixels: Preprocessed images, shape (B, 3, H, W).
    """
    tower, tokens, kept = siglip.vision_model, network.tokens().image, []

    def keep_patches(_: Any, args: tuple[Tensor]) -> tuple[Tensor]:
        """Take the representation tokens away from what the probe attends to."""
        kept.append(args[0][:, : tokens.shape[1]])
        return (args[0][:, tokens.shape[1] :],)

    with _inserted(tower.encoder.layers, tokens, network.beta):
        handle = tower.head.register_forward_pre_hook(keep_patches)
        features = tower(pixel_values=pixels).pooler_output
        handle.remove()
    mean = kept[0].mean(1)
    projection: Any = network.projection
    if hasattr(projection, "weight"):
        representation = mean @ projection.weight
    else:
        representation = tower.head(mean.unsqueeze(1)) + mean @ projection.a @ projection.b
    return functional.normalize(features, dim=-1), functional.normalize(representation, dim=-1)


def plain_siglip_text(siglip: Any, network: MMRLNetwork, ids: Tensor) -> Tensor:
    """Compute the features of texts, shape (C, d_e), from token ids at the full length, shape (C, N)."""
    with _inserted(siglip.text_model.encoder.layers, network.tokens().text, network.beta):
        features: Tensor = siglip.text_model(input_ids=ids).pooler_output
    return functional.normalize(features, dim=-1)


@contextmanager
def _inserted(layers: Any, tokens: Tensor, beta: float) -> Iterator[None]:
    """Put representation tokens before all others in the last layers of a tower within the context.

    Args:
        layers: Layers of the tower.
        tokens: Representation tokens of the last layers, shape (layers, K, d).
        beta: Weight of a layer's own tokens against the states of the tokens from the layer before.
    """
    count, first = tokens.shape[1], len(layers) - len(tokens)
    handles = []
    for number, layer in enumerate(layers[first:]):

        def insert(_: Any, args: tuple[Any, ...], number: int = number) -> tuple[Any, ...]:
            """Insert the tokens before the first of these layers, and mix or replace them before the others."""
            states, own = args[0], tokens[number].expand(len(args[0]), -1, -1)
            if number:
                own, states = beta * own + (1 - beta) * states[:, :count], states[:, count:]
            return (torch.cat([own, states], 1), *args[1:])

        handles.append(layer.register_forward_pre_hook(insert))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
