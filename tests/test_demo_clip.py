"""The CLIP that ships with the package: small, quick to load, and it knows what it was shown."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Any

import pytest
import torch
import yaml
from transformers import AutoTokenizer, CLIPModel

import robusttune.demo_clip
from robusttune.data.sources import Shapes, Visibility, World
from robusttune.data.sources.shapes import FACTORS
from robusttune.data.sources.shapes.caption import CLOSINGS, OPENINGS, SENTENCES, WORDS
from robusttune.demo_clip.pretrain import PROMPT, Settings, pretrain, zero_shot
from robusttune.encoders import TransformersImageEncoder, TransformersTextEncoder
from robusttune.encoders.base import hash_weights

FOLDER = Path(robusttune.demo_clip.__file__).parent
NAME = "robusttune:demo_clip"


@pytest.fixture(scope="module")
def clip() -> Any:
    return CLIPModel.from_pretrained(FOLDER, dtype=torch.float32).eval(), AutoTokenizer.from_pretrained(FOLDER)


def test_is_small_and_half_precision() -> None:
    assert sum(path.stat().st_size for path in FOLDER.rglob("*") if path.is_file()) < 8e6
    assert {p.dtype for p in CLIPModel.from_pretrained(FOLDER, dtype="auto").parameters()} == {torch.float16}


@pytest.mark.parametrize("part", ["base", "new"])
def test_knows_classes_by_their_names(clip: Any, part: Any) -> None:
    """Also combinations of colour and shape that it has never seen."""
    shapes = Shapes(World(part=part, visibility=Visibility(0, 0, 1)))
    model, tokenizer = clip
    assert zero_shot(model, tokenizer, shapes, 300) > 5 / len(shapes.world.class_names)


def test_the_card_says_what_was_measured() -> None:
    card, measured = (FOLDER / "MODEL_CARD.md").read_text(), json.loads((FOLDER / "zero_shot.json").read_text())
    assert {*measured} == {"paper, base", "paper, new", "blackboard, base", "blackboard, new"}
    for values in measured.values():
        assert f"{values['accuracy']:.3f}" in card


def test_no_caption_is_too_long_and_no_word_unknown(clip: Any) -> None:
    _, tokenizer = clip
    longest = max(
        (f"{opening} {sentence} {closing}" for opening in OPENINGS for sentence in SENTENCES for closing in CLOSINGS),
        key=lambda text: len(tokenizer(text).input_ids),
    )
    assert all(len(tokenizer.tokenize(word)) == 1 for word in WORDS)
    for factor in FACTORS:
        longest = longest.replace(f"{{{factor.name}}}", factor.values[0][0])
    assert len(tokenizer(longest).input_ids) <= tokenizer.model_max_length
    odd = "Crème brûlée \U0001f370"
    assert tokenizer.decode(tokenizer(odd).input_ids, skip_special_tokens=True).strip() == odd.lower()
    assert re.search("red circle", tokenizer.decode(tokenizer(PROMPT.format("red circle")).input_ids))


def test_serves_as_both_encoders() -> None:
    image, text = (
        TransformersImageEncoder(name=NAME, grid=4),
        TransformersTextEncoder(name=NAME, pooling="end", max_length=32),
    )
    assert image.preprocessing().size == 64
    start = perf_counter()
    encoders = image.load(), text.load()
    print(f"loaded in {perf_counter() - start:.2f} s")
    assert all(len(encoder.widths.layers) == 4 for encoder in encoders)
    assert text.tokenizer()(["a red circle"])[0].input_ids.shape[1] == 5


def test_pretraining_repeats(tmp_path: Path) -> None:
    given = yaml.safe_load((FOLDER / "pretrain.yaml").read_text())
    given |= {"steps": 2, "batch_size": 4, "warmup": 1, "measured": 20, "learning_rate": 1e-3, "world": World()}
    tower = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    settings = replace(Settings(**given), vision=tower, text=tower)
    for name in ("a", "b"):
        pretrain(settings, tmp_path / name)
    hashes = [hash_weights(CLIPModel.from_pretrained(tmp_path / name)) for name in ("a", "b")]
    assert hashes[0] == hashes[1]
    TransformersImageEncoder(name=str(tmp_path / "a"), layers=1).load()
    TransformersTextEncoder(name=str(tmp_path / "a"), layers=1, max_length=32).load()
