"""What the rooms hand each other: facts, samples, batches, encoder outputs, views."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

Split = Literal["train", "val", "test", "predict"]


class Facts(NamedTuple):
    """What a model has to know of the data that it is trained on; stored in the checkpoint.

    Attributes:
        class_names: name of each of the ``C`` classes, in label order.
        class_frequencies: share of training samples that carry each class, in [0, 1]; ``C`` numbers.
        multilabel: whether a sample may carry any number of classes (else exactly one).
    """

    class_names: list[str]
    class_frequencies: list[float]
    multilabel: bool


class Draw(NamedTuple):
    """What the sampler asks the data set for.

    Attributes:
        epoch: the epoch that the sample is drawn for.
        row: row in the split's records.
        counted: False for a row that only fills up a batch so that all ranks take the same number of steps.
    """

    epoch: int
    row: int
    counted: bool


class Sample(NamedTuple):
    """One sample, read and preprocessed, before collation.

    Attributes:
        image: variant -> what its side reads of it; empty where the image is absent.
        text: likewise.
        labels: indices of its classes (one in multi-class data), or None where unlabelled.
        sample_id: unique within its split.
        counted: see `Draw`.
        unreadable: why the image file could not be read, or None.
    """

    image: dict[str, Any]
    text: dict[str, Any]
    labels: list[int] | None
    sample_id: str
    counted: bool
    unreadable: str | None


@dataclass
class Tokens:
    """Tokenised texts, padded on the right to the longest of the batch.

    Attributes:
        input_ids: (B, n) int64.
        attention_mask: (B, n) bool, True on tokens, False on padding.
    """

    input_ids: Tensor
    attention_mask: Tensor

    def __len__(self) -> int:
        return len(self.input_ids)

    def map(self, fn: Callable[[Tensor], Tensor]) -> Tokens:
        """The same with ``fn`` applied to every tensor."""
        return Tokens(fn(self.input_ids), fn(self.attention_mask))


@dataclass
class Encoded:
    """What a frozen encoder makes of a batch.

    Attributes:
        pooled: (B, d_p).
        tokens: for each chosen layer l, (B, n_l, d_l).
        mask: for each chosen layer l, (B, n_l) bool, True on real tokens, False on padding.
    """

    pooled: Tensor
    tokens: list[Tensor]
    mask: list[Tensor]

    def __len__(self) -> int:
        return len(self.pooled)

    def map(self, fn: Callable[[Tensor], Tensor]) -> Encoded:
        """The same with ``fn`` applied to every tensor."""
        return Encoded(fn(self.pooled), [fn(tokens) for tokens in self.tokens], [fn(mask) for mask in self.mask])


EncoderInputs = Tensor | Tokens | Encoded  # images, texts, or what the encoder has made of either


@dataclass
class Batch:
    """A collated batch of ``B`` samples. What is absent takes no room, and is not encoded.

    Attributes:
        images: (P, 3, H, W) uint8 of the ``P`` rows that have an image, in order, or what the encoder has made of them,
            in every variant, of which ``clean`` always exists.
        texts: tokens (P, n) of the rows that have a text, likewise.
        image_present: (B,) bool.
        text_present: (B,) bool.
        label: (B,) int64 class indices, or (B, C) float 0/1 in multi-label data; None if any is unlabelled.
        counted: (B,) bool, see `Draw`; rows that do not count take no part in losses and metrics.
        sample_id: B strings, unique within the split.
        split: that the samples are of.
        unreadable: a sentence for each image file that could not be read.
        cut: ids of samples whose text was longer than the encoder takes.
    """

    images: Variants
    texts: Variants
    image_present: Tensor
    text_present: Tensor
    label: Tensor | None
    counted: Tensor
    sample_id: list[str]
    split: Split
    unreadable: list[str]
    cut: list[str]

    def __len__(self) -> int:
        return len(self.sample_id)

    def map(self, fn: Callable[[Tensor], Tensor]) -> Batch:
        """The same with ``fn`` applied to every tensor."""
        return replace(
            self,
            images=self.images.map(fn),
            texts=self.texts.map(fn),
            image_present=fn(self.image_present),
            text_present=fn(self.text_present),
            label=None if self.label is None else fn(self.label),
            counted=fn(self.counted),
        )

    # The two names by which Lightning and torch's loader move a batch of a foreign type.
    def to(self, device: torch.device, non_blocking: bool = False) -> Batch:
        return self.map(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Batch:
        return self.map(Tensor.pin_memory)


class Widths(NamedTuple):
    """Widths of what an encoder returns: of each chosen layer's tokens, and of the pooled embedding."""

    layers: tuple[int, ...]
    pooled: int


def prompt_name(class_name: str) -> str:
    """What a class is called: without what tells it from a namesake, ``crane [n02012849]``, underscores as spaces."""
    return re.sub(r"\s*\[[^\[\]]*\]$", "", class_name).replace("_", " ").strip()


class View(NamedTuple):
    """What is shown of samples: a variant of each side, None for a side that is withheld.

    Attributes:
        image: ``clean``, or a variant that noise makes.
        text: likewise.
    """

    image: str | None = "clean"
    text: str | None = "clean"

    def presence(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Which rows show their image and which their text: two (B,) bool."""
        nothing = torch.zeros_like(batch.image_present)
        return (
            nothing if self.image is None else batch.image_present,
            nothing if self.text is None else batch.text_present,
        )


@dataclass
class Variants:
    """One side of a batch, as it is and as noise leaves it.

    Attributes:
        names: of the ``V`` variants.
        inputs: (V x P) rows, variant by variant: inputs of an encoder, or what it has made of them.
    """

    names: list[str]
    inputs: EncoderInputs

    def __getitem__(self, name: str) -> EncoderInputs:
        """The rows of one."""
        return self.pick([name])

    def __len__(self) -> int:
        """Number of rows of each variant."""
        return len(self.inputs) // len(self.names)

    def pick(self, names: Sequence[str]) -> EncoderInputs:
        """The rows of these, one after the other."""
        if list(names) == self.names:
            return self.inputs
        blocks = [slice(n * len(self), (n + 1) * len(self)) for n in map(self.names.index, names)]
        if len(blocks) == 1:
            return _map(self.inputs, lambda tensor: tensor[blocks[0]])
        return _map(self.inputs, lambda tensor: torch.cat([tensor[block] for block in blocks]))

    def map(self, fn: Callable[[Tensor], Tensor]) -> Variants:
        """The same with ``fn`` applied to every tensor."""
        return Variants(self.names, _map(self.inputs, fn))


def _map(inputs: EncoderInputs, fn: Callable[[Tensor], Tensor]) -> EncoderInputs:
    return fn(inputs) if isinstance(inputs, Tensor) else inputs.map(fn)
