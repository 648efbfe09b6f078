"""A reference implementation of DCP and DPL without any shortcut, for tests and benchmarks.

Weights have their published names. As in the published code, each sample runs by itself, with prompts of its own,
through both towers of an unmodified CLIP of transformers, and texts have the full length of the tower.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

LEARNER = "model.prompt_learner."
KINDS = ("complete", "image", "text")  # by pattern: complete, text missing, image missing
PROTOTYPES = ("w_mi_c", "w_mi_tm", "w_mt_c", "w_mt_im")


class Plain(NamedTuple):
    """What a forward pass computes.

    Attributes:
        image: Features of the images, those of absent ones included, shape (B, d_e).
        text: The same for texts, shape (B, d_e).
        features: Both, zeros where a modality is absent, shape (B, 2 d_e).
        logits: Class scores or cosines, shape (B, C).
    """

    image: Tensor
    text: Tensor
    features: Tensor
    logits: Tensor


def plain_forward(
    clip: Any, weights: Mapping[str, Tensor], pixels: Tensor, ids: Tensor, missing: Tensor, prompts: int, depth: int
) -> Plain:
    """Run the network on each sample.

    Args:
        clip: CLIP of transformers.
        weights: Trained tensors and constants by published name.
        pixels: Normalised images, shape (B, 3, H, W).
        ids: Token ids, padded with 0 to the tower's length, shape (B, T).
        missing: Pattern of each sample, shape (B,): 0 complete, 1 text missing, 2 image missing.
        prompts: Number of prompts, 0 for DPL without prompts.
        depth: Number of layers with prompts of their own.
    """
    rows = [
        _sample(clip, weights, pixels[row : row + 1], ids[row : row + 1], int(missing[row]), prompts, depth)
        for row in range(len(missing))
    ]
    image, text = (torch.cat(parts) for parts in zip(*rows, strict=True))
    features = torch.cat(
        [torch.where((missing == absent)[:, None], 0.0, part) for absent, part in ((2, image), (1, text))], 1
    )
    return Plain(image, text, features, _logits(weights, features, missing))


def plain_loss(
    weights: Mapping[str, Tensor], logits: Tensor, label: Tensor, missing: Tensor, config: Mapping[str, Any]
) -> Tensor:
    """Compute the loss of a training step.

    Args:
        weights: Trained tensors by published name.
        logits: Logits of `plain_forward`, shape (B, C).
        label: Class indices, shape (B,), or 0/1 per class, shape (B, C).
        missing: Pattern of each sample, shape (B,).
        config: Numbers by the names that the published code has for them.
    """
    if "arc_s" not in config:
        return _classification(logits, label)
    hot = functional.one_hot(label, logits.shape[1]) if label.dim() == 1 else label
    return _classification(plain_margin(logits, hot, missing, config), label) + plain_contrast(weights, config)


def plain_margin(cosines: Tensor, hot: Tensor, missing: Tensor, config: Mapping[str, Any]) -> Tensor:
    """Compute the scaled cosines with margins, shape (B, C), one number after the other."""
    rows = []
    for cosine, label, pattern in zip(cosines, hot.to(cosines.dtype), missing.tolist(), strict=True):
        end = ("", "_tm", "_im")[pattern]
        scale, margin = config[f"arc_s{end}"], config[f"arc_m{end}"]
        moved = [
            value * math.cos(margin) - torch.sqrt(1 - value * value) * math.sin(margin)
            if value > math.cos(math.pi - margin)
            else value - margin * math.sin(math.pi - margin)
            for value in cosine
        ]
        rows.append(scale * (label * torch.stack(moved) + (1 - label) * cosine))
    return torch.stack(rows)


def plain_contrast(weights: Mapping[str, Tensor], config: Mapping[str, Any]) -> Tensor:
    """Compute the weighted contrastive loss."""
    groups = {"both": [0, 1, 2, 3], "text": [0, 1, 2], "image": [0, 2, 3]}[config["setting"]]
    if config["contrastive_form"] == "joint":
        return config["contrast_coef"] * plain_sup(weights, groups, config)
    total = torch.zeros(())
    for pair in combinations(groups, 2):
        name = {
            **dict.fromkeys([(0, 1), (2, 3)], "mintra"),
            (0, 2): "minter_pintra",
            **dict.fromkeys([(0, 3), (1, 2), (1, 3)], "minter_pinter"),
        }[pair]
        total = total + config[f"contrast_coef_{name}"] * plain_sup(weights, pair, config)
    return total


def plain_sup(weights: Mapping[str, Tensor], groups: Sequence[int], config: Mapping[str, Any]) -> Tensor:
    """Compute the contrastive loss of groups of prototypes, one anchor after the other."""
    bank = [
        (kind, number, functional.normalize(_head(weights, PROTOTYPES[group])[:, kind], dim=0))
        for number, group in enumerate(groups)
        for kind in range(_head(weights, PROTOTYPES[0]).shape[1])
    ]
    losses = []
    for kind, number, anchor in bank:
        if config["contrast_mode"] == "one" and number > 0:
            continue
        others = [(k, vector) for k, n, vector in bank if (k, n) != (kind, number)]
        similar = torch.stack([anchor @ vector for _, vector in others]) / config["contrast_temp"]
        own = torch.stack([similar[i] for i, (k, _) in enumerate(others) if k == kind])
        losses.append((own - similar.exp().sum().log()).mean())
    return -config["contrast_temp"] / config["contrast_temp_base"] * torch.stack(losses).mean()


def plain_prompts(
    weights: Mapping[str, Tensor], missing: int, depth: int
) -> tuple[list[tuple[Tensor, Tensor]], tuple[Tensor, Tensor]]:
    """Compute the prompts of a sample: image and text prompts of each layer, and the common ones of both towers."""
    own = {name.removeprefix(LEARNER): tensor for name, tensor in weights.items()}
    image = own["visual_prompt_missing" if missing == 2 else "visual_prompt_complete"]
    text = own["text_prompt_missing" if missing == 1 else "text_prompt_complete"]
    layers = []
    for layer in range(depth):
        both = torch.cat([image, text], 1)
        image, text = (
            _map(own, f"compound_prompt_projections_{m}.{layer}", _norm(own, f"layernorm_{m}.{layer}", both))
            for m in ("image", "text")
        )
        layers.append((image, text))
    common = own[f"common_prompt_{KINDS[missing]}"]
    return layers, (
        _map(own, "common_prompt_projection_image", common),
        _map(own, "common_prompt_projection_text", common),
    )


def plain_dynamic(weights: Mapping[str, Tensor], modality: str, tokens: Tensor, missing: int) -> Tensor:
    """Compute the dynamic prompts of a sample, shape (n, w), from the tokens of the first layer, shape (T, w)."""
    block = f"model.{modality}_encoder.transformer.resblocks.0."
    query, key, value = weights[f"{block}attn_prompt.in_proj_weight"].chunk(3)
    of_query, of_key, of_value = weights[f"{block}attn_prompt.in_proj_bias"].chunk(3)
    asked = weights[f"{block}prompts_dynamic_{KINDS[missing]}"].squeeze(1) @ query.T + of_query
    scores = asked @ (tokens @ key.T + of_key).T / tokens.shape[1] ** 0.5
    found = scores.softmax(1) @ (tokens @ value.T + of_value)
    return found @ weights[f"{block}attn_prompt.out_proj.weight"].T + weights[f"{block}attn_prompt.out_proj.bias"]


def _sample(
    clip: Any, weights: Mapping[str, Tensor], pixels: Tensor, ids: Tensor, missing: int, prompts: int, depth: int
) -> tuple[Tensor, Tensor]:
    """Run both towers on one sample; return both features, shape (1, d_e)."""
    vision, texts = clip.vision_model, clip.text_model
    patches, words = vision.pre_layrnorm(vision.embeddings(pixels)), texts.embeddings(ids)
    layers, common = plain_prompts(weights, missing, depth) if prompts else ([], (None, None))
    states = []
    for number, (modality, tower, tokens) in enumerate((("image", vision, patches), ("text", texts, words))):
        count, front = prompts // 3, tokens
        if prompts:
            dynamic = plain_dynamic(weights, modality, tokens[0], missing)
            front = torch.cat([layers[0][number][None], common[number][None], dynamic[None], tokens], 1)  # type: ignore[index]
        mask = torch.full((front.shape[1], front.shape[1]), -torch.inf).triu(1) if modality == "text" else None
        for layer, block in enumerate(tower.encoder.layers):
            if 1 <= layer < depth and prompts:
                front = torch.cat([layers[layer][number][None], front[:, count:]], 1)
            front = block(front, None if mask is None else mask[None, None])
        states.append(front)
    of_image, of_text = "model.image_encoder.ln_post", "model.text_encoder.ln_final"
    image = _norm(weights, of_image, states[0][:, prompts]) @ weights["model.image_encoder.proj"]
    end = states[1][:, prompts + int(ids.argmax())]
    return image, _norm(weights, of_text, end) @ clip.text_projection.weight.T


def _logits(weights: Mapping[str, Tensor], features: Tensor, missing: Tensor) -> Tensor:
    """Return the logits of the linear classifier, or the cosines with the prototypes."""
    if not any("pl_head" in name for name in weights):
        return features @ _head(weights, "weight").T + _head(weights, "bias")
    image, text = (functional.normalize(part, dim=1) for part in features.chunk(2, 1))
    units = [functional.normalize(_head(weights, name), dim=0) for name in PROTOTYPES]
    rows = []
    for row, pattern in enumerate(missing.tolist()):
        of_pattern = (
            lambda row: (image[row] @ units[0] + text[row] @ units[2]) / 2,
            lambda row: image[row] @ units[1],
            lambda row: text[row] @ units[3],
        )
        rows.append(of_pattern[pattern](row))
    return torch.stack(rows)


def _head(weights: Mapping[str, Tensor], part: str) -> Tensor:
    """Return a tensor of the classifier or the prototypes, whatever data set its name has."""
    return next(
        tensor for name, tensor in weights.items() if name.endswith((f"_classifier.{part}", f"_pl_head.{part}"))
    )


def _classification(logits: Tensor, label: Tensor) -> Tensor:
    if label.dim() == 1:
        return functional.cross_entropy(logits, label)
    return functional.binary_cross_entropy_with_logits(logits, label.to(logits.dtype))


def _norm(own: Mapping[str, Tensor], name: str, states: Tensor) -> Tensor:
    return functional.layer_norm(states, states.shape[1:], own[f"{name}.weight"], own[f"{name}.bias"])


def _map(own: Mapping[str, Tensor], name: str, states: Tensor) -> Tensor:
    hidden = functional.gelu(states @ own[f"{name}.0.weight"].T + own[f"{name}.0.bias"])
    return hidden @ own[f"{name}.2.weight"].T + own[f"{name}.2.bias"]
