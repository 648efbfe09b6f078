"""Folders as people have them: with a whole tokenizer, half of one, none, or another model's."""

from __future__ import annotations

import io
import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from fakes import word_tokenizer, write_model
from stand_in_hub import StandInHub
from transformers import AutoTokenizer

from robusttune.encoders import TransformersTextEncoder
from robusttune.encoders.tokenization import Tokenizer
from robusttune.errors import RobustTuneError

Change = Callable[[Path], object]
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "apple", "pie", *"abcdefghij"]
BPE = {word: number for number, word in enumerate(["<|endoftext|>", *"abcdefghilpĠ", "ap", "pi"])}

XLNET = {"d_model": 32, "n_layer": 2, "n_head": 2, "d_inner": 48}


def tokenizer_of(folder: Path, **settings: Any) -> Tokenizer:
    given: dict[str, Any] = {"name": str(folder), "layers": 2, "max_length": 12} | settings
    return TransformersTextEncoder(**given).tokenizer()


def write(name: str, text: str) -> Change:
    return lambda folder: (folder / name).write_text(text)


def edit(name: str, **changes: Any) -> Change:
    """Return a change of some values of a JSON file."""

    def change(folder: Path) -> None:
        content = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps(content | changes))

    return change


def both(*changes: Change) -> Change:
    return lambda folder: [change(folder) for change in changes]


def save_words(folder: Path) -> None:
    word_tokenizer().save_pretrained(folder)


def add_tokens(folder: Path) -> None:
    tokenizer = word_tokenizer()
    tokenizer.add_tokens(["ramen-burger", "cronut"])
    tokenizer.save_pretrained(folder)


def keep_special_tokens(folder: Path) -> None:
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text())
    content["model"]["vocab"] = {word: number for word, number in content["model"]["vocab"].items() if number < 4}
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    "model_type",
    [
        "bert",
        "roberta",
        "distilbert",
        "electra",
        "xlm-roberta",
        "camembert",
        "deberta-v2",
        "albert",
        "gpt2",
        "clip",
        "mpnet",
        "siglip2",
        "xlnet",
    ],
)
def test_a_model_without_a_tokenizer_gets_none_that_knows_no_words(model_type: str, tmp_path: Path) -> None:
    """transformers makes up an empty one for most."""
    changes = {
        "xlnet": {"d_model": 32, "n_layer": 1, "n_head": 2},
        "modernbert": {"cls_token_id": 0, "sep_token_id": 3},
    }
    write_model(tmp_path, model_type, **changes.get(model_type, {}))
    with pytest.raises(RobustTuneError, match=r"has no tokenizer \(it lacks tokenizer.json.*\): save it there \(tok"):
        tokenizer_of(tmp_path)


