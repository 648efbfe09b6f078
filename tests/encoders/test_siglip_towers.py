"""The towers of a SigLIP give the features of transformers, from texts at their full length."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from fakes import write_model, write_siglip
from torch import Tensor
from torch.nn import functional
from transformers import AutoTokenizer, SiglipImageProcessor, SiglipModel

from robusttune.encoders import CLIPImageEncoder, CLIPTextEncoder
from robusttune.errors import RobustTuneError

TEXTS = ["a photo of apple pie", "soup", "a cake of apple soup pie cake pug cat crane tench soup pie apple cake soup"]
SQUARE = {"height": 32, "width": 32}


def own(output: Any) -> Tensor:
    """Return features of transformers, whose newer releases wrap them, scaled to length 1."""
    return functional.normalize(output if isinstance(output, Tensor) else output.pooler_output, dim=-1)


@torch.no_grad()
@pytest.mark.parametrize("first_layer", [1, 3, 5])
def test_features_are_those_of_transformers(siglip_folder: Path, first_layer: int) -> None:
    image = CLIPImageEncoder(name=str(siglip_folder), first_layer=first_layer).load()
    text = CLIPTextEncoder(name=str(siglip_folder), first_layer=first_layer).load()
    siglip = SiglipModel.from_pretrained(siglip_folder).eval()
    images = torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    expected = own(siglip.get_image_features(image.normalise(images)))
    torch.testing.assert_close(image(images).pooled, expected, rtol=0, atol=1e-5)
    encoded = text(text.settings.tokenizer()(TEXTS).tokens)
    inputs = AutoTokenizer.from_pretrained(siglip_folder)(
        TEXTS, padding="max_length", max_length=16, truncation=True, return_tensors="pt"
    )
    torch.testing.assert_close(encoded.pooled, own(siglip.get_text_features(inputs["input_ids"])), rtol=0, atol=1e-5)
    assert encoded.tokens[0].shape == (3, 16 if first_layer < 5 else 1, 32)
    assert encoded.mask[0].all()
    assert text.logit_scale == pytest.approx(float(siglip.logit_scale.exp()))


@torch.no_grad()
@pytest.mark.parametrize("padding_side", ["right", "left"])
def test_a_text_has_the_features_of_its_full_length_in_any_batch(padding_side: str, tmp_path: Path) -> None:
    write_siglip(tmp_path)
    config = json.loads((tmp_path / "tokenizer_config.json").read_text()) | {"padding_side": padding_side}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    text = CLIPTextEncoder(name=str(tmp_path), first_layer=2, max_length=9).load()
    ids = tokenizer(["soup"], padding="max_length", max_length=16, return_tensors="pt")["input_ids"]
    expected = own(SiglipModel.from_pretrained(tmp_path).eval().get_text_features(ids))
    for texts in (["soup"], ["soup", *TEXTS]):
        found = text(text.settings.tokenizer()(texts).tokens).pooled[:1]
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


@torch.no_grad()
def test_the_cache_knows_the_size_of_features(siglip_folder: Path) -> None:
    """Of texts as long as the model takes, however short they are."""
    for first_layer in (2, 5):
        text = CLIPTextEncoder(name=str(siglip_folder), first_layer=first_layer).load()
        encoded = text(text.settings.tokenizer()(["soup"]).tokens)
        assert text.feature_count(2) == encoded.pooled.numel() + encoded.tokens[0].numel()


@torch.no_grad()
def test_saved_towers_are_the_same(siglip_folder: Path, tmp_path: Path) -> None:
    for kind in (CLIPImageEncoder, CLIPTextEncoder):
        kind(name=str(siglip_folder), first_layer=2).save(tmp_path)
    for kind in (CLIPImageEncoder, CLIPTextEncoder):
        saved, first = (kind(name=str(folder), first_layer=2).load() for folder in (tmp_path, siglip_folder))
        assert saved.sha256 == first.sha256
        assert saved.settings.inputs() == first.settings.inputs()


@pytest.mark.parametrize("kind", [CLIPImageEncoder, CLIPTextEncoder])
def test_siglips_without_the_parts_that_are_read(
    kind: type[CLIPImageEncoder] | type[CLIPTextEncoder], tmp_path: Path
) -> None:
    write_model(tmp_path / "naflex", "siglip2")
    SiglipImageProcessor(size=SQUARE).save_pretrained(tmp_path / "naflex")
    with pytest.raises(
        RobustTuneError, match=r"NaFlex.*: choose one of a fixed resolution such as google/siglip2-base"
    ):
        kind(name=str(tmp_path / "naflex"), first_layer=1).load()
    write_siglip(tmp_path / "headless", vision_use_head=False)
    with pytest.raises(RobustTuneError, match="is a SigLIP without its pooling head"):
        kind(name=str(tmp_path / "headless"), first_layer=1).load()
