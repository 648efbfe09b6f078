"""Data types that the packages exchange: facts about data, samples, batches, encoder outputs, views."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

Split = Literal["train", "val", "test", "predict"]
STAGE_SPLITS: dict[str, list[Split]] = {  # splits that each stage of the Trainer uses; the first is its own
    "fit": ["train", "val"],
    "validate": ["val"],
    "test": ["test"],
    "predict": ["predict"],
}


class Facts(NamedTuple):
    """Facts about the training data that a model needs; they are stored in the checkpoint.

    Attributes:
        class_names: Names of the ``C`` classes, in label order.
        class_frequencies: Fraction of training samples with each class, ``C`` numbers in [0, 1].
        multilabel: True if a sample may have any number of classes, False if it has exactly one.
        training_samples: Number of training samples, or None if it is unknown.

    Example:
        >>> Facts(["cat", "dog"], [0.75, 0.25], multilabel=False).class_names
        ['cat', 'dog']
    """

    class_names: list[str]
    class_frequencies: list[float]
    multilabel: bool
    training_samples: int | None = None


class Draw(NamedTuple):
    """A sampler's request for one sample of a data set.

    Attributes:
        epoch: Epoch that the sample is drawn for, from 0.
        row: Row in the split's records, from 0.
        counted: False for a padding row, which fills a batch so that all ranks take the same number of steps.
        repeat: Number of this draw among those of the same row in this epoch, from 0. Each has its own random view.
    """

    epoch: int
    row: int
    counted: bool
    repeat: int = 0


class Sample(NamedTuple):
    """One sample, read and preprocessed, before collation.

    Attributes:
        image: Image by variant (``clean`` or the name of a noise), preprocessed or as cached features; empty if the
            sample has no image.
        text: Text by variant, in the same form; empty if the sample has no text.
        labels: Indices of its classes (one in multi-class data), or None if it is unlabelled.
        sample_id: Id, unique within its split.
        counted: False for a padding row, see `Draw`.
        unreadable: Reasons why image files could not be read, one for each file. The sample may have other images.
    """

    image: dict[str, Any]
    text: dict[str, Any]
    labels: list[int] | None
    sample_id: str
    counted: bool
    unreadable: list[str]


@dataclass
class Tokens:
    """Tokenised texts, padded on the right to the longest of the batch.

    Attributes:
        input_ids: Token ids, shape (B, n), int64.
        attention_mask: Mask of shape (B, n), bool: True on tokens, False on padding.

    Example:
        >>> tokens = Tokens(torch.ones(2, 5, dtype=torch.int64), torch.ones(2, 5, dtype=torch.bool))
        >>> len(tokens)
        2
    """

    input_ids: Tensor
    attention_mask: Tensor

    def __len__(self) -> int:
        return len(self.input_ids)

    def map(self, fn: Callable[[Tensor], Tensor]) -> Tokens:
        """Return a copy with ``fn`` applied to every tensor."""
        return Tokens(fn(self.input_ids), fn(self.attention_mask))


@dataclass
class ImageSets:
    """Images of samples that may have several. An encoder returns the mean of their features.

    Attributes:
        pixels: Images, shape (B, K, 3, H, W), uint8, padded to the sample with most images.
        counts: Number of images of each sample, shape (B,), int64, from 1 to ``K``.

    Example:
        >>> len(ImageSets(torch.zeros(2, 3, 3, 8, 8, dtype=torch.uint8), torch.tensor([3, 1])))
        2
    """

    pixels: Tensor
    counts: Tensor

    def __len__(self) -> int:
        return len(self.counts)

    def map(self, fn: Callable[[Tensor], Tensor]) -> ImageSets:
        """Return a copy with ``fn`` applied to every tensor."""
        return ImageSets(fn(self.pixels), fn(self.counts))


@dataclass
class Encoded:
    """Features of a batch from a frozen encoder.

    Attributes:
        pooled: Pooled embeddings, shape (B, d_p).
        tokens: Token features of each chosen layer l, shape (B, n_l, d_l).
        mask: Token mask of each chosen layer l, shape (B, n_l), bool: True on tokens, False on padding.
    """

    pooled: Tensor
    tokens: list[Tensor]
    mask: list[Tensor]

    def __len__(self) -> int:
        return len(self.pooled)

    def map(self, fn: Callable[[Tensor], Tensor]) -> Encoded:
        """Return a copy with ``fn`` applied to every tensor."""
        return Encoded(fn(self.pooled), [fn(tokens) for tokens in self.tokens], [fn(mask) for mask in self.mask])


EncoderInputs = Tensor | ImageSets | Tokens | Encoded  # images, tokenised texts, or features that were encoded before


@dataclass
class Batch:
    """A collated batch of ``B`` samples. Missing images and texts take no memory and are not encoded.

    Attributes:
        images: Images of the ``P`` rows that have one, in row order, shape (P, 3, H, W), uint8, in every variant;
            `ImageSets` if a row has several; or their cached features. The variant ``clean`` always exists.
        texts: Tokens, shape (P, n), of the ``P`` rows that have a text, in every variant; or their cached features.
        image_present: Rows that have an image, shape (B,), bool.
        text_present: Rows that have a text, shape (B,), bool.
        label: Class indices, shape (B,), int64, or 0/1 labels, shape (B, C), float, in multi-label data; None if any
            sample is unlabelled.
        counted: Rows that count, shape (B,), bool. Padding rows (see `Draw`) take no part in losses and metrics.
        sample_id: Ids of the samples, ``B`` strings, unique within the split.
        split: Split of the samples.
        unreadable: Messages, one for each image file that could not be read.
        cut: Ids of samples whose text is longer than the encoder's limit.
        unreadable_rows: Rows of the messages in ``unreadable``, without those of cached features.
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
    unreadable_rows: list[int] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.image_present)

    def map(self, fn: Callable[[Tensor], Tensor]) -> Batch:
        """Return a copy with ``fn`` applied to every tensor."""
        return replace(
            self,
            images=self.images.map(fn),
            texts=self.texts.map(fn),
            image_present=fn(self.image_present),
            text_present=fn(self.text_present),
            label=None if self.label is None else fn(self.label),
            counted=fn(self.counted),
        )

    # Lightning and torch's loader call these two methods to move a batch of a type that they do not know.
    def to(self, device: torch.device) -> Batch:
        """Return a copy with all tensors on a device. A copy to a GPU is not waited for."""
        return self.map(lambda tensor: tensor.to(device, non_blocking=device.type == "cuda"))

    def pin_memory(self) -> Batch:
        """Return a copy with all tensors in pinned memory."""
        return self.map(Tensor.pin_memory)


