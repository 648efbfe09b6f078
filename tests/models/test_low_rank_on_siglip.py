"""LoRA and MoRA on a SigLIP, against transformers' model with the updated weights written into it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from transformers import SiglipModel

from robusttune.encoders import CLIPImageEncoder, CLIPTextEncoder
from robusttune.models import LoRA, MoRA
from robusttune.models.low_rank import LowRankModel, LowRankNetwork
from robusttune.types import Facts, Tokens

FIRST, LENGTH = 3, 16
PATTERN = torch.zeros(3, dtype=torch.int64)
SETTINGS: dict[str, LowRankModel] = {
    "LoRA": LoRA(("q_proj", "out_proj"), dropout=0.0, rank=3),
    "MoRA": MoRA(("k_proj", "v_proj"), dropout=0.0, shared_rank=2, image_rank=3, text_rank=2, alpha=0.3),
}


def network_on(folder: Path, settings: LowRankModel) -> tuple[LowRankNetwork, Any, Any]:
    encoders: dict[str, Any] = {"name": str(folder), "first_layer": FIRST}
    image, text = CLIPImageEncoder(**encoders).load(), CLIPTextEncoder(**encoders).load()
    network: Any = settings.build_on(image, text, Facts(["a", "b"], [0.5, 0.5], False))
    with torch.no_grad():
        for parameter in network.layers.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return network.eval(), image, text


@torch.no_grad()
def updated(folder: Path, network: LowRankNetwork) -> Any:
    """Return transformers' model with the network's weights."""
    siglip = SiglipModel.from_pretrained(folder).eval()
    for name, tower in (("image", siglip.vision_model), ("text", siglip.text_model)):
        for number, layer in enumerate(network.layers):
            attention = tower.encoder.layers[FIRST - 1 + number].self_attn
            for projection, weight in layer[name].weights().items():  # type: ignore[index]
                getattr(attention, projection).weight.copy_(weight)
    return siglip


@pytest.mark.parametrize("method", SETTINGS)
@torch.no_grad()
def test_features_are_those_of_the_updated_model(siglip_folder: Path, method: str) -> None:
    torch.manual_seed(0)
    network, image, text = network_on(siglip_folder, SETTINGS[method])
    siglip = updated(siglip_folder, network)
    pixels = torch.randint(256, (3, 3, image.side, image.side), dtype=torch.uint8)
    ids = torch.randint(2, 10, (3, 5))
    encoded = image.compute(pixels, False), text.compute(Tokens(ids, torch.ones(3, 5, dtype=torch.bool)), False)
    of_images = network.image_features(encoded[0].tokens[0], PATTERN)
    of_texts = network.text_features(encoded[1].tokens[0], encoded[1].mask[0], PATTERN)
    expected = siglip.get_image_features(image.normalise(pixels)).pooler_output
    torch.testing.assert_close(of_images, expected, rtol=1e-4, atol=1e-5)
    padded = functional.pad(ids, (0, LENGTH - 5), value=1)
    torch.testing.assert_close(of_texts, siglip.get_text_features(padded).pooler_output, rtol=1e-4, atol=1e-5)
    frozen = SiglipModel.from_pretrained(siglip_folder).eval().get_image_features(image.normalise(pixels)).pooler_output
    assert (of_images - frozen).abs().max() > 1e-3


@pytest.mark.parametrize("method", SETTINGS)
def test_an_absent_modality_is_a_white_image_or_an_empty_text(siglip_folder: Path, method: str) -> None:
    network, image, text = network_on(siglip_folder, SETTINGS[method])
    white = torch.full((2, 3, image.side, image.side), 255, dtype=torch.uint8)
    empty = text.prompt_tokenizer([""]).tokens

    def encode(pixels: Tensor, tokens: Tokens, present: tuple[list[bool], list[bool]]) -> Tensor:
        masks = [torch.tensor(each) for each in present]
        outputs = image.encode(pixels, masks[0], False), text.encode(tokens, masks[1], False)
        return network(*outputs, *masks).logits

    ids = torch.randint(2, 10, (2, empty.input_ids.shape[1]))
    both = Tokens(torch.cat([ids[:1], empty.input_ids]), torch.ones_like(ids, dtype=torch.bool))
    pixels = white.clone()
    pixels[1] = torch.randint(256, pixels[1].shape)
    shown = encode(pixels, both, ([True, True], [True, True]))
    hidden = encode(pixels[1:], both.map(lambda part: part[:1]), ([False, True], [True, False]))
    torch.testing.assert_close(hidden, shown, rtol=1e-4, atol=1e-5)
