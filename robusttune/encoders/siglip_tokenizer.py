"""SigLIP's tokenizers: a fast form of the first, which transformers lacks, and lower case for the second."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import tokenizers
from tokenizers import Regex, normalizers
from tokenizers.models import Unigram
from tokenizers.pre_tokenizers import Metaspace
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from robusttune.errors import RobustTuneError

KINDS = ("siglip", "siglip2")  # model types of transformers
SLOW = "SiglipTokenizer"  # the class of the first SigLIP, which has no fast form in transformers
VOCABULARY = "spiece.model"  # the file that it reads
PUNCTUATION = Regex(r"[!-/:-@\[-`{-~]")  # that of ASCII
UNDERLINE = "\u2581"  # SentencePiece's sign for a space


def lower_cased(backend: Any, config: Any) -> Any:
    """Return the tokenizer of a model, which reads texts in lower case if it is that of SigLIP 2.

    SigLIP 2 was trained on texts in lower case. Its checkpoints of a fixed resolution name Gemma's tokenizer, which
    keeps capitals; transformers has a class of its own, ``Siglip2Tokenizer``, which its other checkpoints use.

    Args:
        backend: Fast tokenizer of transformers, which is changed.
        config: Configuration of the model.
    """
    if config.model_type in KINDS and type(backend).__name__.removesuffix("Fast") == "GemmaTokenizer":
        rust = backend.backend_tokenizer
        rust.normalizer = normalizers.Sequence([normalizers.Lowercase(), rust.normalizer])
    return backend


def fast_form(slow: Any) -> PreTrainedTokenizerFast:
    """Return a fast tokenizer that makes the same tokens as a ``SiglipTokenizer``.

    It puts texts in lower case, removes ASCII punctuation, merges spaces, and ends a text with ``</s>``.

    Args:
        slow: ``SiglipTokenizer`` of transformers.

    Raises:
        RobustTuneError: Its SentencePiece model is of another type than unigram.
    """
    proto = _proto(slow.sp_model)
    if proto.trainer_spec.model_type != proto.trainer_spec.UNIGRAM:
        raise RobustTuneError(f"the tokenizer of {slow.name_or_path} is no unigram model: choose another model")
    pieces = [(piece.piece, piece.score) for piece in proto.pieces]
    rust = tokenizers.Tokenizer(Unigram(pieces, unk_id=proto.trainer_spec.unk_id, byte_fallback=False))
    rust.normalizer = normalizers.Sequence(_normalizers(slow.do_lower_case, proto.normalizer_spec.precompiled_charsmap))
    rust.pre_tokenizer = Metaspace(replacement=UNDERLINE, prepend_scheme="always")
    end = slow.eos_token
    rust.post_processor = TemplateProcessing(f"$A {end}", special_tokens=[(end, slow.eos_token_id)])
    return PreTrainedTokenizerFast(
        tokenizer_object=rust,
        name_or_path=slow.name_or_path,
        model_max_length=slow.model_max_length,
        padding_side=slow.padding_side,
        eos_token=end,
        pad_token=slow.pad_token,
        unk_token=slow.unk_token,
    )


def _normalizers(lower_case: bool, charsmap: bytes) -> list[Any]:
    """Return the steps of ``SiglipTokenizer.canonicalize_text``, followed by those of the SentencePiece model."""
    spaces = normalizers.Replace(Regex(r"\s+"), " ")
    return [
        normalizers.Replace(UNDERLINE, " "),
        *([normalizers.Lowercase()] if lower_case else []),
        normalizers.Replace(PUNCTUATION, ""),
        *([normalizers.Precompiled(charsmap)] if charsmap else []),
        spaces,
        normalizers.Strip(),
    ]


def _proto(model: Any) -> Any:
    """Return a SentencePiece model as a message of protobuf."""
    messages: Any = import_module("sentencepiece.sentencepiece_model_pb2")  # of an optional package
    proto = messages.ModelProto()
    proto.ParseFromString(model.serialized_model_proto())
    return proto
