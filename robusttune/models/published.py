"""Weights under the names that the published implementation of MMRL and MMRL++ stores them by, and under ours."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from robusttune.encoders.clip import UpperTower
from robusttune.errors import RobustTuneError
from robusttune.models.mmrl import LayerMaps, MMRLNetwork, Projection

SPACE = "representation_learner.compound_rep_tokens"
LAYER = "representation_learner.compound_rep_tokens_{}proj.{}.{}"
SHARED = "representation_learner.srra_{}proj.weight"
RESIDUAL = "representation_learner.srra_{}proj.srra.{}.{}"
# Frozen, and so no part of what was learned: embedded prompts of its classes, and the weights of the CLIP itself.
SET_ASIDE = re.compile(
    r"prompt_embeddings|representation_learner\.prompt_embeddings|logit_scale|(clip_model|text_encoder)\..*"
    r"|image_encoder(_\w+)?\.(?!(proj_rep|A|B)$).*"
)


@dataclass(frozen=True)
class Matched:
    """What was found in a state dict with published names.

    Attributes:
        state: of an `MMRLNetwork`.
        published: names that went into it.
        set_aside: names of frozen tensors, which did not.
    """

    state: dict[str, Tensor]
    published: list[str]
    set_aside: list[str]


def to_published(network: MMRLNetwork) -> dict[str, Tensor]:
    """The network's weights under published names."""
    state = {name: tensor.detach() for name, tensor in network.state_dict().items()}
    found = {}
    for name, (of, layer) in _places(network).items():
        tensor = state[of]
        found[name] = (tensor if layer is None else tensor[layer]).clone()
    return found


def from_published(given: Mapping[str, Tensor], network: MMRLNetwork) -> Matched:
    """What a state dict with published names is for a network of these settings.

    Args:
        given: by published names; ``module.`` before them, of DataParallel, is taken off.
        network: that it has to fit.

    Raises:
        RobustTuneError: a name is missing, none of these, or of another shape; the first few of each kind are told.
    """
    given = {name.removeprefix("module."): tensor for name, tensor in given.items()}
    places, own = _places(network), network.state_dict()
    set_aside = sorted(name for name in given if name not in places and SET_ASIDE.fullmatch(name))
    shapes = {name: own[of].shape if layer is None else own[of][layer].shape for name, (of, layer) in places.items()}
    problems = {
        "lacks": [name for name in places if name not in given],
        "has besides": [name for name in given if name not in places and name not in set_aside],
        "has in another shape": [
            f"{name} {tuple(given[name].shape)}, not {tuple(shape)}"
            for name, shape in shapes.items()
            if name in given and given[name].shape != shape
        ],
        "is not finite in": [name for name in places if name in given and not given[name].isfinite().all()],
    }
    told = [f"{what} {', '.join(names[:3])}{', ...' * (len(names) > 3)}" for what, names in problems.items() if names]
    if told:
        raise RobustTuneError(
            f"the published checkpoint does not fit: it {'; it '.join(told)}: set model.adapter, first_layer and the "
            f"encoders' name as it was trained ({_guess(given)})"
        )
    state = {name: torch.empty_like(tensor) for name, tensor in own.items()}
    for name, (of, layer) in places.items():
        (state[of] if layer is None else state[of][layer]).copy_(given[name])
    return Matched(state, list(places), set_aside)


def refuse_another_clip(given: Mapping[str, Tensor], image: UpperTower, text: UpperTower) -> None:
    """Check what a published checkpoint holds of the CLIP that it was trained on, where it holds any of it.

    Args:
        given: by published names.
        image: the upper layers of the CLIP at hand.
        text: likewise.

    Raises:
        RobustTuneError: it was trained on another CLIP.
    """
    own = {
        "image_encoder.proj": image.projection.weight.T,
        "image_encoder.ln_post.weight": image.norm.weight,
        "text_encoder.text_projection": text.projection.weight.T,
        "text_encoder.ln_final.weight": text.norm.weight,
    }
    for name, expected in own.items():
        found = given.get(name, given.get(f"module.{name}"))
        if found is None:
            continue
        # It may have been kept in half precision.
        if found.shape != expected.shape or not torch.allclose(found.float(), expected.float(), rtol=1e-2, atol=1e-3):
            raise RobustTuneError(
                f"the published checkpoint was trained on another CLIP, of which {name} is not this one's: "
                "name the one it was trained on for image_encoder and text_encoder"
            )


def _places(network: MMRLNetwork) -> dict[str, tuple[str, int | None]]:
    """For each published name where its tensor is: a name of ours, and the layer in it, None for the whole."""
    return dict(_walk(network))


def _walk(network: MMRLNetwork) -> Iterator[tuple[str, tuple[str, int | None]]]:
    yield SPACE, ("space", None)
    for ours, theirs in (("image_maps", "r2v"), ("text_maps", "r2t")):
        maps = getattr(network, ours)
        layers = len(maps.bias)
        if isinstance(maps, LayerMaps):
            for layer in range(layers):
                yield LAYER.format(theirs, layer, "weight"), (f"{ours}.weight", layer)
                yield LAYER.format(theirs, layer, "bias"), (f"{ours}.bias", layer)
        else:
            yield SHARED.format(theirs), (f"{ours}.weight", None)
            for layer in range(layers):
                for part, name in (("A", "a"), ("B", "b"), ("bias", "bias")):
                    yield RESIDUAL.format(theirs, layer, part), (f"{ours}.{name}", layer)
    if isinstance(network.projection, Projection):
        yield "image_encoder.proj_rep", ("projection.weight", None)
    else:
        yield "image_encoder.A", ("projection.a", None)
        yield "image_encoder.B", ("projection.b", None)


def _guess(given: Mapping[str, Tensor]) -> str:
    """The settings that the file seems to be of, in words."""
    if SPACE not in given or given[SPACE].dim() != 2:
        return "it is none of MMRL's"
    tokens, width = given[SPACE].shape
    residual, projection = given.get(RESIDUAL.format("r2v", 0, "A")), given.get("image_encoder.A")
    ranks = {
        "residual_rank": None if residual is None else residual.shape[-1],
        "projection_rank": None if projection is None else projection.shape[-1],
    }
    layers = len([name for name in given if re.fullmatch(r".*r2v.*\.\d+\.bias", name)])
    said = ", ".join(f"{name} {'null' if rank is None else rank}" for name, rank in ranks.items())
    return f"its space_tokens are {tokens}, space_width {width}, {said}, and it has {layers} layers"
