"""Image encoders from timm: any model that returns its intermediate layers (ViTs, CNNs, hybrids)."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from robusttune.encoders.base import all_real
from robusttune.encoders.layered import FrozenLayeredImageEncoder, LayeredImageEncoder
from robusttune.encoders.preprocessing import Preprocessing
from robusttune.encoders.timm_models import FILES, TimmModel, find_model, weights_file, write_config
from robusttune.encoders.weights import (
    fetching,
    local_weights,
    refuse_code,
    replace_weights,
    seeded,
    strict_loading,
)
from robusttune.errors import RobustTuneError
from robusttune.types import Encoded

CHANNELS = 3
CREATE = (*inspect.signature(timm.create_model).parameters,)[:-1]  # its own arguments, without those of the model


@dataclass(frozen=True, kw_only=True)
class TimmEncoder(LayeredImageEncoder):
    """Settings of an image model from timm, named as in timm (``vit_base_patch16_224.augreg_in21k``).

    The name may also be a repository of the Hugging Face hub (``hf-hub:timm/vit_tiny_patch16_224.augreg_in21k``), or a
    folder with ``config.json`` and weights, as timm's ``save_for_hf`` writes them.

    Args:
        model_args: Further arguments of the model's constructor, such as ``{dynamic_img_size: true}``. ``img_size`` is
            also the size of the images, as ``size`` is.

    Raises:
        RobustTuneError: ``model_args`` sets a number of input channels other than 3, images that are no squares, a size
            other than ``size``, or an argument that this class sets itself.

    Example:
        >>> encoder = TimmEncoder(name="vit_tiny_patch16_224", weights="random", layers=3)
        >>> encoder.layer_numbers(12)
        [4, 8, 12]
        >>> encoder.preprocessing().size
        224
    """

    model_args: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in (*CREATE, "num_classes", "features_only", "out_indices"):
            if name in self.model_args:
                raise RobustTuneError(f"image_encoder.model_args.{name} is set by this encoder: leave it out")
        _refuse_channels(self.model_args, "image_encoder.model_args")
        own = _square("image_encoder.model_args", self.model_args.get("img_size"))
        if None not in (own, self.size) and own != self.size:
            raise RobustTuneError(
                f"image_encoder.size is {self.size}, and model_args.img_size {own}: leave one of them out"
            )

    def preprocessing(self) -> Preprocessing:
        """Return the preprocessing that timm records for the weights, with this object's settings in place."""
        return self._preprocessing(self._model())

    def load(self) -> FrozenTimmEncoder:
        """Build the frozen model.

        Raises:
            RobustTuneError: timm does not know the model or publishes no weights of it, the weights cannot be fetched
                or do not fit, or the model does not return its intermediate layers.
        """
        model = self._model()
        preprocessing = self._preprocessing(model)
        backbone = self._build(model, preprocessing.size)
        if not hasattr(backbone, "forward_intermediates"):
            raise RobustTuneError(f"timm's {self.name!r} does not give its intermediate layers: choose another model")
        return FrozenTimmEncoder(backbone, preprocessing, self)

    def save(self, folder: Path, updated: Mapping[str, Tensor] | None = None) -> None:
        """Write the model to a folder, see `LayeredEncoder.save`."""
        model = self._model()
        backbone = self._build(model, self._preprocessing(model).size)
        replace_weights(backbone, updated)
        folder.mkdir(parents=True, exist_ok=True)
        weights = {name: tensor.contiguous() for name, tensor in backbone.state_dict().items()}
        save_file(weights, folder / FILES[0])
        write_config(model, folder / "config.json")

    def licence(self) -> str | None:
        """Return the name of the model's licence, or None if it is not known."""
        found: str | None = self._model().cfg.license
        return found

    def _build(self, model: TimmModel, size: int) -> nn.Module:
        """Build the whole model for images of ``size`` pixels, with its weights."""
        if self.weights == "pretrained" and not model.cfg.has_weights:
            raise RobustTuneError(f"timm publishes no weights of {self.name!r}: set weights to a file, or to random")
        with seeded(), fetching(model.place, self.weights), strict_loading():
            built: nn.Module = timm.create_model(
                model.name,
                pretrained=self.weights != "random",
                pretrained_cfg=model.pretrained_cfg(),
                pretrained_cfg_overlay=self._source_of_weights(model),
                num_classes=0,
                **self._arguments(model, size),
            )
        return built

    def _model(self) -> TimmModel:
        model = find_model(self.name, self.weights, self.revision)
        _refuse_channels(model.args, model.place)
        return model

    def _preprocessing(self, model: TimmModel) -> Preprocessing:
        """Return the preprocessing. Its size is that of the images that the model is built for."""
        cfg = model.cfg
        sizes = (_square(place, args.get("img_size")) for place, args in self._all_arguments(model))
        return self.override(
            Preprocessing(
                size=next((size for size in sizes if size is not None), cfg.input_size[-1]),
                crop=cfg.crop_pct,
                mean=cfg.mean,
                std=cfg.std,
                interpolation=cfg.interpolation,
                crop_mode="squash" if cfg.crop_mode == "squash" else "center",
            )
        )

    def _all_arguments(self, model: TimmModel) -> list[tuple[str, dict[str, Any]]]:
        return [("image_encoder.model_args", self.model_args), (model.place, model.args)]

    def _arguments(self, model: TimmModel, size: int) -> dict[str, Any]:
        """Return the arguments of the model's constructor: those it was published with, and those of the settings."""
        args = {**model.args, **self.model_args}
        for name in (*CREATE, "num_classes"):
            args.pop(name, None)
        if model.cfg.fixed_input_size or args.get("img_size") is not None:
            args["img_size"] = size
        return args

    def _source_of_weights(self, model: TimmModel) -> dict[str, Any] | None:
        """Return the fields of timm's description that say where the weights are; None to leave them as they are.

        Raises:
            RobustTuneError: A local file does not exist, or holds more than tensors.
        """
        if self.weights == "random":
            return None
        local = model.cfg.file if self.weights == "pretrained" else str(local_weights(self.weights))
        if local is not None:
            file = weights_file(Path(local))
            refuse_code(file)
            return {"file": str(file), "source": None}
        return None if self.revision is None else {"hf_hub_id": model.cfg.hf_hub_id}


