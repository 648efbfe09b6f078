"""A reference implementation of MMRL and MMRL++ without any optimisation, for tests and benchmarks.

As in the published implementation, all prompts have the length of the context, the image runs through the adapted and
the frozen tower from its pixels on, and every layer runs on every token.
"""

from __future__ import annotations

from inspect import signature
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from robusttune.models.mmrl import MMRLNetwork


class Plain(NamedTuple):
    """Features with L2 norm 1.

    Attributes:
        image: Class features of the adapted image tower, shape (B, d_e).
        representation: Representation features of the adapted image tower, shape (B, d_e).
        text: Prompt features of the adapted text tower, shape (C, d_e).
        untouched_image: Image features of the original CLIP, shape (B, d_e).
        untouched_text: Prompt features of the original CLIP, shape (C, d_e).
    """

    image: Tensor
    representation: Tensor
    text: Tensor
    untouched_image: Tensor
    untouched_text: Tensor


def plain_features(
    clip: Any, network: MMRLNetwork, pixels: Tensor, ids: Tensor, end: Tensor, untouched_text: Tensor
) -> Plain:
    """Compute all features of a batch.

    Args:
        clip: CLIP of transformers.
        network: MMRL network with the trainable parts.
        pixels: Preprocessed images, shape (B, 3, H, W).
        ids: Token ids of the prompts, shape (C, context).
        end: Position of the last token of each prompt, shape (C,).
        untouched_text: Prompt features of the original CLIP from `plain_prompts`, shape (C, d_e). The published code
            also computes them only once.
    """
    with torch.no_grad():
        untouched_image, _ = _vision(clip, pixels, None, 1.0)
    image, representation = plain_image(clip, network, pixels)
    text = plain_text(clip, network, ids, end)
    return Plain(image, representation, text, _unit(untouched_image), untouched_text)


def plain_image(clip: Any, network: MMRLNetwork, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Compute the class and the representation features of images, each of shape (B, d_e)."""
    states, space = _vision(clip, pixels, network.tokens().image, network.beta)
    mean = clip.vision_model.post_layernorm(space).mean(1)
    if hasattr(network.projection, "weight"):
        projection = network.projection.weight
    else:
        residual: Any = network.projection
        projection = clip.visual_projection.weight.T + residual.a @ residual.b
    return _unit(states), _unit(mean @ projection)


def plain_text(clip: Any, network: MMRLNetwork, ids: Tensor, end: Tensor) -> Tensor:
    """Compute the prompt features of the adapted text tower, shape (C, d_e)."""
    return _unit(_text(clip, ids, end, network.tokens().text, network.beta))


@torch.no_grad()
def plain_prompts(clip: Any, ids: Tensor, end: Tensor) -> Tensor:
    """Compute the prompt features of the original CLIP, shape (C, d_e)."""
    return _unit(_text(clip, ids, end, None, 1.0))


def plain_loss(features: Plain, label: Tensor, scale: float, alpha: float, reg_weight: float) -> Tensor:
    """Compute the loss of a training step: two cross-entropies and two cosine regularisation terms.

    Args:
        features: Features of the batch and the prompts.
        label: Class indices, shape (B,).
        scale: Factor of the logits, CLIP's exponentiated logit scale.
        alpha: Weight of the class features' cross-entropy in [0, 1]; the representation features get the rest.
        reg_weight: Weight of the regularisation terms.
    """
    logits, logits_rep = (scale * f @ features.text.T for f in (features.image, features.representation))
    fit = alpha * functional.cross_entropy(logits, label) + (1 - alpha) * functional.cross_entropy(logits_rep, label)
    near_image = functional.cosine_similarity(features.image, features.untouched_image).mean()
    near_text = functional.cosine_similarity(features.text, features.untouched_text).mean()
    return fit + reg_weight * (1 - near_image) + reg_weight * (1 - near_text)


def _vision(clip: Any, pixels: Tensor, tokens: Tensor | None, beta: float) -> tuple[Tensor, Tensor]:
    """Run the image tower; return the projected class token and the states of the representation tokens."""
    tower = clip.vision_model
    states = tower.pre_layrnorm(tower.embeddings(pixels))
    states, count = _layers(tower.encoder.layers, states, tokens, beta, None)
    return clip.visual_projection(tower.post_layernorm(states[:, 0])), states[:, 1 : 1 + count]


def _text(clip: Any, ids: Tensor, end: Tensor, tokens: Tensor | None, beta: float) -> Tensor:
    """Run the text tower with a causal mask; return the projected last token of each prompt."""
    tower = clip.text_model
    states = tower.embeddings(ids)
    length = states.shape[1] + (0 if tokens is None else tokens.shape[1])
    hidden = torch.full((length, length), -torch.inf, device=ids.device, dtype=states.dtype).triu(1)
    states, count = _layers(tower.encoder.layers, states, tokens, beta, hidden[None, None])
    states = tower.final_layer_norm(states)
    return clip.text_projection(states[torch.arange(len(ids)), end + count])


def _layers(layers: Any, states: Tensor, tokens: Tensor | None, beta: float, mask: Tensor | None) -> tuple[Tensor, int]:
    """Run the layers of a tower with representation tokens in the later layers.

    Args:
        layers: Layers of the tower.
        states: Input of the first layer, shape (B, n, d).
        tokens: Representation tokens of the last layers, shape (layers, tokens, d); None for the original tower.
        beta: Weight of a layer's own tokens against the states of the tokens from the layer before, in [0, 1].
        mask: Attention mask, shape (1, 1, n, n), or None.

    Returns:
        Output of the last layer, and the number of tokens that were inserted after the first position.
    """
    count, first = (0, len(layers)) if tokens is None else (tokens.shape[1], len(layers) - len(tokens))
    for number, layer in enumerate(layers):
        if tokens is not None and number >= first:
            own = tokens[number - first].expand(len(states), -1, -1)
            rest = states[:, 1:] if number == first else states[:, 1 + count :]
            mixed = own if number == first else beta * own + (1 - beta) * states[:, 1 : 1 + count]
            states = torch.cat([states[:, :1], mixed, rest], 1)
        length = states.shape[1]
        fits = None if mask is None else mask[..., :length, :length]
        # Before transformers 5 a layer took two masks.
        named = "causal_attention_mask" in signature(layer.forward).parameters
        changed = layer(states, None, fits) if named else layer(states, fits)
        states = changed[0] if isinstance(changed, tuple) else changed
    return states, count


def _unit(features: Tensor) -> Tensor:
    return functional.normalize(features, dim=-1)
