"""SigLIP's tokenizers: fast ones that make the tokens of transformers' slow one, and lower case for SigLIP 2."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from encoders.test_tokenizer_folders import piece_model
from fakes import write_model
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

from robusttune.encoders import CLIPTextEncoder, TransformersTextEncoder

PUBLISHED = {"pad_id": -1, "eos_id": 1, "unk_id": 2, "bos_id": -1, "user_defined_symbols": ["<extra>"]}
TEXTS = [
    "Hot  apple-soup,\n(bowl)!",
    "",
    "...",
    " cold PIE ",
    "\u2581 plate \u2581",
    "caf\u00e9 \u4f60\u597d noodle's 5\u20ac",
    "\uff21pple",
]


@pytest.fixture(scope="module")
def slow_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a SigLIP with the files of the first SigLIP's tokenizer."""
    folder = write_model(tmp_path_factory.mktemp("slow") / "siglip", "siglip", vocab_size=200)
    (folder / "spiece.model").write_bytes(piece_model(**PUBLISHED))
    config = {"tokenizer_class": "SiglipTokenizer", "model_max_length": 64, "processor_class": "SiglipProcessor"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture(scope="module")
def both(slow_folder: Path) -> tuple[Any, Any]:
    """Return the tokenizer of transformers, and that of this package."""
    slow: Any = pytest.importorskip("transformers").SiglipTokenizer.from_pretrained(slow_folder)
    return slow, CLIPTextEncoder(name=str(slow_folder), first_layer=1).tokenizer()


@hypothesis.settings(max_examples=100)
@given(text=st.text(st.sampled_from("abcpieAPIE \t\n\u00a0.,!'-_~{}()\u2581\u00e9\u0130\u4f60\uff0115"), max_size=20))
def test_the_first_siglips_tokens_are_those_of_its_slow_tokenizer(both: tuple[Any, Any], text: str) -> None:
    slow, fast = both
    assert fast([text]).tokens.input_ids[0].tolist() == slow(text, truncation=True, max_length=16)["input_ids"]


@pytest.mark.parametrize("text", [*TEXTS, "apple pie soup " * 30])
def test_texts_of_many_kinds(both: tuple[Any, Any], text: str) -> None:
    slow, fast = both
    assert fast([text]).tokens.input_ids[0].tolist() == slow(text, truncation=True, max_length=16)["input_ids"]


def test_it_can_be_saved_and_is_the_same_for_every_encoder(slow_folder: Path, tmp_path: Path) -> None:
    text = CLIPTextEncoder(name=str(slow_folder), first_layer=1)
    text.save(tmp_path / "saved")
    others = [
        CLIPTextEncoder(name=str(tmp_path / "saved"), first_layer=1),
        TransformersTextEncoder(name=str(slow_folder), layers=1, max_length=16),
    ]
    assert {other.tokenizer().sha256 for other in others} == {text.tokenizer().sha256}
    assert text.tokenizer().max_length == 16
    assert text.tokenizer().pad_id == 1


@pytest.mark.parametrize("model_type", ["siglip", "gemma"])
def test_gemmas_tokenizer_reads_lower_case_in_a_siglip_2_alone(model_type: str, tmp_path: Path) -> None:
    """Its checkpoints of a fixed resolution are of the type of the first SigLIP, and name Gemma's tokenizer."""
    write_model(tmp_path, model_type, vocab_size=400)
    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", *(f"<0x{byte:02X}>" for byte in range(256))]
    gemma = Tokenizer(models.BPE(byte_fallback=True, fuse_unk=True, unk_token="<unk>"))
    gemma.normalizer = normalizers.Replace(" ", "\u2581")
    gemma.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    trainer = trainers.BpeTrainer(vocab_size=380, special_tokens=special, show_progress=False)
    gemma.train_from_iterator(["a photo of apple pie", "Apple Pie", "a photo of a cat"] * 10, trainer)
    gemma.post_processor = processors.TemplateProcessing("$A <eos>", special_tokens=[("<eos>", 1)])
    gemma.save(str(tmp_path / "tokenizer.json"))
    config = {"tokenizer_class": "GemmaTokenizer", "padding_side": "right", "add_bos_token": False}
    config |= {"add_eos_token": True, "eos_token": "<eos>", "pad_token": "<pad>", "unk_token": "<unk>"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    tokenizer = TransformersTextEncoder(name=str(tmp_path), layers=1, max_length=16).tokenizer()
    given, lower = (
        tokenizer([text]).tokens.input_ids[0].tolist() for text in ("A Photo of Apple Pie", "a photo of apple pie")
    )
    assert lower == gemma.encode("a photo of apple pie").ids
    assert lower[-1] == 1
    assert (given == lower) == (model_type == "siglip")
    assert not tokenizer.pads_left