def _refuse_channels(args: dict[str, Any], place: str) -> None:
    channels = args.get("in_chans", CHANNELS)
    if channels not in (None, CHANNELS):
        raise RobustTuneError(
            f"{place}.in_chans is {channels}, and images have {CHANNELS} channels: "
            f"model_args.in_chans must be {CHANNELS}, or left out"
        )


def _square(place: str, size: Any) -> int | None:
    """Return the edge length that ``img_size`` means, or None where it is not set.

    Raises:
        RobustTuneError: The size is no number of pixels, or not that of a square.
    """
    if size is None:
        return None
    edges = {*size} if isinstance(size, list | tuple) else {size}
    edge = next(iter(edges), None)
    if len(edges) != 1 or not isinstance(edge, int) or edge < 1:
        raise RobustTuneError(f"{place}.img_size is {size}, and images are squares: give one number of pixels")
    return edge


class FrozenTimmEncoder(FrozenLayeredImageEncoder):
    """The frozen model that a `TimmEncoder` loads. ``pooled`` is the input of the model's own classifier."""

    def __init__(self, backbone: nn.Module, preprocessing: Preprocessing, settings: TimmEncoder) -> None:
        layers: Any = backbone.feature_info
        depth = settings.run_depth(len(layers))
        if depth < len(layers):
            if layers[depth - 1]["num_chs"] != layers[-1]["num_chs"]:
                raise RobustTuneError(
                    f"timm's {settings.name!r} cannot stop after layer {depth}, which is not as wide as the last: "
                    "set image_encoder.depth to null"
                )
            backbone.prune_intermediate_layers([depth - 1], prune_head=False)  # type: ignore[operator]
        super().__init__(backbone, settings, preprocessing)
        self.adapt(settings.lora, depth)
        self.indices = [number - 1 for number in settings.layer_numbers(depth)]
        accepted = inspect.signature(backbone.forward_intermediates).parameters  # type: ignore[arg-type]
        self.prefix_arg = {"return_prefix_tokens": True} if "return_prefix_tokens" in accepted else {}
        self._check_patches(settings)
        try:
            self.widths = self.measure_widths()
        except (AssertionError, RuntimeError) as error:
            reason = str(error).split("\n")[0].rstrip(".")
            raise RobustTuneError(
                f"timm's {settings.name!r} does not take images of {self.side} pixels ({reason}): "
                "set image_encoder.size to null, or to a size that fits"
            ) from error

    def _check_patches(self, settings: TimmEncoder) -> None:
        """Check that patches cover the whole image. timm would leave out a border without a word.

        Raises:
            RobustTuneError: The size of the images is not a multiple of that of the patches.
        """
        embed = getattr(self.backbone, "patch_embed", None)
        patch = getattr(embed, "patch_size", None)
        edges = patch if isinstance(patch, list | tuple) else (patch,)
        pads = getattr(embed, "dynamic_img_pad", False)
        if not pads and any(isinstance(edge, int) and self.side % edge for edge in edges):
            raise RobustTuneError(
                f"timm's {settings.name!r} has patches of {max(edges)} pixels, which do not fit images of {self.side}: "
                "set image_encoder.size to a multiple"
            )

    def forward(self, images: Tensor) -> Encoded:
        """Encode images (B, 3, H, W), uint8, into pooled embeddings and tokens of the chosen layers."""
        final, layers = self.backbone.forward_intermediates(  # type: ignore[operator]
            self.normalise(images), indices=self.indices, output_fmt="NCHW", **self.prefix_arg
        )
        pooled: Tensor = self.backbone.forward_head(final, pre_logits=True)  # type: ignore[operator]
        # A layer with prefix tokens (class, distillation, registers) is a pair; a layer without them is a map alone.
        pairs = [layer if isinstance(layer, tuple) else (layer, None) for layer in layers]
        tokens = [self.to_tokens(maps, prefix) for maps, prefix in pairs]
        return Encoded(torch.flatten(pooled, 1), tokens, all_real(tokens))
