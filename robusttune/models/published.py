"""Conversion between this package's MMRL weights and those of the published implementation of MMRL and MMRL++."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from robusttune.encoders.clip import UpperTower
from robusttune.errors import RobustTuneError
from robusttune.models.mmrl import MMRLNetwork
from robusttune.models.mmrl_maps import LayerMaps, Projection

SPACE = "representation_learner.compound_rep_tokens"
LAYER = "representation_learner.compound_rep_tokens_{}proj.{}.{}"
SHARED = "representation_learner.srra_{}proj.weight"
RESIDUAL = "representation_learner.srra_{}proj.srra.{}.{}"
# Names of frozen tensors, which were not trained: embedded prompts of the classes, and the weights of the CLIP itself.
SET_ASIDE = re.compile(
    r"prompt_embeddings|representation_learner\.prompt_embeddings|logit_scale|(clip_model|text_encoder)\..*"
    r"|image_encoder(_\w+)?\.(?!(proj_rep|A|B)$).*"
)


@dataclass(frozen=True)
class Matched:
    """The result of reading a state dict with published names.

    Attributes:
        state: State dict of an `MMRLNetwork`.
        published: Published names of the tensors in ``state``.
        set_aside: Published names of frozen tensors, which are not in ``state``.
    """

    state: dict[str, Tensor]
    published: list[str]
    set_aside: list[str]


def to_published(network: MMRLNetwork) -> dict[str, Tensor]:
    """Return copies of the network's weights under their published names."""
    state = {name: tensor.detach() for name, tensor in network.state_dict().items()}
    published = {}
    for name, (own_name, layer) in _published_locations(network).items():
        tensor = state[own_name]
        published[name] = (tensor if layer is None else tensor[layer]).clone()
    return published


def from_published(given: Mapping[str, Tensor], network: MMRLNetwork) -> Matched:
    """Convert a state dict with published names to a state dict of a network.

    Args:
        given: Tensors by published name. The prefix ``module.`` of ``DataParallel`` is removed.
        network: Network that the state dict must fit.

    Raises:
        RobustTuneError: A tensor is missing, unknown, of another shape, or not finite. The message lists the first
            three names of each kind.

    Example:
        >>> from robusttune.encoders.clip import TowerShape
        >>> from robusttune.models.mmrl import MMRL
        >>> network = MMRLNetwork(MMRL(space_width=8), TowerShape(2, 16, 4), TowerShape(2, 16, 4))
        >>> from_published(to_published(network), network).published[0]
        'representation_learner.compound_rep_tokens'
    """
    given = {name.removeprefix("module."): tensor for name, tensor in given.items()}
    locations, own = _published_locations(network), network.state_dict()
    set_aside = sorted(name for name in given if name not in locations and SET_ASIDE.fullmatch(name))
    shapes = {
        name: own[own_name].shape if layer is None else own[own_name][layer].shape
        for name, (own_name, layer) in locations.items()
    }
    problems = {
        "lacks": [name for name in locations if name not in given],
        "has besides": [name for name in given if name not in locations and name not in set_aside],
        "has in another shape": [
            f"{name} {tuple(given[name].shape)}, not {tuple(shape)}"
            for name, shape in shapes.items()
            if name in given and given[name].shape != shape
        ],
        "is not finite in": [name for name in locations if name in given and not given[name].isfinite().all()],
    }
    listed = [f"{kind} {', '.join(names[:3])}{', ...' * (len(names) > 3)}" for kind, names in problems.items() if names]
    if listed:
        raise RobustTuneError(
            f"the published checkpoint does not fit: it {'; it '.join(listed)}: set model.adapter, first_layer and the "
            f"encoders' name as it was trained ({_describe_settings(given)})"
        )
    state = {name: torch.empty_like(tensor) for name, tensor in own.items()}
    for name, (own_name, layer) in locations.items():
        (state[own_name] if layer is None else state[own_name][layer]).copy_(given[name])
    return Matched(state, list(locations), set_aside)


def refuse_another_clip(given: Mapping[str, Tensor], image: UpperTower, text: UpperTower) -> None:
    """Check that a published checkpoint was trained on the given CLIP, as far as it contains weights of its CLIP.

    Args:
        given: Tensors by published name.
        image: Upper layers of the given CLIP's vision tower.
        text: Upper layers of the given CLIP's text tower.

    Raises:
        RobustTuneError: The checkpoint was trained on another CLIP, or the given towers are those of a SigLIP.
    """
    if image.reads != "first":
        raise RobustTuneError(
            "published checkpoints are of MMRL on CLIP, and the encoders are of a SigLIP: name the CLIP that the "
            "checkpoint was trained on for image_encoder and text_encoder"
        )
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
        # The tolerance allows for weights that were saved in half precision.
        if found.shape != expected.shape or not torch.allclose(found.float(), expected.float(), rtol=1e-2, atol=1e-3):
            raise RobustTuneError(
                f"the published checkpoint was trained on another CLIP ({name} differs): "
                "name the one it was trained on for image_encoder and text_encoder"
            )


def _published_locations(network: MMRLNetwork) -> dict[str, tuple[str, int | None]]:
    """Map each published name to the name of our tensor and the layer within it, or None for the whole tensor."""
    return dict(_iterate_locations(network))


def _iterate_locations(network: MMRLNetwork) -> Iterator[tuple[str, tuple[str, int | None]]]:
    """Yield the entries of `_published_locations`."""
    yield SPACE, ("space", None)
    for own_part, published_part in (("image_maps", "r2v"), ("text_maps", "r2t")):
        maps = getattr(network, own_part)
        layers = len(maps.bias)
        if isinstance(maps, LayerMaps):
            for layer in range(layers):
                yield LAYER.format(published_part, layer, "weight"), (f"{own_part}.weight", layer)
                yield LAYER.format(published_part, layer, "bias"), (f"{own_part}.bias", layer)
        else:
            yield SHARED.format(published_part), (f"{own_part}.weight", None)
            for layer in range(layers):
                for part, name in (("A", "a"), ("B", "b"), ("bias", "bias")):
                    yield RESIDUAL.format(published_part, layer, part), (f"{own_part}.{name}", layer)
    if isinstance(network.projection, Projection):
        yield "image_encoder.proj_rep", ("projection.weight", None)
    else:
        yield "image_encoder.A", ("projection.a", None)
        yield "image_encoder.B", ("projection.b", None)


def _describe_settings(given: Mapping[str, Tensor]) -> str:
    """Describe the settings that a published checkpoint was probably trained with."""
    if SPACE not in given or given[SPACE].dim() != 2:
        return "it is none of MMRL's"
    tokens, width = given[SPACE].shape
    residual, projection = given.get(RESIDUAL.format("r2v", 0, "A")), given.get("image_encoder.A")
    ranks = {
        "residual_rank": None if residual is None else residual.shape[-1],
        "projection_rank": None if projection is None else projection.shape[-1],
    }
    layers = len([name for name in given if re.fullmatch(r".*r2v.*\.\d+\.bias", name)])
    ranks_text = ", ".join(f"{name} {'null' if rank is None else rank}" for name, rank in ranks.items())
    return f"its space_tokens are {tokens}, space_width {width}, {ranks_text}, and it has {layers} layers"
