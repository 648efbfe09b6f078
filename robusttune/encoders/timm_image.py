"""Image encoders from timm: any model that returns its intermediate layers (ViTs, CNNs, hybrids)."""

from __future__ import annotations

import difflib
import inspect
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn

from robusttune.encoders.base import all_real
from robusttune.encoders.layered import FrozenLayeredImageEncoder, LayeredImageEncoder
from robusttune.encoders.preprocessing import Preprocessing
from robusttune.encoders.weights import fetching, local_weights, refuse_code, seeded, strict_loading
from robusttune.errors import RobustTuneError
from robusttune.types import Encoded

CHANNELS = 3


@dataclass(frozen=True, kw_only=True)
class TimmEncoder(LayeredImageEncoder):
    """Settings of an image model from timm, named as in timm (``vit_base_patch16_224.augreg_in21k``).

    Args:
        model_args: Further arguments of the model's constructor.

    Raises:
        RobustTuneError: ``model_args`` sets a number of input channels other than 3.

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
        channels = self.model_args.get("in_chans", CHANNELS)
        if channels not in (None, CHANNELS):
            raise RobustTuneError(
                f"image_encoder.model_args.in_chans is {channels}, and images have {CHANNELS} channels: "
                f"model_args.in_chans must be {CHANNELS}, or left out"
            )

    def preprocessing(self) -> Preprocessing:
        """Return the preprocessing that timm records for the weights, with this object's settings in place."""
        cfg = self._pretrained_cfg()
        return self.override(
            Preprocessing(
                size=cfg.input_size[-1],
                crop=cfg.crop_pct,
                mean=cfg.mean,
                std=cfg.std,
                interpolation=cfg.interpolation,
                crop_mode="squash" if cfg.crop_mode == "squash" else "center",
            )
        )

    def load(self) -> FrozenTimmEncoder:
        """Build the frozen model.

        Raises:
            RobustTuneError: timm does not know the model or publishes no weights of it, the weights cannot be fetched
                or do not fit, or the model does not return its intermediate layers.
        """
        preprocessing, cfg = self.preprocessing(), self._pretrained_cfg()
        if self.weights == "pretrained" and not cfg.has_weights:
            raise RobustTuneError(f"timm publishes no weights of {self.name!r}: set weights to a file, or to random")
        repository = cfg.hf_hub_id or cfg.url or "timm/"
        repository += f"{cfg.architecture}.{cfg.tag}" if repository.endswith("/") else ""
        overlay: dict[str, Any] = {}
        if self.weights not in ("pretrained", "random"):
            overlay["file"] = str(_weights_file(local_weights(self.weights)))
        elif self.revision is not None:
            overlay["hf_hub_id"] = f"{repository}@{self.revision}"
        args = dict(self.model_args)
        if cfg.fixed_input_size:
            args.setdefault("img_size", preprocessing.size)
        with seeded(), fetching(repository, self.weights), strict_loading():
            if "file" in overlay:
                refuse_code(Path(overlay["file"]))
            backbone = timm.create_model(
                self.name,
                pretrained=self.weights != "random",
                pretrained_cfg_overlay=overlay or None,
                num_classes=0,
                **args,
            )
        if not hasattr(backbone, "forward_intermediates"):
            raise RobustTuneError(f"timm's {self.name!r} does not give its intermediate layers: choose another model")
        return FrozenTimmEncoder(backbone, preprocessing, self)

    def _pretrained_cfg(self) -> Any:
        cfg = timm.get_pretrained_cfg(self.name) if timm.is_model(self.name) else None
        if cfg is None:
            near = difflib.get_close_matches(self.name, timm.list_models() + timm.list_pretrained(), n=3)
            raise RobustTuneError(
                f"timm has no model {self.name!r}: "
                + (f"did you mean {', '.join(near)}?" if near else "timm.list_models() lists them")
            )
        return cfg


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
        self.indices = [number - 1 for number in settings.layer_numbers(depth)]
        accepted = inspect.signature(backbone.forward_intermediates).parameters  # type: ignore[arg-type]
        self.prefix_arg = {"return_prefix_tokens": True} if "return_prefix_tokens" in accepted else {}
        try:
            self.widths = self.measure_widths()
        except (AssertionError, RuntimeError) as error:
            reason = str(error).split("\n")[0].rstrip(".")
            raise RobustTuneError(
                f"timm's {settings.name!r} does not take images of {self.side} pixels ({reason}): "
                "set image_encoder.size to null, or to a size that fits"
            ) from error

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


def _weights_file(path: Path) -> Path:
    """Return the weights file at a path: the file itself, or the one with a known name in a folder.

    Raises:
        RobustTuneError: The folder holds no file with a known name.
    """
    if path.is_file():
        return path
    for name in ("model.safetensors", "open_clip_model.safetensors", "pytorch_model.bin"):
        if (path / name).is_file():
            return path / name
    raise RobustTuneError(f"{path} holds no model.safetensors: set weights to the file itself")
