"""States and pooled features of each type of model against the model's own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from fakes import word_tokenizer, write_model
from PIL import Image
from transformers import (
    AutoImageProcessor,
    AutoModel,
    AutoTokenizer,
    BitImageProcessor,
    CLIPImageProcessor,
    SiglipImageProcessor,
    ViTImageProcessor,
)

from robusttune.encoders import ImageTransform, TimmEncoder, TransformersImageEncoder, TransformersTextEncoder
from robusttune.errors import RobustTuneError
from robusttune.types import Encoded

TEXTS = ["apple pie", "a photo of the miso soup", "the chocolate cake recipe"]
ALBERT = {"embedding_size": 32}
LONGFORMER = {"attention_window": [4, 4]}
DEBERTA_V3 = {"position_biased_input": False, "relative_attention": True, "pos_att_type": ["p2c", "c2p"]}
XLNET = {"d_model": 32, "n_layer": 2, "n_head": 2, "d_inner": 48}
TEXT_MODELS: list[tuple[str, dict[str, Any]]] = [
    ("bert", {}),  # MiniLM is one
    ("roberta", {}),
    ("xlm-roberta", {}),
    ("camembert", {}),
    ("distilbert", {}),
    ("electra", {}),
    ("albert", ALBERT),
    ("mpnet", {}),
    ("longformer", LONGFORMER),
    ("deberta", {}),
    ("deberta-v2", DEBERTA_V3),
    ("modernbert", {"cls_token_id": 0, "sep_token_id": 3}),
    ("gpt2", {}),
    ("clip", {}),
    ("chinese_clip", {}),
]


def own(output: Any) -> torch.Tensor:
    """Return features that some releases of transformers wrap in an output."""
    features: torch.Tensor = getattr(output, "pooler_output", output)
    return features


def encode(folder: Path, **settings: Any) -> tuple[Encoded, torch.Tensor]:
    """Return what robusttune makes of the texts, and which tokens are real."""
    encoder = TransformersTextEncoder(name=str(folder), **{"layers": 2, "max_length": 12} | settings)
    tokens = encoder.tokenizer()(TEXTS).tokens
    with torch.no_grad():
        encoded = encoder.load()(tokens)
    assert all(torch.equal(mask, tokens.attention_mask) for mask in encoded.mask)
    return encoded, tokens.attention_mask


@pytest.mark.parametrize(("model_type", "changes"), TEXT_MODELS, ids=[name for name, _ in TEXT_MODELS])
def test_text_states_are_the_models_own(model_type: str, changes: dict[str, Any], tmp_path: Path) -> None:
    write_model(tmp_path, model_type, **changes)
    word_tokenizer().save_pretrained(tmp_path)
    encoded, real = encode(tmp_path)
    model: Any = AutoModel.from_pretrained(tmp_path).eval()
    model = getattr(model, "text_model", model)
    inputs = AutoTokenizer.from_pretrained(tmp_path)(TEXTS, padding=True, return_tensors="pt")
    with torch.no_grad():
        output = model(
            input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"], output_hidden_states=True
        )
    for states, expected in zip(encoded.tokens, output.hidden_states[-2:], strict=True):
        torch.testing.assert_close(states[real], expected[real], rtol=0, atol=1e-5)
    means = [states[mask].mean(0) for states, mask in zip(output.last_hidden_state, real, strict=True)]
    torch.testing.assert_close(encoded.pooled, torch.stack(means), rtol=0, atol=1e-5)


def test_xlnet_states_are_those_of_its_own_left_padding_and_its_class_token_is_the_last(tmp_path: Path) -> None:
    write_model(tmp_path, "xlnet", **XLNET, intermediate_size=None)
    word_tokenizer(padding_side="left").save_pretrained(tmp_path)
    encoded, real = encode(tmp_path, pooling="class")
    inputs = AutoTokenizer.from_pretrained(tmp_path)(TEXTS, padding=True, return_tensors="pt")
    assert inputs["attention_mask"][0, 0] == 0
    with torch.no_grad():
        output = AutoModel.from_pretrained(tmp_path).eval()(
            input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"], output_hidden_states=True
        )
    theirs = inputs["attention_mask"].bool()
    for states, expected in zip(encoded.tokens, output.hidden_states[-2:], strict=True):
        torch.testing.assert_close(states[real], expected[theirs], rtol=0, atol=1e-5)
    torch.testing.assert_close(encoded.pooled, output.last_hidden_state[:, -1], rtol=0, atol=1e-5)


@pytest.mark.parametrize("padding_side", ["right", "left"])
@pytest.mark.parametrize("model_type", ["siglip", "siglip2"])
def test_siglip_texts_are_padded_to_the_full_length_and_padding_is_attended_to(
    model_type: str, padding_side: str, tmp_path: Path
) -> None:
    """Also where a text keeps fewer tokens than the model has positions."""
    write_model(tmp_path, model_type)
    word_tokenizer(padding_side=padding_side).save_pretrained(tmp_path)
    encoded, real = encode(tmp_path, pooling="end")
    inputs = word_tokenizer(padding_side=padding_side)(
        TEXTS, padding="max_length", max_length=16, truncation=True, return_tensors="pt"
    )
    model: Any = AutoModel.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        output = model.text_model(input_ids=inputs["input_ids"], output_hidden_states=True)
        features = own(model.get_text_features(input_ids=inputs["input_ids"]))
        mine = model.text_model.head(encoded.pooled)
    theirs = inputs["attention_mask"].bool()
    for states, expected in zip(encoded.tokens, output.hidden_states[-2:], strict=True):
        torch.testing.assert_close(states[real], expected[theirs], rtol=0, atol=1e-5)
    torch.testing.assert_close(encoded.pooled, output.last_hidden_state[:, -1], rtol=0, atol=1e-5)
    torch.testing.assert_close(mine, features, rtol=0, atol=1e-5)
    means = encode(tmp_path, pooling="mean")[0].pooled
    expected = [states[mask].mean(0) for states, mask in zip(output.last_hidden_state, theirs, strict=True)]
    torch.testing.assert_close(means, torch.stack(expected), rtol=0, atol=1e-5)


def test_clip_features_of_texts_are_its_own_end_token_projected(tmp_path: Path) -> None:
    write_model(tmp_path, "clip")
    word_tokenizer().save_pretrained(tmp_path)
    encoded, _ = encode(tmp_path, pooling="end")
    inputs = AutoTokenizer.from_pretrained(tmp_path)(TEXTS, padding=True, return_tensors="pt")
    model: Any = AutoModel.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        features = own(model.get_text_features(inputs["input_ids"], inputs["attention_mask"]))
        torch.testing.assert_close(model.text_projection(encoded.pooled), features, rtol=0, atol=1e-5)


@pytest.mark.parametrize("model_type", ["mobilebert", "convbert", "fnet"])
def test_states_that_depend_on_padding_do_not_depend_on_the_other_texts(model_type: str, tmp_path: Path) -> None:
    """Such models get every text at one length."""
    write_model(tmp_path, model_type, **({"embedding_size": 32} if model_type != "fnet" else {}))
    word_tokenizer().save_pretrained(tmp_path)
    settings = TransformersTextEncoder(name=str(tmp_path), layers=2, max_length=12)
    encoder, tokenizer = settings.load(), settings.tokenizer()
    together, alone = encoder(tokenizer(TEXTS).tokens), encoder(tokenizer(TEXTS[:1]).tokens)
    torch.testing.assert_close(together.pooled[:1], alone.pooled, rtol=0, atol=1e-5)
    length = alone.tokens[0].shape[1]
    torch.testing.assert_close(together.tokens[0][:1, :length], alone.tokens[0], rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("model_type", "changes", "settings", "message"),
    [
        (
            "gpt2",
            {},
            {"pooling": "class"},
            "first token .* does not see the others .*: set text_encoder.pooling to end",
        ),
        ("canine", {}, {}, "does not return one state a token"),
        ("t5", {"d_model": 32}, {}, "is an encoder with a decoder: choose an encoder alone"),
        ("t5", {"d_model": 32, "is_encoder_decoder": False}, {}, "is an encoder with a decoder"),
        ("dpr", {}, {}, "does not encode a text by itself"),
    ],
)
def test_text_models_that_cannot_be_right_are_refused(
    model_type: str, changes: dict[str, Any], settings: dict[str, Any], message: str, tmp_path: Path
) -> None:
    write_model(tmp_path, model_type, **changes)
    word_tokenizer().save_pretrained(tmp_path)
    with pytest.raises(RobustTuneError, match=message):
        TransformersTextEncoder(name=str(tmp_path), **{"layers": 2, "max_length": 12} | settings).load()


SQUARE = {"height": 32, "width": 32}
IMAGE_MODELS: list[tuple[str, Any]] = [
    ("clip", CLIPImageProcessor(size={"shortest_edge": 36}, crop_size=SQUARE)),
    ("siglip", SiglipImageProcessor(size=SQUARE)),
    ("vit", ViTImageProcessor(size=SQUARE)),
    ("deit", ViTImageProcessor(size=SQUARE)),
    ("beit", ViTImageProcessor(size=SQUARE)),
    ("dinov2", BitImageProcessor(size={"shortest_edge": 40}, crop_size=SQUARE)),
    ("dinov2_with_registers", BitImageProcessor(size={"shortest_edge": 40}, crop_size=SQUARE)),
    ("siglip_vision_model", SiglipImageProcessor(size=SQUARE)),
    ("clip_vision_model", CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=SQUARE)),
]


@pytest.mark.parametrize(("model_type", "processor"), IMAGE_MODELS, ids=[name for name, _ in IMAGE_MODELS])
def test_image_states_are_the_models_own(model_type: str, processor: Any, tmp_path: Path) -> None:
    write_model(tmp_path, model_type)
    processor.save_pretrained(tmp_path)
    encoder = TransformersImageEncoder(name=str(tmp_path), layers=2, grid=4).load()
    images = torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    encoded = encoder(images)
    whole: Any = AutoModel.from_pretrained(tmp_path).eval()
    model = getattr(whole, "vision_model", whole)
    pixels = torch.stack([(image / 255 - encoder.mean[0]) / encoder.std[0] for image in images])
    with torch.no_grad():
        output = model(pixel_values=pixels, output_hidden_states=True)
        if hasattr(whole, "get_image_features"):
            projection = getattr(whole, "visual_projection", torch.nn.Identity())
            features = own(whole.get_image_features(pixel_values=pixels))
            torch.testing.assert_close(projection(encoded.pooled), features, rtol=0, atol=1e-5)
    for states, expected in zip(encoded.tokens, output.hidden_states[-2:], strict=True):
        torch.testing.assert_close(states, expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(encoded.pooled, output.pooler_output, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "processor",
    [processor for _, processor in IMAGE_MODELS[:4]]
    + [
        ViTImageProcessor(size=SQUARE, do_normalize=False),
        ViTImageProcessor(size=SQUARE, rescale_factor=1 / 127.5, image_mean=[1, 1, 1], image_std=[1, 1, 1]),
        ViTImageProcessor(size=SQUARE, do_rescale=False, image_mean=[120, 110, 100], image_std=[60, 50, 40]),
    ],
)
def test_pixels_are_those_of_the_models_own_processor(processor: Any, tmp_path: Path) -> None:
    write_model(tmp_path, "vit")
    processor.save_pretrained(tmp_path)
    colours = np.random.default_rng(0).integers(0, 256, (5, 5, 3), dtype=np.uint8)
    photo = Image.fromarray(colours).resize((60, 44), Image.Resampling.BILINEAR)
    settings = TransformersImageEncoder(name=str(tmp_path), layers=2, grid=4)
    mine = settings.load().normalise(ImageTransform(settings.preprocessing())(photo, seed=0).unsqueeze(0))
    theirs = AutoImageProcessor.from_pretrained(tmp_path)(photo, return_tensors="pt")["pixel_values"]
    spread = float(theirs.max() - theirs.min())
    assert (mine - theirs).abs().max() <= 0.04 * spread
    assert (mine - theirs).abs().mean() <= 0.01 * spread


@pytest.mark.parametrize(
    ("processor", "message"),
    [
        (
            {"image_processor_type": "Siglip2ImageProcessor", "patch_size": 8, "max_num_patches": 16},
            "no fixed image size",
        ),
        ({"image_processor_type": "ViTImageProcessor", "do_resize": False}, "has no fixed image size: choose another"),
        (
            {"image_processor_type": "ViTImageProcessor", "size": {"height": 32, "width": 64}},
            "does not take square images: choose another model",
        ),
    ],
)
def test_images_that_are_not_of_one_square_size_are_refused(
    processor: dict[str, Any], message: str, tmp_path: Path
) -> None:
    write_model(tmp_path, "vit")
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(processor))
    with pytest.raises(RobustTuneError, match=message):
        TransformersImageEncoder(name=str(tmp_path), layers=2, grid=4).load()


def test_siglip2_with_patches_of_any_number_is_refused_as_an_image_encoder(tmp_path: Path) -> None:
    write_model(tmp_path, "siglip2")
    ViTImageProcessor(size=SQUARE).save_pretrained(tmp_path)
    with pytest.raises(RobustTuneError, match="is no vision tower that reads images alone|has no fixed image size"):
        TransformersImageEncoder(name=str(tmp_path), layers=2, grid=4).load()


def test_tokens_that_follow_the_patches_are_refused(tmp_path: Path) -> None:
    """They would be taken for patches."""
    write_model(tmp_path, "yolos", image_size=[32, 32], num_detection_tokens=5)
    ViTImageProcessor(size=SQUARE).save_pretrained(tmp_path)
    with pytest.raises(RobustTuneError, match="does not return one token a patch: choose another model"):
        TransformersImageEncoder(name=str(tmp_path), layers=2, grid=4, pooling="class").load()


@pytest.mark.parametrize("name", ["test_vit", "test_resnet", "test_efficientnet"])
def test_timm_features_are_what_its_classifier_would_read(name: str) -> None:
    encoder = TimmEncoder(name=name, weights="random", layers=2, grid=2, size=64).load()
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    sizes = {"img_size": 64} if name == "test_vit" else {}
    model = timm.create_model(name, num_classes=0, **sizes).eval()
    model.load_state_dict(encoder.backbone.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(encoder(images).pooled, model(encoder.normalise(images)), rtol=0, atol=1e-5)


@pytest.mark.parametrize("channels", [1, 4])
def test_other_than_three_channels_are_refused(channels: int) -> None:
    with pytest.raises(RobustTuneError, match=r"model_args.in_chans must be 3"):
        TimmEncoder(name="test_vit", model_args={"in_chans": channels})
