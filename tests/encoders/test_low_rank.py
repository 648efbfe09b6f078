"""Low-rank adaptation: what the updates are, where they go, and what they leave alone."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from fakes import tiny_image_encoder, tiny_text_encoder, word_tokenizer, write_model
from torch import Tensor

from robusttune.encoders import FrozenEncoder, LoRA, TimmEncoder, TransformersImageEncoder, TransformersTextEncoder
from robusttune.encoders.low_rank import Target
from robusttune.errors import RobustTuneError
from robusttune.types import ImageSets, Tokens

EVERY: tuple[Target, ...] = ("query", "key", "value", "output", "fc1", "fc2")
SMALL = {"embed_dim": 32, "depth": 3, "num_heads": 2, "img_size": 32, "patch_size": 8}
# For each kind of encoder: where its last layer is, and the names of the linear layers there.
BERT = [f"attention.self.{name}" for name in EVERY[:3]]
BERT += [f"{name}.dense" for name in ("attention.output", "intermediate", "output")]
DISTILBERT = [f"attention.{name}_lin" for name in ("q", "k", "v", "out")] + ["ffn.lin1", "ffn.lin2"]
CLIP = [f"self_attn.{name}_proj" for name in ("q", "k", "v", "out")] + ["mlp.fc1", "mlp.fc2"]
VIT = ["attn.qkv"] * 3 + ["attn.proj", "mlp.fc1", "mlp.fc2"]
PLACES: dict[str, tuple[str, list[str]]] = {
    "bert": ("encoder.layer.2", BERT),
    "distilbert": ("transformer.layer.2", DISTILBERT),
    "clip": ("encoder.layers.2", CLIP),
    "siglip": ("encoder.layers.1", CLIP),
    "timm vit": ("blocks.2", VIT),
    "timm beit": ("blocks.2", VIT),
}


def settings_of(kind: str, folder: Path, lora: LoRA | None) -> Any:
    """Return the settings of a tiny encoder with three layers; that of SigLIP has two."""
    if kind.startswith("timm"):
        name = {"timm vit": "vit_tiny_patch16_224", "timm beit": "beit_base_patch16_224"}[kind]
        return TimmEncoder(name=name, weights="random", layers=2, grid=2, model_args=SMALL, lora=lora)
    if not folder.exists():
        word_tokenizer().save_pretrained(write_model(folder, kind, num_hidden_layers=3))
        processor = {"image_processor_type": "ViTImageProcessor", "size": {"height": 32, "width": 32}}
        (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    if kind == "siglip":
        return TransformersImageEncoder(name=str(folder), weights="random", layers=2, grid=2, lora=lora)
    return TransformersTextEncoder(name=str(folder), layers=2, max_length=8, lora=lora)


def with_random_updates(encoder: FrozenEncoder) -> FrozenEncoder:
    """Give the updates values other than those they start with."""
    random = torch.Generator().manual_seed(1)
    for update in encoder.updates():
        update.data.copy_(0.5 * torch.randn(update.shape, generator=random))
    return encoder


def features(encoder: FrozenEncoder) -> Tensor:
    """Return pooled embeddings and tokens of a batch as one vector."""
    random = torch.Generator().manual_seed(0)
    inputs: Any = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8, generator=random)
    if not hasattr(encoder, "side"):
        inputs = Tokens(torch.tensor([[5, 6, 7, 8], [9, 5, 1, 1]]), torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]]).bool())
    encoded = encoder.encode(inputs, torch.ones(2, dtype=torch.bool))
    masked = [tokens * mask.unsqueeze(2) for tokens, mask in zip(encoded.tokens, encoded.mask, strict=True)]
    return torch.cat([part.flatten() for part in (encoded.pooled, *masked)])


@pytest.mark.parametrize("kind", PLACES)
def test_updates_are_those_of_the_paper(kind: str, tmp_path: Path) -> None:
    """They start without effect, add ``alpha / rank B A`` to the weights of their layers, and are merged."""
    lora = LoRA(rank=2, alpha=3.0, targets=EVERY)  # of the third of three layers
    settings = settings_of(kind, tmp_path / "model", lora)
    frozen, adapted = replace(settings, lora=None).load(), settings.load()
    before = features(frozen)
    assert torch.equal(features(adapted), before)
    assert (adapted.sha256, adapted.architecture, adapted.size) == (frozen.sha256, frozen.architecture, frozen.size)
    with_random_updates(adapted)
    layer, names = PLACES[kind]
    state = adapted.backbone.state_dict()
    for number, (target, name) in enumerate(zip(EVERY, names, strict=True)):
        prefix = f"{layer}.{name}.parametrizations.weight.0.updates.{target}"
        product = torch.einsum("or,ri->oi", state[f"{prefix}.lora_B"], state[f"{prefix}.lora_A"])
        weight = frozen.backbone.get_parameter(f"{layer}.{name}.weight").data
        rows = weight.chunk(3)[number] if name.endswith("qkv") else weight
        rows += 1.5 * product
    changed = features(frozen)
    assert (changed - before).abs().max() > 0.01
    torch.testing.assert_close(features(adapted), changed, rtol=1e-5, atol=1e-5)
    adapted.merge()
    assert not adapted.updates()
    torch.testing.assert_close(features(adapted), changed, rtol=1e-5, atol=1e-5)
    adapted.settings.save(tmp_path / "saved", adapted.updated_weights())
    saved = replace(settings, name=str(tmp_path / "saved"), weights="pretrained", lora=None).load()
    torch.testing.assert_close(features(saved), features(adapted), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("kind", ["bert", "timm vit", "timm beit"])
def test_gradients_flow_to_every_update_alone(kind: str, tmp_path: Path) -> None:
    encoder = with_random_updates(settings_of(kind, tmp_path / "model", LoRA(rank=2, first_layer=2)).load())
    encoder.train()
    assert not encoder.training  # without dropout, as ever
    features(encoder).square().sum().backward()
    assert len(encoder.updates()) == 2 * 2 * 2  # layers, targets, matrices
    assert all(update.grad is not None and update.grad.abs().max() > 0 for update in encoder.updates())
    assert [name for name, p in encoder.named_parameters() if p.grad is not None] == [
        name for name, _ in encoder.named_parameters() if name.rpartition(".")[2] in ("lora_A", "lora_B")
    ]
    with torch.no_grad():
        assert not features(encoder).requires_grad


def test_layers_of_an_encoder_that_stops_early(text_folder: Path) -> None:
    """The last third of the layers is that of those that run."""
    encoders = [
        tiny_image_encoder(depth=3, lora=LoRA()),
        tiny_text_encoder(text_folder, layers=1, depth=1, lora=LoRA()),
    ]
    found = [[*encoder.load().updated_weights()] for encoder in encoders]
    assert found[0] == ["blocks.2.attn.qkv.weight"]
    assert found[1] == [f"encoder.layer.0.attention.self.{name}.weight" for name in ("query", "value")]


def test_gradients_of_samples_with_several_images() -> None:
    encoder = with_random_updates(tiny_image_encoder(lora=LoRA()).load())
    pixels = torch.randint(0, 256, (2, 3, 3, 32, 32), dtype=torch.uint8)
    mean = encoder.encode(ImageSets(pixels, torch.tensor([3, 1])), torch.ones(2, dtype=torch.bool)).pooled
    each = encoder.encode(pixels[0], torch.ones(3, dtype=torch.bool)).pooled
    torch.testing.assert_close(mean[0], each.mean(0))
    of_mean = torch.autograd.grad(mean[0].square().sum(), encoder.updates())
    for found, expected in zip(
        of_mean, torch.autograd.grad(each.mean(0).square().sum(), encoder.updates()), strict=True
    ):
        torch.testing.assert_close(found, expected)


def test_no_gradient_without_updates(text_folder: Path) -> None:
    assert not features(tiny_text_encoder(text_folder).load()).requires_grad


@pytest.mark.parametrize("target", ["query", "key", "value"])
def test_rows_of_a_shared_weight(target: Target, tmp_path: Path) -> None:
    """What one token attends to is itself: its queries and keys do not matter, its values do."""
    encoder = settings_of("timm vit", tmp_path, LoRA(targets=(target,))).load()
    attention = encoder.backbone.blocks[2].attn
    token = torch.randn(1, 1, 32)
    before = attention(token)
    with_random_updates(encoder)
    assert torch.equal(attention(token), before) == (target != "value")


def test_updates_in_half_precision(text_folder: Path) -> None:
    encoder = with_random_updates(tiny_text_encoder(text_folder, lora=LoRA()).load())
    exact = features(encoder)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(features(encoder).float(), exact, rtol=0.05, atol=0.05)
    torch.testing.assert_close(features(encoder.to(torch.bfloat16)).float(), exact, rtol=0.05, atol=0.05)


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "a layer that there is not": (
        {"first_layer": 7},
        "lora.first_layer is 7, and the encoder has 6 layers: give ",
    ),
    "no rank": ({"rank": 0}, r"lora has rank 0 and alpha 16.0: give positive numbers"),
    "no target": ({"targets": ()}, r"lora.targets is \[\]: give different ones of query, key, value, output, fc1, fc2"),
    "a target twice": ({"targets": ("key", "key")}, r"lora.targets is \['key', 'key'\]: give different ones"),
}


@pytest.mark.parametrize("mistake", WRONG)
def test_wrong_settings(mistake: str) -> None:
    arguments, message = WRONG[mistake]
    with pytest.raises(RobustTuneError, match=f"^{message}"):
        tiny_image_encoder(lora=LoRA(**arguments)).load()


@pytest.mark.parametrize("name", ["test_efficientnet", "test_convnext", "swin_tiny_patch4_window7_224"])
def test_models_without_the_layers(name: str) -> None:
    """Swin has them in four stacks, of which only one could be meant."""
    args = {"embed_dim": 24} if "swin" in name else {}
    encoder = TimmEncoder(name=name, weights="random", layers=1, lora=LoRA(), model_args=args)
    with pytest.raises(RobustTuneError, match=f"^{name!r} is no stack of layers with query, value that lora knows: "):
        encoder.load()