@pytest.mark.parametrize(
    ("model_type", "change", "message"),
    [
        ("bert", write("tokenizer_config.json", '{"do_lower_case": true}'), "lacks tokenizer.json or vocab.txt"),
        ("bert", write("special_tokens_map.json", '{"pad_token": "[PAD]"}'), "lacks tokenizer.json or vocab.txt"),
        ("roberta", write("vocab.txt", "\n".join(WORDS)), "lacks tokenizer.json or vocab.json and merges.txt"),
        ("roberta", write("vocab.json", json.dumps(BPE)), "lacks tokenizer.json or vocab.json and merges.txt"),
        ("bert", write("vocab.txt", ""), "is empty or damaged, it has 0 tokens besides special ones: save the model's"),
        ("bert", both(save_words, keep_special_tokens), "is empty or damaged, it has 0 tokens besides special ones"),
        (
            "bert",
            add_tokens,
            'has 2 tokens beyond the 26 that the model has embeddings of, the first is "ramen-burger"',
        ),
        ("clip", add_tokens, "has 2 tokens beyond the 26 that the model has embeddings of"),
        ("bert", both(save_words, edit("config.json", vocab_size=20)), "has 6 tokens beyond the 20 that the model has"),
        (
            "deberta-v2",
            write("spm.model", "x"),
            "SentencePiece model .spm.model.*: pip install 'robusttune.sentencepiece.'",
        ),
        ("albert", write("spiece.model", "x"), "pip install 'robusttune.sentencepiece.'"),
        ("xlm-roberta", write("sentencepiece.bpe.model", "x"), "pip install 'robusttune.sentencepiece.'"),
        ("siglip", write("spiece.model", "x"), "SentencePiece model .spiece.model.*: pip install 'robusttune.sentence"),
        (
            "bert",
            both(save_words, edit("tokenizer_config.json", tokenizer_class="CanineTokenizer")),
            "has no fast form",
        ),
        (
            "roberta",
            both(save_words, edit("tokenizer_config.json", tokenizer_class="RobertaTokenizer")),
            "has a tokenizer.json of another model, which is not one of a RobertaTokenizer: save the model's own",
        ),
        ("bert", both(save_words, write("tokenizer.json", "{")), "cannot be loaded .*: check that it is whole"),
    ],
)
def test_tokenizers_that_are_not_whole_or_not_the_models_are_refused(
    model_type: str, change: Change, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hide_sentencepiece(monkeypatch)
    write_model(tmp_path, model_type)
    change(tmp_path)
    with pytest.raises(RobustTuneError, match=message) as error:
        tokenizer_of(tmp_path)
    assert "\n" not in str(error.value)
    assert "tiktoken" not in str(error.value)


def hide_sentencepiece(monkeypatch: pytest.MonkeyPatch) -> None:
    from robusttune.encoders import transformers_tokenizer

    installed = find_spec
    monkeypatch.setattr(
        transformers_tokenizer, "find_spec", lambda name: None if name == "sentencepiece" else installed(name)
    )


@pytest.mark.parametrize(
    ("model_type", "change", "pad_id"),
    [
        ("bert", write("vocab.txt", "\n".join(WORDS)), 0),
        ("distilbert", write("vocab.txt", "\n".join(WORDS)), 0),
        ("gpt2", both(write("vocab.json", json.dumps(BPE)), write("merges.txt", "#version: 0.2\na p\np i\n")), 0),
        ("roberta", save_words, 1),
        ("siglip2", save_words, 1),  # transformers has a class of its own for it, which would misread the file
        ("bert", both(save_words, edit("tokenizer_config.json", model_max_length=int(1e30))), 1),
        ("bert", both(save_words, edit("tokenizer_config.json", model_max_length=1e30)), 1),
        ("bert", both(save_words, edit("tokenizer_config.json", model_max_length=None)), 1),
        ("bert", both(save_words, edit("tokenizer_config.json", model_max_length=-1)), 1),
        ("bert", both(save_words, edit("tokenizer_config.json", pad_token=None)), 0),
    ],
)
def test_tokenizers_that_are_whole_are_used(model_type: str, change: Change, pad_id: int, tmp_path: Path) -> None:
    write_model(tmp_path, model_type)
    change(tmp_path)
    tokenizer = tokenizer_of(tmp_path)
    apple, pie, both_words = tokenizer(["apple", "pie", "apple pie"]).tokens.input_ids.tolist()
    assert len({tuple(apple), tuple(pie), tuple(both_words)}) == 3
    assert tokenizer.pad_id == pad_id


def test_weights_without_a_tokenizer_take_that_of_the_name_and_say_so_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    own, tuned = tmp_path / "own", tmp_path / "tuned"
    save_words(write_model(own, "bert"))
    write_model(tuned, "bert")
    with caplog.at_level(logging.WARNING):
        mine = [tokenizer_of(own, weights=str(tuned)) for _ in range(2)]
    assert mine[0].backend.get_vocab() == word_tokenizer().get_vocab()
    assert [record.getMessage() for record in caplog.records] == [
        f"{tuned} has no tokenizer, and that of {own} is used"
    ]
    assert mine[0].sha256 == mine[1].sha256 == tokenizer_of(own).sha256


@pytest.mark.parametrize("name", ["/nowhere", "nobody/nothing", "{tuned}"])
def test_weights_without_a_tokenizer_are_refused_where_the_name_has_none_either(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    write_model(tmp_path, "bert")
    with pytest.raises(RobustTuneError, match=r"has no tokenizer .*: save it there \(tokenizer.save_pretrained\), or"):
        tokenizer_of(Path(name.format(tuned=tmp_path)), weights=str(tmp_path))


@pytest.mark.exhaustive
def test_published_models_need_a_tokenizer_too(tmp_path: Path) -> None:
    """Also where there is no network, and the cache has all of a model but its tokenizer."""
    script = """
import sys
from robusttune.encoders import TransformersTextEncoder as Encoder
for name in sys.argv[1:]:
    try:
        print(len(Encoder(name=name, layers=2, max_length=12).tokenizer().backend.get_vocab()))
    except Exception as error:
        print(error)
"""

    def said(**environment: str) -> list[str]:
        done = subprocess.run(
            [sys.executable, "-c", script, "a/bare", "a/whole"],
            env={**os.environ, **hub.environment(tmp_path / "home"), **environment},
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
        )
        return done.stdout.splitlines()

    with StandInHub() as hub:
        hub.add("models", "a/bare", write_model(tmp_path / "bare", "bert"))
        save_words(write_model(tmp_path / "whole", "bert"))
        hub.add("models", "a/whole", tmp_path / "whole")
        refused = "a/bare has no tokenizer (it lacks tokenizer.json or vocab.txt): choose a model that has one"
        assert said(HF_HUB_OFFLINE="0") == [refused, str(len(word_tokenizer()))]
    for path in (tmp_path / "home").rglob("snapshots/*/tokenizer*"):
        path.unlink()
    assert all("is not in the cache: run `robusttune prefetch" in line for line in said(HF_HUB_OFFLINE="1"))


def test_a_tokenizer_of_the_name_has_to_fit_the_weights(tmp_path: Path) -> None:
    own, tuned = tmp_path / "own", tmp_path / "tuned"
    save_words(write_model(own, "bert"))
    write_model(tuned, "bert", vocab_size=20)
    with pytest.raises(RobustTuneError, match="has 6 tokens beyond the 20 that the model has embeddings of"):
        tokenizer_of(own, weights=str(tuned))


def test_far_fewer_tokens_than_embeddings_are_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    save_words(write_model(tmp_path, "bert", vocab_size=30522))
    with caplog.at_level(logging.WARNING):
        tokenizer_of(tmp_path)
    assert "has 26 tokens, and the model embeddings of 30,522: check that it is the model's own" in caplog.text


@pytest.mark.parametrize(
    ("model_type", "changes", "positions", "most"),
    [
        ("bert", {}, 34, 34),
        ("roberta", {}, 34, 32),
        ("xlm-roberta", {}, 34, 32),
        ("camembert", {}, 34, 32),
        ("mpnet", {}, 34, 32),
        ("longformer", {"attention_window": [4, 4]}, 34, 32),
        ("roberta", {"pad_token_id": 5}, 34, 28),
        ("clip", {}, 16, 16),
        ("deberta-v2", {"position_biased_input": False, "relative_attention": True}, 34, None),
        ("xlnet", XLNET, None, None),
    ],
)
def test_max_length_is_checked_against_the_positions_that_text_can_use(
    model_type: str, changes: dict[str, Any], positions: int | None, most: int | None, tmp_path: Path
) -> None:
    changes = changes | ({} if positions is None else {"max_position_embeddings": positions})
    save_words(write_model(tmp_path, model_type, **changes))
    settings = TransformersTextEncoder(name=str(tmp_path), layers=2, max_length=600)
    text = "apple pie " * 400
    if most is not None:
        for refused in (settings.tokenizer, settings.load):
            with pytest.raises(RobustTuneError, match=f"max_length 600 .*: give a number from 3 to {most}$"):
                refused()
        settings = TransformersTextEncoder(name=str(tmp_path), layers=2, max_length=most)
    tokens = settings.tokenizer()([text]).tokens
    assert tokens.input_ids.shape == (1, most or 600)
    assert settings.load()(tokens).pooled.isfinite().all()


def test_the_tokenizer_names_a_lower_maximum(tmp_path: Path) -> None:
    write_model(tmp_path, "roberta", max_position_embeddings=34)
    word_tokenizer(max_length=20).save_pretrained(tmp_path)
    with pytest.raises(RobustTuneError, match="give a number from 3 to 20$"):
        tokenizer_of(tmp_path, max_length=21)
    with pytest.raises(RobustTuneError, match="give a number of at least 3$"):
        tokenizer_of(write_xlnet(tmp_path / "xlnet"), max_length=2)


def write_xlnet(folder: Path) -> Path:
    save_words(write_model(folder, "xlnet", **XLNET))
    return folder


def test_a_text_without_any_token_has_a_finite_feature(tmp_path: Path) -> None:
    """GPT-2's tokenizer adds no special tokens, so that an empty text has none at all."""
    write_model(tmp_path, "gpt2")
    both(write("vocab.json", json.dumps(BPE)), write("merges.txt", "#version: 0.2\na p\np i\n"))(tmp_path)
    assert AutoTokenizer.from_pretrained(tmp_path)("")["input_ids"] == []
    settings = TransformersTextEncoder(name=str(tmp_path), layers=2, max_length=12)
    for texts in (["", "apple pie"], [""]):
        tokens = settings.tokenizer()(texts).tokens
        assert settings.load()(tokens).pooled.isfinite().all()
        assert settings.tokenizer().lengths(texts) == tokens.attention_mask.sum(1).tolist()


SPECIAL = {"pad_id": 0, "unk_id": 1, "bos_id": -1, "eos_id": -1, "user_defined_symbols": ["[CLS]", "[SEP]", "[MASK]"]}


def piece_model(**settings: Any) -> bytes:
    """Train a tiny SentencePiece model on made-up sentences."""
    pieces = pytest.importorskip("sentencepiece")
    words, content = ["apple", "pie", "soup", "noodle", "hot", "cold", "sweet", "sour", "bowl", "plate"], io.BytesIO()
    sentences = [" ".join(words[(number * step) % 10] for step in range(1, 9)) for number in range(200)]
    pieces.SentencePieceTrainer.train(
        sentence_iterator=iter(sentences),
        model_writer=content,
        vocab_size=40,
        hard_vocab_limit=False,
        minloglevel=2,
        **settings,
    )
    return content.getvalue()


@pytest.mark.parametrize(
    ("model_type", "file", "settings", "size"),
    [
        ("albert", "spiece.model", SPECIAL, 60),
        ("deberta-v2", "spm.model", SPECIAL, 60),
        ("xlm-roberta", "sentencepiece.bpe.model", {}, 60),
        ("t5", "spiece.model", {"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1}, 200),
    ],
)
def test_a_sentencepiece_model_is_a_tokenizer(
    model_type: str, file: str, settings: dict[str, Any], size: int, tmp_path: Path
) -> None:
    """It splits texts as sentencepiece itself does."""
    model = piece_model(**settings)
    write_model(tmp_path, model_type, vocab_size=size)
    (tmp_path / file).write_bytes(model)
    found = tokenizer_of(tmp_path).backend.encode("hot apple soup, sourbowl").tokens
    own = __import__("sentencepiece").SentencePieceProcessor(model_proto=model)
    special = {"[CLS]", "[SEP]", "<s>", "</s>"}
    expected = own.encode("hot apple soup, sourbowl", out_type=str)
    kept = [token for token in found if token not in special]
    assert [token for token in kept if "unk" not in token] == [token for token in expected if token in kept]
    assert len(kept) == len(expected)


def test_a_damaged_sentencepiece_model_is_refused(tmp_path: Path) -> None:
    model = piece_model(**SPECIAL)
    write_model(tmp_path, "albert", vocab_size=60)
    for content in (b"x", b"", model[: len(model) // 2]):
        (tmp_path / "spiece.model").write_bytes(content)
        with pytest.raises(RobustTuneError, match="cannot be loaded .*: check that it is whole|is empty or damaged"):
            tokenizer_of(tmp_path)
