"""Long texts: the same tokens as without any bound on what is read, whatever the kind of tokenizer."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import cache
from time import perf_counter
from typing import Any

import pytest
import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, processors, trainers

from robusttune.encoders.tokenization import PIECE, Tokenizer

CORPUS = [
    "apple pie with cinnamon, a crust and 12345 calories",
    "the best miso soup of Kyoto: seaweed & tofu (very hot!)",
    "苹果派 食谱 很好吃 的 蛋糕",
    "crème brûlée à la façon de grand-mère — délicieuse",
    "https://example.org/recipes?id=4711&lang=en aaaaaaaaaa bbbb 0000000",
]
LENGTH = 12


def trained(backend: tokenizers.Tokenizer, trainer: Any) -> tokenizers.Tokenizer:
    backend.train_from_iterator(CORPUS * 4, trainer)
    ids = [(token, backend.token_to_id(token)) for token in ("<s>", "</s>")]
    backend.post_processor = processors.TemplateProcessing("<s> $A </s>", special_tokens=ids)
    backend.add_special_tokens([AddedToken("<mask>", lstrip=True), AddedToken("[a long special token]")])
    return backend


SPECIAL = ["<unk>", "<s>", "</s>"]


def bert() -> tokenizers.Tokenizer:
    """Word pieces, each Chinese character alone, words of more than 100 characters unknown."""
    backend = tokenizers.Tokenizer(models.WordPiece(unk_token="<unk>", max_input_chars_per_word=100))
    backend.normalizer = normalizers.BertNormalizer()
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return trained(backend, trainers.WordPieceTrainer(vocab_size=300, special_tokens=SPECIAL, show_progress=False))


def roberta() -> tokenizers.Tokenizer:
    """Byte pairs of words with the space before them."""
    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    return trained(backend, trainer)


def clip() -> tokenizers.Tokenizer:
    """Byte pairs with an end of words, white space as one space, single digits."""
    backend = tokenizers.Tokenizer(models.BPE(unk_token="<unk>", end_of_word_suffix="</w>"))
    backend.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    pattern = Regex(r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+")
    backend.pre_tokenizer = pre_tokenizers.Split(pattern, "removed", invert=True)
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=SPECIAL, end_of_word_suffix="</w>", show_progress=False
    )
    return trained(backend, trainer)


def t5() -> tokenizers.Tokenizer:
    """Unigrams of words with the space before them."""
    backend = tokenizers.Tokenizer(models.Unigram())
    backend.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")])
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    return trained(backend, unigrams())


def gemma() -> tokenizers.Tokenizer:
    """Byte pairs of a whole text, which is not divided into words before."""
    backend = tokenizers.Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=False, fuse_unk=True))
    backend.normalizer = normalizers.Replace(" ", "▁")
    backend.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
    backend = trained(backend, trainers.BpeTrainer(vocab_size=300, special_tokens=SPECIAL, show_progress=False))
    backend.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    return backend


def llama() -> tokenizers.Tokenizer:
    """Unigrams of a whole text, which is not divided into words."""
    backend = t5()
    backend.pre_tokenizer = pre_tokenizers.Metaspace(split=False)
    return backend


def long_words() -> tokenizers.Tokenizer:
    """Word pieces of words of any length, which are unknown for a single character."""
    backend = bert()
    model: Any = backend.model
    model.max_input_chars_per_word = 1_600
    backend.model = model
    return backend


def pairs() -> tokenizers.Tokenizer:
    """Unigrams that divide a run of letters by twos, from its end: one that is left over comes first."""
    scores = {"<unk>": 0.0, "<s>": 0.0, "</s>": 0.0, "▁": -1.0, "aa": -1.0} | dict.fromkeys("abcdefghijklmnop", -10.0)
    backend = tokenizers.Tokenizer(models.Unigram([*scores.items()], unk_id=0))
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.post_processor = processors.TemplateProcessing("<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)])
    return backend


def unigrams() -> trainers.UnigramTrainer:
    return trainers.UnigramTrainer(vocab_size=200, special_tokens=SPECIAL, unk_token="<unk>", show_progress=False)


KINDS: list[Callable[[], tokenizers.Tokenizer]] = [bert, long_words, roberta, clip, t5, gemma, llama, pairs]


@cache
def serialised(kind: Callable[[], tokenizers.Tokenizer]) -> str:
    return kind().to_str()


def texts() -> list[str]:
    """Return long texts of all kinds, some without any space, some of which begins with much that is no token."""
    rng = random.Random(0)
    words = [word for line in CORPUS for word in line.split()] + ["<mask>", "[a long special token]", "e\u0301", "Σας"]
    found = ["", " ", "a", "apple pie"]
    for separators in (" ", " \n\t ", "", "▁ "):
        for size in (300, 1500):
            found.append("".join(word + rng.choice(separators or [""]) for word in rng.choices(words, k=size)))
    for unit in ("a", " ", "9", "苹", "e\u0301", "!", "\n", "Qm9/", "<mask>", "🍜", "\u200d", "\0", "ab "):
        found += [unit * 90, unit * 1201, unit * 1500 + "apple pie and soup " * 100]
    # Spaces that are no tokens to most: what is kept comes just where the text may be cut, within a special token.
    found += [" " * size + "apple [a long special token] pie " + "a " * 400 for size in range(990, 1030, 3)]
    found.append(("x" * 130 + " ") * 200)
    found += ["a" * 1501 + "☃", "a" * 1500, "a" * 1501]
    found.append("苹果派" * 1000 + " " + "apple " * 100)
    return found


@pytest.mark.parametrize(
    "kind",
    [pytest.param(kind, marks=[pytest.mark.slow] if kind in (long_words, gemma, llama) else []) for kind in KINDS],
    ids=lambda kind: kind.__name__,
)
def test_tokens_of_long_texts_are_those_of_the_whole_text(kind: Callable[[], tokenizers.Tokenizer]) -> None:
    whole, given = tokenizers.Tokenizer.from_str(serialised(kind)), texts()
    full = [text.ids for text in whole.encode_batch_fast(given)]
    for max_length in (3, 4, 40):
        kept = [ids if len(ids) <= max_length else [*ids[: max_length - 1], ids[-1]] for ids in full]
        tokenizer = Tokenizer(whole, max_length, pad_id=0)
        tokens, cut = tokenizer(given)
        real = [ids[mask].tolist() for ids, mask in zip(tokens.input_ids, tokens.attention_mask, strict=True)]
        for text, ids, expected in zip(given, real, kept, strict=True):
            assert ids == expected, text[:50]
        assert cut == [len(ids) > max_length for ids in full]
    assert tokenizer.lengths(given) == list(map(len, kept))
    assert tokenizer.full_lengths(given) == list(map(len, full))


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_texts_that_are_counted_in_pieces_have_the_length_of_the_whole(
    kind: Callable[[], tokenizers.Tokenizer],
) -> None:
    text = " ".join(random.Random(1).choices([word for line in CORPUS for word in line.split()], k=PIECE // 2))
    assert len(text) > 2 * PIECE
    whole = tokenizers.Tokenizer.from_str(serialised(kind))
    assert Tokenizer(whole, LENGTH, pad_id=0).full_lengths([text, "pie"])[0] == len(
        tokenizers.Tokenizer.from_str(serialised(kind)).encode(text)
    )


class Counting:
    """A tokenizer that counts the characters it is given."""

    def __init__(self, backend: tokenizers.Tokenizer) -> None:
        self.backend, self.model, self.characters = backend, backend.model, 0

    def encode_batch(self, batch: list[str], **settings: Any) -> list[tokenizers.Encoding]:
        self.characters += sum(map(len, batch))
        return self.backend.encode_batch(batch, **settings)

    encode_batch_fast = encode_batch

    def encode(self, text: str, **settings: Any) -> tokenizers.Encoding:
        return self.encode_batch([text], **settings)[0]


@pytest.mark.parametrize("unit", ["apple pie and soup, ", "苹果派食谱", "example.org/4711?"])
@pytest.mark.parametrize("kind", [bert, roberta, clip, t5, gemma, llama], ids=lambda kind: kind.__name__)
def test_a_text_of_three_megabytes_is_read_as_far_as_it_is_kept(
    kind: Callable[[], tokenizers.Tokenizer], unit: str
) -> None:
    tokenizer = Tokenizer(tokenizers.Tokenizer.from_str(serialised(kind)), LENGTH, pad_id=0)
    counting: Any = Counting(tokenizer.backend)
    tokenizer.backend = counting
    text = unit * (3_000_000 // len(unit))
    begun = perf_counter()
    assert tokenizer([text, "pie"]).cut == [True, False]
    print(f"{kind.__name__}, 3 MB of {unit!r}: {counting.characters} characters, {perf_counter() - begun:.4f} s")
    assert counting.characters < 200_000
