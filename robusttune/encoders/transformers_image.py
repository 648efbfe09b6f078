"""Image encoders from transformers: the vision towers of CLIP, SigLIP, ViT and DINOv2."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from PIL import Image
from torch import Tensor
from transformers import AutoImageProcessor

from robusttune.encoders.base import ImageEncoder, all_real
from robusttune.encoders.layered import FrozenLayeredImageEncoder, LayeredImageEncoder
from robusttune.encoders.preprocessing import Preprocessing
from robusttune.encoders.remote_code import refuse_remote_code
from robusttune.encoders.saved_files import licence_of, save_model
from robusttune.encoders.transformers_common import chosen_layers, load_config, load_tower, load_whole, location
from robusttune.encoders.weights import fetching, replace_weights
from robusttune.errors import RobustTuneError
from robusttune.types import Encoded

RGB = tuple[float, float, float]


@dataclass(frozen=True, kw_only=True)
class TransformersImageEncoder(LayeredImageEncoder):
    """Settings of a vision tower from transformers, named by its repository or a local folder.

    Args:
        pooling: Source of ``pooled``: the model's own pooler (``head``; CLIP's class token after its final layer norm,
            SigLIP's attention pool), the first token (``class``), or the ``mean`` over all tokens.

    Example:
        >>> settings = TransformersImageEncoder(name="robusttune:demo_clip", weights="random", layers=[1, 3])
        >>> settings.load().widths
        Widths(layers=(128, 128), pooled=128)
    """

    pooling: Literal["head", "class", "mean"] = "head"

    def preprocessing(self) -> Preprocessing:
        """Return the preprocessing of the model's image processor, with this object's settings in place."""
        return self.override(own_preprocessing(self))

    def load(self) -> FrozenTransformersImage:
        """Build the frozen vision tower.

        Raises:
            RobustTuneError: The model has no patches, does not take square images of a fixed size, or cannot be loaded.
        """
        return FrozenTransformersImage(self)

    def save(self, folder: Path, updated: Mapping[str, Tensor] | None = None) -> None:
        """Write the model to a folder, see `LayeredEncoder.save`."""
        whole = load_whole(self, "vision_model", self.pooling == "head")
        replace_weights(getattr(whole, "vision_model", whole), updated)
        save_model(whole, self, folder)

    def licence(self) -> str | None:
        """Return the name of the model's licence, or None if it is not known."""
        return licence_of(location(self))


def own_preprocessing(settings: ImageEncoder) -> Preprocessing:
    """Return the preprocessing that the model's image processor describes.

    Raises:
        RobustTuneError: The image processor cannot be read, or the model does not take square images of a fixed size.
    """
    place = location(settings)
    with fetching(settings.name, settings.weights):
        refuse_remote_code(place, "AutoConfig", "AutoModel", "AutoImageProcessor")
        processor = AutoImageProcessor.from_pretrained(**place, trust_remote_code=False)
    edges, crop_edges = dict(getattr(processor, "size", None) or {}), dict(getattr(processor, "crop_size", None) or {})
    resized = edges.get("shortest_edge") or edges.get("height")
    if resized is None or not getattr(processor, "do_resize", True):
        raise RobustTuneError(f"{settings.name!r} has no fixed image size: choose another model")
    size = crop_edges["height"] if crop_edges and processor.do_center_crop else resized
    if edges.get("width", resized) != resized or (size != resized and crop_edges["width"] != size):
        raise RobustTuneError(f"{settings.name!r} does not take square images: choose another model")
    mean, std = normalisation(processor)
    return Preprocessing(
        size=size,
        crop=size / resized,
        mean=mean,
        std=std,
        interpolation=Image.Resampling(processor.resample).name.lower(),
        crop_mode="center" if "shortest_edge" in edges else "squash",
    )


def normalisation(processor: Any) -> tuple[RGB, RGB]:
    """Return the mean and the standard deviation of each channel, for values in [0, 1].

    Args:
        processor: Image processor from transformers. It may skip rescaling or normalisation, or use a factor other
            than 1 / 255; the returned values account for this.
    """
    scale = 255 * processor.rescale_factor if processor.do_rescale else 255.0
    mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    if processor.do_normalize:
        mean, std = tuple(processor.image_mean), tuple(processor.image_std)
    return tuple(value / scale for value in mean), tuple(value / scale for value in std)  # type: ignore[return-value]


class FrozenTransformersImage(FrozenLayeredImageEncoder):
    """The frozen vision tower that a `TransformersImageEncoder` loads."""

    settings: TransformersImageEncoder

    def __init__(self, settings: TransformersImageEncoder) -> None:
        preprocessing = settings.preprocessing()
        config = load_config(settings)
        config = getattr(config, "vision_config", config)
        if not hasattr(config, "patch_size"):
            raise RobustTuneError(f"{settings.name!r} is no patch-based vision tower: use timm's TimmEncoder for CNNs")
        if getattr(config, "num_detection_tokens", 0):  # detection tokens follow the patches
            raise RobustTuneError(f"{settings.name!r} does not return one token a patch: choose another model")
        if getattr(config, "image_size", None) is None:
            raise RobustTuneError(f"{settings.name!r} has no fixed image size: choose another model")
        super().__init__(load_tower(settings, "vision_model", settings.pooling == "head"), settings, preprocessing)
        self.adapt(settings.lora, self.backbone.config.num_hidden_layers)  # type: ignore[union-attr, arg-type]
        self.patches = preprocessing.size // config.patch_size
        try:
            self.widths = self.measure_widths()
        except ValueError as error:
            raise RobustTuneError(
                f"{settings.name!r} does not take images of {preprocessing.size} pixels: "
                f"set image_encoder.size to {config.image_size}"
            ) from error
        except (RuntimeError, TypeError) as error:
            reason = str(error).strip().split("\n")[0][:200].rstrip(".:")
            raise RobustTuneError(
                f"{settings.name!r} is no vision tower that reads images alone ({reason}): choose another model"
            ) from error

    def forward(self, images: Tensor) -> Encoded:
        """Encode images (B, 3, H, W), uint8, into pooled embeddings and tokens of the chosen layers."""
        output = self.backbone(pixel_values=self.normalise(images), output_hidden_states=True)
        tokens = [self._split(layer) for layer in chosen_layers(self.settings, output.hidden_states)]
        return Encoded(self._pooled(output), tokens, all_real(tokens))

    def _split(self, states: Tensor) -> Tensor:
        """Reshape the patches to a map, pool it to the grid, and keep the tokens that precede the patches."""
        prefix_length = states.shape[1] - self.patches**2
        if prefix_length < 0 or math.isqrt(states.shape[1] - prefix_length) != self.patches:
            raise RobustTuneError(f"{self.settings.name!r} does not return one token a patch: choose another model")
        maps = states[:, prefix_length:].transpose(1, 2)
        maps = maps.reshape(*maps.shape[:2], self.patches, self.patches)
        return self.to_tokens(maps, states[:, :prefix_length] if prefix_length else None)

    def _pooled(self, output: object) -> Tensor:
        states: Tensor = output.last_hidden_state  # type: ignore[attr-defined]
        if self.settings.pooling == "class":
            return states[:, 0]
        if self.settings.pooling == "mean":
            return states.mean(1)
        pooled: Tensor | None = getattr(output, "pooler_output", None)
        if pooled is None:
            raise RobustTuneError(f"{self.settings.name!r} has no pooler: set pooling to 'class' or 'mean'")
        return pooled
