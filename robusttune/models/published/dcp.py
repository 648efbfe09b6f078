"""The names of DCP's and DPL's weights in their published implementations."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from torch import Tensor

from robusttune.models.published.names import Names, Place

DATA_SETS = ("food101", "mmimdb", "hatememes")  # whose names the published classifiers have
LEARNER = "model.prompt_learner."
OUTPUTS = {"image": "model.image_encoder.ln_post.", "text": "model.text_encoder.ln_final."}
DYNAMIC = "model.{}_encoder.transformer.resblocks.0."
QUERIES = re.compile(r"model\.\w+_encoder\.transformer\.resblocks\.0\.prompts_dynamic_\w+")
FROZEN = re.compile(r"model\.(?!prompt_learner\.).*")
TRAINED = frozenset({"image_encoder.proj", "image_encoder.ln_post.weight", "text_encoder.ln_final.weight"})


def dcp_names(own: Mapping[str, Tensor], data_set: str = DATA_SETS[0]) -> Names:
    """Return the published names of the tensors in the state dict of a `DCPNetwork` or a `DPLNetwork`.

    Args:
        own: State dict.
        data_set: Data set whose name the published classifier has, see `DATA_SETS`.
    """
    depth = sum(bool(re.fullmatch(r"prompts\.image_maps\.\d+\.0\.bias", name)) for name in own)
    places = {**dict(_outputs()), **(dict(_prompts(depth)) if depth else {}), **dict(_head(own, data_set))}
    return Names(
        places,
        FROZEN,
        "model.fusion",
        _describe,
        prefix="model.",
        trained_parts=TRAINED,
        optional=QUERIES,
        plain=lambda name: re.sub(rf"^({'|'.join(DATA_SETS)})_(?=classifier|pl_head)", f"{data_set}_", name),
    )


def _outputs() -> Iterator[tuple[str, Place]]:
    """Yield names and places of the trained ends of the towers."""
    yield "model.image_encoder.proj", Place("image_output.projection", form="transposed")
    for modality, name in OUTPUTS.items():
        for part in ("weight", "bias"):
            yield name + part, Place(f"{modality}_output.norm.{part}")


def _prompts(depth: int) -> Iterator[tuple[str, Place]]:
    """Yield names and places of the prompts."""
    for own, theirs in (("image", "visual"), ("text", "text")):
        for row, kind in enumerate(("complete", "missing")):
            yield f"{LEARNER}{theirs}_prompt_{kind}", Place(f"prompts.{own}_start", row)
    for row, kind in enumerate(("complete", "image", "text")):
        yield f"{LEARNER}common_prompt_{kind}", Place("prompts.common", row)
    for modality in ("image", "text"):
        own, block = f"prompts.{modality}_", DYNAMIC.format(modality)
        for part in ("weight", "bias"):
            for layer in range(depth):
                yield f"{LEARNER}layernorm_{modality}.{layer}.{part}", Place(f"{own}maps.{layer}.0.{part}")
                for number in (0, 2):  # Ours have the layer norm in front.
                    name = f"{LEARNER}compound_prompt_projections_{modality}.{layer}.{number}.{part}"
                    yield name, Place(f"{own}maps.{layer}.{number + 1}.{part}")
            for number in (0, 2):
                name = f"{LEARNER}common_prompt_projection_{modality}.{number}.{part}"
                yield name, Place(f"{own}common.{number}.{part}")
            for name in (f"in_proj_{part}", f"out_proj.{part}"):
                yield f"{block}attn_prompt.{name}", Place(f"{modality}_dynamic.attention.{name}")
        for row, kind in enumerate(("complete", "image", "text")):
            yield f"{block}prompts_dynamic_{kind}", Place(f"{modality}_dynamic.queries", row, "column")


def _head(own: Mapping[str, Tensor], data_set: str) -> Iterator[tuple[str, Place]]:
    """Yield names and places of the classifier or the prototypes."""
    if "head.prototypes" in own:
        for row, name in enumerate(("w_mi_c", "w_mi_tm", "w_mt_c", "w_mt_im")):
            yield f"{data_set}_pl_head.{name}", Place("head.prototypes", row, "transposed")
        return
    for part in ("weight", "bias"):
        yield f"{data_set}_classifier.{part}", Place(f"head.{part}")


def _describe(given: Mapping[str, Tensor]) -> str:
    """Describe the settings that a published checkpoint was probably trained with."""
    method = "DCP" if any(name.startswith(LEARNER) for name in given) else "DPL"
    heads = {name: tensor for name, tensor in given.items() if name.startswith(DATA_SETS)}
    if not heads:
        return "it is neither of DCP nor of DPL"
    head = next(iter(heads))
    classes = heads[head].shape[-1 if "pl_head" in head else 0]
    found = f"it is of {method}, its head {'has prototypes' if 'pl_head' in head else 'is linear'} of {classes} classes"
    common = given.get(f"{LEARNER}common_prompt_complete")
    depth = sum(bool(re.fullmatch(r".*layernorm_image\.\d+\.bias", name)) for name in given)
    return found if common is None else f"{found}, prompts {3 * len(common)}, depth {depth}"
