"""The ONNX graph of a classifier: from pixels and token ids to calibrated logits and probabilities."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from robusttune.errors import RobustTuneError
from robusttune.inference.batches import Batches
from robusttune.models.classifier import Classifier
from robusttune.models.mmrl_classifier import MMRLClassifier
from robusttune.predictions import probabilities
from robusttune.types import Batch, Tokens, Variants, View

LEAST_TOKENS = 4  # Shorter texts are padded: an exported graph is specialised to dimensions of 0 and 1.
OUTPUTS = ("logits", "probabilities")
VIEWS = (View(),)
PROTOBUF_LIMIT = 1 << 30  # bytes of weights above which they are stored in a file of their own


class GraphInputs(NamedTuple):
    """The inputs of the graph, which has ``B`` rows for each modality, whether it is present or not.

    Attributes:
        image: Resized and cropped pixels, shape (B, 3, H, W), uint8; zeros in rows without an image.
        input_ids: Token ids, shape (B, n), int64; zeros in rows without a text.
        attention_mask: Mask of real tokens, shape (B, n), bool.
        image_present: Rows with an image, shape (B,), bool.
        text_present: Rows with a text, shape (B,), bool.
    """

    image: Tensor
    input_ids: Tensor
    attention_mask: Tensor
    image_present: Tensor
    text_present: Tensor

    def batch(self) -> Batch:
        """Return the batch that holds only the inputs that are present, as a live model takes it."""
        tokens = Tokens(self.input_ids[self.text_present], self.attention_mask[self.text_present])
        return _batch(self.image[self.image_present], tokens, self.image_present, self.text_present)


class Graph(nn.Module):
    """A classifier as a function of the tensors in `GraphInputs`.

    Args:
        classifier: Classifier in eval mode.
    """

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(
        self, image: Tensor, input_ids: Tensor, attention_mask: Tensor, image_present: Tensor, text_present: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Compute the calibrated logits and the probabilities, shape (B, C), float32 each. See `GraphInputs`."""
        # An absent text keeps its padding visible, because attention without any visible token is NaN.
        tokens = Tokens(input_ids, attention_mask | ~text_present.unsqueeze(1))
        batch, classifier = _batch(image, tokens, image_present, text_present), self.classifier
        logits = classifier.calibrated(classifier.adjusted(classifier.logits(batch, VIEWS)), batch, VIEWS)[0].float()
        return logits, probabilities(logits, classifier.facts.multilabel)


def example_inputs(classifier: Classifier, rows: int, tokens: int, seed: int = 0) -> GraphInputs:
    """Return random inputs whose rows have all patterns of present modalities in turn: both, image, text, neither.

    Args:
        classifier: Classifier that determines the sizes.
        rows: Number of rows ``B``.
        tokens: Number of tokens ``n`` of the longest text.
        seed: Seed of the random numbers.
    """
    random, preprocessing = torch.Generator().manual_seed(seed), Batches(classifier).preprocessing
    side, tokenizer = preprocessing.resizing.size, preprocessing.tokenizer
    special = [*tokenizer.before, *tokenizer.after]
    lengths = torch.randint(len(special) + 1, tokens + 1, (rows,), generator=random)
    lengths[0] = tokens
    ordinary = torch.tensor(sorted({*tokenizer.backend.get_vocab().values()} - {*special, tokenizer.pad_id}))
    ids = ordinary[torch.randint(len(ordinary), (rows, tokens), generator=random)]
    for row, length in enumerate(lengths.tolist()):
        ids[row, : len(tokenizer.before)] = torch.tensor(tokenizer.before)
        ids[row, length - len(tokenizer.after) : length] = torch.tensor(tokenizer.after)
        ids[row, length:] = tokenizer.pad_id
    pattern = torch.arange(rows) % 4
    image_present, text_present = pattern < 2, pattern % 2 == 0
    pixels = torch.randint(256, (rows, 3, side, side), generator=random, dtype=torch.uint8)
    mask = torch.arange(tokens) < lengths.unsqueeze(1)
    return GraphInputs(
        pixels * image_present.view(-1, 1, 1, 1),
        ids * text_present.unsqueeze(1),
        mask & text_present.unsqueeze(1),
        image_present,
        text_present,
    )


def write_graph(classifier: Classifier, path: Path) -> None:
    """Write the ONNX graph of a classifier, whose batch size and text length are dynamic.

    Args:
        classifier: Classifier on the CPU, in float32.
        path: Path of the file. Weights above `PROTOBUF_LIMIT` bytes are stored beside it, with ``.data`` at the end.

    Raises:
        RobustTuneError: An operation of an encoder has no form in ONNX.
    """
    graph = Graph(classifier.eval())
    most = max(LEAST_TOKENS, Batches(classifier).preprocessing.tokenizer.max_length)
    inputs = example_inputs(classifier, rows=4, tokens=min(7, most))
    batch, tokens = torch.export.Dim("batch", min=1), torch.export.Dim("tokens", min=LEAST_TOKENS, max=most)
    shapes = [{0: batch}, {0: batch, 1: tokens}, {0: batch, 1: tokens}, {0: batch}, {0: batch}]
    size = sum(tensor.numel() * tensor.element_size() for tensor in graph.state_dict().values())
    with torch.no_grad(), _quiet(), _plain_attention():
        if isinstance(classifier, MMRLClassifier):
            classifier.adapted()  # The graph contains the features of the classes.
        graph(*inputs)
        try:
            program = torch.export.export(graph, tuple(inputs), dynamic_shapes=shapes, strict=True)
            exported: Any = torch.onnx.export(program, dynamo=True, verbose=False, output_names=OUTPUTS)
        except Exception as error:
            reason = " ".join(str(error).split())
            raise RobustTuneError(
                f"the model cannot be exported to ONNX ({type(error).__name__}: {reason:.200}): choose another encoder"
            ) from error
        exported.save(path, external_data=size > PROTOBUF_LIMIT)


def _batch(images: Tensor, tokens: Tokens, image_present: Tensor, text_present: Tensor) -> Batch:
    """Return a batch without labels and ids."""
    counted = torch.ones_like(image_present)
    clean = (Variants(["clean"], images), Variants(["clean"], tokens))
    return Batch(*clean, image_present, text_present, None, counted, [], "predict", [], [])


@contextmanager
def _plain_attention() -> Iterator[None]:
    """Switch off torch's fused transformer layer, which ONNX does not have."""
    enabled = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(enabled)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the warnings and progress messages of torch's exporter, which name nothing that a user can change."""
    disabled = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stdout(StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