class Widths(NamedTuple):
    """Feature dimensions of an encoder's output.

    Attributes:
        layers: Dimension of the tokens of each chosen layer.
        pooled: Dimension of the pooled embedding.
    """

    layers: tuple[int, ...]
    pooled: int


def prompt_name(class_name: str) -> str:
    """Return the name of a class as prompts use it.

    A suffix in brackets, which distinguishes classes of the same name, is dropped, and underscores become spaces.

    Example:
        >>> prompt_name("crane [n02012849]"), prompt_name("apple_pie")
        ('crane', 'apple pie')
    """
    return re.sub(r"\s*\[[^\[\]]*\]$", "", class_name).replace("_", " ").strip()


PATTERNS = ("both", "image", "text")  # of present modalities


class View(NamedTuple):
    """A way to present samples to a model: one variant of each modality, or None where the modality is missing.

    Attributes:
        image: Variant of the image: ``clean``, the name of a noise, or None.
        text: Variant of the text: ``clean``, the name of a noise, or None.

    Example:
        >>> View(text=None)  # the image alone
        View(image='clean', text=None)
    """

    image: str | None = "clean"
    text: str | None = "clean"

    def present(self, image_present: Tensor, text_present: Tensor) -> tuple[Tensor, Tensor]:
        """Return which samples have an image and which have a text under this view.

        Args:
            image_present: Flags that a sample has an image, shape (N,), bool.
            text_present: Flags that a sample has a text, shape (N,), bool.

        Returns:
            Two tensors of shape (N,), bool.

        Example:
            >>> View(image=None).present(torch.tensor([True, True]), torch.tensor([True, False]))
            (tensor([False, False]), tensor([ True, False]))
        """
        absent = torch.zeros_like(image_present)
        return absent if self.image is None else image_present, absent if self.text is None else text_present

    def patterns(self, present: Tensor) -> Tensor:
        """Return which modalities each sample shows, shape (N,): an index in `PATTERNS`, or 3 for neither modality.

        Args:
            present: Flags that the sample has an image and that it has a text, shape (N, 2), bool.

        Example:
            >>> View().patterns(torch.tensor([[True, True], [False, True], [False, False]]))
            tensor([0, 2, 3])
        """
        image, text = self.present(*present.T)
        one_modality = torch.where(image, 1, torch.where(text, 2, len(PATTERNS)))
        return torch.where(image & text, 0, one_modality)


def variants_of(views: Sequence[View]) -> tuple[list[str], list[str]]:
    """Return the variants of images and of texts that occur in the views, each once.

    Example:
        >>> variants_of([View(), View(image=None), View(image="blur")])
        (['clean', 'blur'], ['clean'])
    """
    images = dict.fromkeys(view.image for view in views if view.image)
    return list(images), list(dict.fromkeys(view.text for view in views if view.text))


@dataclass
class Variants:
    """One modality of a batch, in one or more variants: clean, and with noise.

    Attributes:
        names: Names of the ``V`` variants.
        inputs: Inputs of an encoder, or their features, with V x P rows: all ``P`` rows of the first variant, then
            those of the second, and so on.

    Example:
        >>> variants = Variants(["clean", "blur"], torch.tensor([0, 1, 10, 11]))
        >>> len(variants), variants["blur"]
        (2, tensor([10, 11]))
    """

    names: list[str]
    inputs: EncoderInputs

    def __getitem__(self, name: str) -> EncoderInputs:
        """Return the rows of one variant."""
        return self.pick([name])

    def __len__(self) -> int:
        """Return the number of rows ``P`` of each variant."""
        return len(self.inputs) // len(self.names)

    def pick(self, names: Sequence[str]) -> EncoderInputs:
        """Return the rows of several variants, concatenated in the order of ``names``.

        Raises:
            ValueError: A name is not among the variants.
        """
        if list(names) == self.names:
            return self.inputs
        blocks = [slice(n * len(self), (n + 1) * len(self)) for n in map(self.names.index, names)]
        if len(blocks) == 1:
            return _map(self.inputs, lambda tensor: tensor[blocks[0]])
        return _map(self.inputs, lambda tensor: torch.cat([tensor[block] for block in blocks]))

    def map(self, fn: Callable[[Tensor], Tensor]) -> Variants:
        """Return a copy with ``fn`` applied to every tensor."""
        return Variants(self.names, _map(self.inputs, fn))


def _map(inputs: EncoderInputs, fn: Callable[[Tensor], Tensor]) -> EncoderInputs:
    return fn(inputs) if isinstance(inputs, Tensor) else inputs.map(fn)
