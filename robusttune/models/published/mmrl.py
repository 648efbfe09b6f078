"""The names of MMRL's and MMRL++'s weights in their published implementation."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from torch import Tensor

from robusttune.models.published.names import Names, Place

SPACE = "representation_learner.compound_rep_tokens"
LAYER = "representation_learner.compound_rep_tokens_{}proj.{}.{}"
SHARED = "representation_learner.srra_{}proj.weight"
RESIDUAL = "representation_learner.srra_{}proj.srra.{}.{}"
# Names of frozen tensors, which were not trained: embedded prompts of the classes, and the weights of the CLIP itself.
FROZEN = re.compile(
    r"prompt_embeddings|representation_learner\.prompt_embeddings|logit_scale|(clip_model|text_encoder)\..*"
    r"|image_encoder(_\w+)?\.(?!(proj_rep|A|B)$).*"
)


def mmrl_names(own: Mapping[str, Tensor]) -> Names:
    """Return the published names of the tensors in the state dict of an `MMRLNetwork`."""
    return Names(dict(_places(own)), FROZEN, "model.adapter", _describe)


def _places(own: Mapping[str, Tensor]) -> Iterator[tuple[str, Place]]:
    """Yield published names and places."""
    yield SPACE, Place("space")
    for own_part, published_part in (("image_maps", "r2v"), ("text_maps", "r2t")):
        layers = range(len(own[f"{own_part}.bias"]))
        if f"{own_part}.a" not in own:  # MMRL
            for layer in layers:
                yield LAYER.format(published_part, layer, "weight"), Place(f"{own_part}.weight", layer)
                yield LAYER.format(published_part, layer, "bias"), Place(f"{own_part}.bias", layer)
        else:  # MMRL++
            yield SHARED.format(published_part), Place(f"{own_part}.weight")
            for layer in layers:
                for part, name in (("A", "a"), ("B", "b"), ("bias", "bias")):
                    yield RESIDUAL.format(published_part, layer, part), Place(f"{own_part}.{name}", layer)
    if "projection.weight" in own:
        yield "image_encoder.proj_rep", Place("projection.weight")
    else:
        yield "image_encoder.A", Place("projection.a")
        yield "image_encoder.B", Place("projection.b")


def _describe(given: Mapping[str, Tensor]) -> str:
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
