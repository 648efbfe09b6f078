"""The parts of CLIP and SigLIP from transformers, whose layers adapters can reach into, under one set of names."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, Literal, NamedTuple

from torch import Tensor, nn
from transformers import CLIPModel, SiglipModel

from robusttune.encoders.base import Encoder
from robusttune.encoders.blocks import Block
from robusttune.encoders.transformers_common import load_config, load_model
from robusttune.errors import RobustTuneError

Reads = Literal["first", "end", "last", "all"]


class Parts(NamedTuple):
    """The parts of a tower.

    Attributes:
        entry: Modules before the layers, which run one after the other.
        layers: Layers of transformers.
        norm: Layer norm after the last layer.
        projection: Map from normalised states, shape (B, r, d), to the embedding space that both towers share, shape
            (B, 1, d_e).
        reads: Positions that the projection reads, see `UpperTower`.
    """

    entry: list[nn.Module]
    layers: nn.ModuleList
    norm: nn.Module
    projection: nn.Linear | AttentionPool
    reads: Reads


class AttentionPool(nn.Module):
    """The attention pooling of SigLIP: a learned probe attends to all states, and an MLP follows.

    Args:
        head: ``SiglipMultiheadAttentionPoolingHead`` of transformers, whose weights are taken over. Its tensors are
            modified in place.

    Attributes:
        in_features: Width of the states.
        out_features: Width of the result, which is the same.
    """

    def __init__(self, head: Any) -> None:
        super().__init__()
        self.probe = head.probe
        self.block = Block(_as_layer(head))
        self.in_features = self.out_features = head.probe.shape[-1]

    def forward(self, states: Tensor) -> Tensor:
        """Pool states of shape (B, n, d) to shape (B, 1, d)."""
        attended = self.block.attend_few(self.probe, states)
        return self.block.finish(attended.new_zeros(()), attended)  # The probe itself is not added.


def _as_layer(head: Any) -> Any:
    """Return a pooling head with the names of an encoder layer, which `Block` reads."""
    weights, biases = (
        tensor.detach().chunk(3) for tensor in (head.attention.in_proj_weight, head.attention.in_proj_bias)
    )
    query, key, value = (_linear(*pair) for pair in zip(weights, biases, strict=True))
    attention = SimpleNamespace(
        num_heads=head.attention.num_heads,
        embed_dim=head.attention.embed_dim,
        q_proj=query,
        k_proj=key,
        v_proj=value,
        out_proj=head.attention.out_proj,
    )
    return SimpleNamespace(self_attn=attention, layer_norm1=nn.Identity(), layer_norm2=head.layernorm, mlp=head.mlp)


def _linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    linear = nn.Linear(weight.shape[1], weight.shape[0])
    linear.load_state_dict({"weight": weight, "bias": bias})
    return linear


def image_parts(model: Any) -> Parts:
    """Return the parts of a model's vision tower. The weights of a SigLIP's pooling head are modified in place."""
    tower = model.vision_model
    if isinstance(model, SiglipModel):
        return Parts([tower.embeddings], tower.encoder.layers, tower.post_layernorm, AttentionPool(tower.head), "all")
    entry = [tower.embeddings, tower.pre_layrnorm]
    return Parts(entry, tower.encoder.layers, tower.post_layernorm, model.visual_projection, "first")


def text_parts(model: Any) -> Parts:
    """Return the parts of a model's text tower."""
    tower = model.text_model
    entry, layers, norm = [tower.embeddings], tower.encoder.layers, tower.final_layer_norm
    if isinstance(model, SiglipModel):
        return Parts(entry, layers, norm, tower.head, "last")
    return Parts(entry, layers, norm, model.text_projection, "end")


def load_one_tower(settings: Encoder, unused: tuple[str, ...]) -> Any:
    """Load the CLIP or SigLIP that the settings name, and remove what the other tower alone needs.

    Args:
        settings: Settings of an encoder.
        unused: Names of the model's attributes to remove. Those that it does not have are ignored.

    Raises:
        RobustTuneError: See `load_clip`.
    """
    model = load_clip(settings)
    for name in unused:
        if hasattr(model, name):
            delattr(model, name)
    return model


def load_clip(settings: Encoder) -> Any:
    """Load the CLIP or SigLIP that the settings name.

    Raises:
        RobustTuneError: The model is neither, or cannot be loaded.
    """
    config = load_config(settings)
    if config.model_type == "siglip2":
        raise RobustTuneError(
            f"{settings.name!r} is a SigLIP 2 for images of any shape (NaFlex), which adapters cannot reach into: "
            "choose one of a fixed resolution such as google/siglip2-base-patch16-224"
        )
    model = load_model(settings, config)
    if not isinstance(model, CLIPModel | SiglipModel):
        raise RobustTuneError(
            f"{settings.name!r} is a {type(model).__name__}, and no CLIP or SigLIP: "
            "choose one such as openai/clip-vit-base-patch16 or google/siglip2-base-patch16-224, or the encoders "
            "TransformersImageEncoder and TransformersTextEncoder, which adapters cannot reach into"
        )
    if isinstance(model, SiglipModel) and not model.vision_model.use_head:
        raise RobustTuneError(
            f"{settings.name!r} is a SigLIP without its pooling head, and has no image features: choose another model"
        )
    return model
