"""transformers encoders against the models' own outputs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from fakes import tiny_text_encoder
from transformers import (
    AutoModel,
    AutoTokenizer,
    CLIPImageProcessor,
    CLIPModel,
    Dinov2Config,
    Dinov2Model,
    RobertaConfig,
    RobertaModel,
    T5Config,
)

from robusttune.encoders import TransformersImageEncoder, TransformersTextEncoder
from robusttune.encoders.transformers_text import FrozenTransformersText
from robusttune.errors import RobustTuneError
from robusttune.types import Tokens

TEXTS = ["apple pie recipe", "a much longer title of a miso soup", ""]


def test_bert_layers_mask_and_mean(text_folder: Path) -> None:
    settings = tiny_text_encoder(text_folder, layers=[1, 2])
    tokens = settings.tokenizer()(TEXTS).tokens
    encoded = settings.load()(tokens)
    model = AutoModel.from_pretrained(text_folder).eval()
    own = model(tokens.input_ids, tokens.attention_mask.long(), output_hidden_states=True)
    for layer, number in zip(encoded.tokens, (1, 2), strict=True):
        torch.testing.assert_close(layer, own.hidden_states[number])
    expected = [own.last_hidden_state[i, mask].mean(0) for i, mask in enumerate(tokens.attention_mask)]
    torch.testing.assert_close(encoded.pooled, torch.stack(expected))
    assert torch.equal(encoded.mask[0], tokens.attention_mask)
    alone = settings.load()(settings.tokenizer()(TEXTS[:1]).tokens)
    torch.testing.assert_close(alone.pooled[0], encoded.pooled[0], rtol=0, atol=1e-5)


def test_clip_text_pools_the_end_token_after_its_final_norm(clip_folder: Path) -> None:
    settings = TransformersTextEncoder(name=str(clip_folder), layers=2, pooling="end", max_length=16)
    tokens = settings.tokenizer()(["a photo of apple pie", "soup"]).tokens
    encoded = settings.load()(tokens)
    model = CLIPModel.from_pretrained(clip_folder).eval().text_model
    own = model(tokens.input_ids, tokens.attention_mask.long(), output_hidden_states=True)
    torch.testing.assert_close(encoded.pooled, own.pooler_output)
    torch.testing.assert_close(encoded.tokens[1], own.hidden_states[-1])


def test_clip_vision_pools_its_head_and_averages_patches(clip_folder: Path) -> None:
    settings = TransformersImageEncoder(name=str(clip_folder), layers=2, grid=2)
    preprocessing = settings.preprocessing()
    assert (preprocessing.size, preprocessing.crop) == (32, 32 / 36)
    encoder = settings.load()
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    encoded = encoder(images)
    model = CLIPModel.from_pretrained(clip_folder).eval().vision_model
    own = model(encoder.normalise(images), output_hidden_states=True)
    torch.testing.assert_close(encoded.pooled, own.pooler_output)
    last = own.hidden_states[-1]
    torch.testing.assert_close(encoded.tokens[1][:, 0], last[:, 0])
    first_quarter = last[:, 1:].unflatten(1, (4, 4))[:, :2, :2].mean((1, 2))
    torch.testing.assert_close(encoded.tokens[1][:, 1], first_quarter)


def test_roberta_offsets_positions_and_random_weights_repeat(tmp_path: Path, text_folder: Path) -> None:
    config = RobertaConfig(
        vocab_size=60, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, pad_token_id=0
    )
    RobertaModel(config).save_pretrained(tmp_path)
    settings = TransformersTextEncoder(name=str(tmp_path), weights="random", layers=2)
    encoder, again = settings.load(), settings.load()
    assert encoder.sha256 == again.sha256
    assert encoder(Tokens(torch.ones(1, 3).long(), torch.ones(1, 3).bool())).pooled.shape == (1, 32)


def test_truncates_pads_on_the_right_and_keeps_every_text(text_folder: Path) -> None:
    texts = [*TEXTS, "soup " * 20_000, "🍜 مرحبا"]
    tokens, cut = tiny_text_encoder(text_folder, max_length=8).tokenizer()(texts)
    assert cut == [False, True, False, True, False]
    assert tokens.input_ids.shape == (5, 8)
    assert tokens.attention_mask.dtype == torch.bool
    assert tokens.attention_mask[:, 0].all()
    assert tokens.attention_mask.sum(1).tolist()[2] == 2  # start and end alone


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"max_length": 65}, "max_length 65 does not fit .* from 3 to 64"),
        ({"name": "./nowhere"}, "folder ./nowhere does not exist"),
        ({"weights": "/nowhere"}, "/nowhere do not exist"),
    ],
)
def test_tokenizers_that_cannot_be_made_are_named(changes: dict[str, Any], message: str, text_folder: Path) -> None:
    with pytest.raises(RobustTuneError, match=message):
        tiny_text_encoder(text_folder, **changes).tokenizer()


def test_a_vision_tower_of_another_size_is_refused(clip_folder: Path) -> None:
    with pytest.raises(RobustTuneError, match="does not take images of 64 pixels: .* to 32"):
        TransformersImageEncoder(name=str(clip_folder), size=64).load()


def test_models_that_are_not_cached_are_named_with_the_way_to_fetch_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(RobustTuneError, match=r"bert-base-uncased cannot be loaded .* `robusttune prefetch --config"):
        TransformersTextEncoder(name="bert-base-uncased").load()


def test_tokens_are_those_of_transformers(text_folder: Path, clip_folder: Path) -> None:
    for folder in (text_folder, clip_folder):
        ours = TransformersTextEncoder(name=str(folder), max_length=5).tokenizer()(TEXTS).tokens
        own = AutoTokenizer.from_pretrained(folder)(
            TEXTS, max_length=5, truncation=True, padding=True, return_tensors="pt"
        )
        assert torch.equal(ours.input_ids, own["input_ids"])
        assert torch.equal(ours.attention_mask, own["attention_mask"].bool())


def test_an_encoder_with_a_decoder_is_refused(tmp_path: Path) -> None:
    T5Config(d_model=16, num_layers=1).save_pretrained(tmp_path)
    with pytest.raises(RobustTuneError, match="is an encoder with a decoder"):
        TransformersTextEncoder(name=str(tmp_path), weights="random").load()


def test_dinov2_takes_the_size_of_its_preprocessing(tmp_path: Path) -> None:
    small = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "patch_size": 8, "image_size": 64}
    Dinov2Model(Dinov2Config(**small)).save_pretrained(tmp_path)
    CLIPImageProcessor(size={"shortest_edge": 36}, crop_size={"height": 32, "width": 32}).save_pretrained(tmp_path)
    encoder = TransformersImageEncoder(name=str(tmp_path), layers=1, pooling="class").load()
    assert encoder(torch.zeros(1, 3, 32, 32, dtype=torch.uint8)).tokens[0].shape == (1, 1 + 16, 32)


def test_encoders_run_under_autocast(text_folder: Path) -> None:
    encoder: FrozenTransformersText = tiny_text_encoder(text_folder).load()
    tokens = Tokens(torch.ones(2, 3).long(), torch.ones(2, 3).bool())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = encoder(tokens).pooled
    torch.testing.assert_close(half.float(), encoder(tokens).pooled, rtol=0.1, atol=0.1)


def test_layers_beyond_the_depth_are_not_run(
    text_folder: Path, clip_folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    tokens = tiny_text_encoder(text_folder).tokenizer()(TEXTS).tokens
    whole, short = (tiny_text_encoder(text_folder, layers=[1], depth=depth).load() for depth in (2, 1))
    assert torch.equal(whole(tokens).tokens[0], short(tokens).tokens[0])
    first = tiny_text_encoder(text_folder, layers=1, depth=1, pooling="class").load()
    assert torch.equal(first(tokens).pooled, whole(tokens).tokens[0][:, 0])
    assert sum(p.numel() for p in short.parameters()) < sum(p.numel() for p in whole.parameters())
    for clip in (TransformersImageEncoder, TransformersTextEncoder):
        args = {"max_length": 8} if clip is TransformersTextEncoder else {"grid": 2}
        assert len(clip(name=str(clip_folder), layers=1, depth=3, **args).load().backbone.encoder.layers) == 3  # type: ignore[arg-type, union-attr]
    assert "REPORT" not in capfd.readouterr().err
