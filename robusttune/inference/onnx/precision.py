"""Conversion of an ONNX graph to float16 or int8, and measurements of a graph on labelled samples."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from robusttune.data.labels import encode_labels
from robusttune.data.rows import Rows
from robusttune.data.sources import Table
from robusttune.errors import RobustTuneError
from robusttune.inference.batches import Batches
from robusttune.inference.onnx.graph import LEAST_TOKENS, GraphInputs
from robusttune.inference.onnx.parity import open_session, run_graph
from robusttune.models.classifier import Classifier
from robusttune.predictions import predicted_classes
from robusttune.types import Batch, Tokens, View

PRECISIONS = ("float32", "float16", "int8")
BATCH_SIZE = 32


class Measured(NamedTuple):
    """Measurements of a graph and of the live model on the same samples.

    Attributes:
        samples: Number of samples.
        accuracy: Fraction of samples whose classes are predicted by the graph, in [0, 1].
        live_accuracy: The same fraction for the live model.
        difference: Greatest difference of a probability.
        seconds: Time of the graph per sample, without reading and preprocessing.
        live_seconds: The same time of the live model.
    """

    samples: int
    accuracy: float
    live_accuracy: float
    difference: float
    seconds: float
    live_seconds: float


def convert(path: Path, precision: str) -> None:
    """Convert a graph in float32 in place.

    Args:
        path: Path of the graph.
        precision: ``float16`` for all weights and operations, with inputs and outputs as they are; ``int8`` for the
            weights of matrix products, whose inputs are quantised at run time.
    """
    import onnx

    if precision == "float16":
        from onnxruntime.transformers.float16 import convert_float_to_float16

        onnx.save(convert_float_to_float16(onnx.load(path), keep_io_types=True), path)
        return
    from onnxruntime.quantization import QuantType, quantize_dynamic

    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)  # It advises a preprocessing that changes no result.
    try:
        quantize_dynamic(path, path, weight_type=QuantType.QInt8, op_types_to_quantize=["MatMul", "Gemm"])
    finally:
        logging.disable(disabled)


@torch.inference_mode()
def measure(classifier: Classifier, graph: Path, table: str) -> Measured:
    """Compare a graph with the live model on labelled samples.

    Args:
        classifier: Live model, on the CPU.
        graph: Path of the graph.
        table: Path of a table with the columns ``image``, ``text`` and ``label``, see `robusttune.data.sources.Table`.

    Raises:
        RobustTuneError: The table has no samples, no labels, or labels that the model does not know.
    """
    session, batches = open_session(graph), _batches(classifier, table)
    seconds, live_seconds, difference, correct, live_correct, number = 0.0, 0.0, 0.0, 0, 0, 0
    multilabel, side = classifier.facts.multilabel, Batches(classifier).preprocessing.resizing.size
    for batch, labels in batches:
        inputs = graph_inputs(batch, side)
        begun = perf_counter()
        logits, found = run_graph(session, inputs)
        between = perf_counter()
        live = classifier.probabilities(batch)[0]
        live_seconds, seconds = live_seconds + perf_counter() - between, seconds + between - begun
        difference = max(difference, float(np.abs(found - live.numpy()).max()))
        truth = torch.zeros_like(live, dtype=torch.bool)
        for row, indices in enumerate(labels):
            truth[row, indices] = True
        live_logits = live.logit() if multilabel else live.log()
        patterns = View().patterns(torch.stack([batch.image_present, batch.text_present], 1))
        cuts = 0.0 if classifier.cuts is None else classifier.cuts[patterns]
        correct += int((predicted_classes(torch.from_numpy(logits), multilabel, cuts) == truth).all(1).sum())
        live_correct += int((predicted_classes(live_logits, multilabel, cuts) == truth).all(1).sum())
        number += len(batch)
    return Measured(
        number, correct / number, live_correct / number, difference, seconds / number, live_seconds / number
    )


def graph_inputs(batch: Batch, side: int) -> GraphInputs:
    """Return the inputs of the graph for a batch, with zeros in rows without a modality.

    Args:
        batch: Batch of ``B`` samples with the inputs that are present, not their features.
        side: Height and width of an image, in pixels.

    Raises:
        RobustTuneError: A sample has several images.
    """
    rows, pixels, tokens = len(batch), batch.images["clean"], batch.texts["clean"]
    images = torch.zeros(rows, 3, side, side, dtype=torch.uint8)
    if len(batch.images):
        if not isinstance(pixels, Tensor):
            raise RobustTuneError("a sample has several images, and a graph takes one: give a table with one each")
        images[batch.image_present] = pixels
    own = tokens.input_ids.shape[1] if isinstance(tokens, Tokens) and len(tokens) else 0
    length = max(LEAST_TOKENS, own)
    ids, mask = torch.zeros(rows, length, dtype=torch.int64), torch.zeros(rows, length, dtype=torch.bool)
    if isinstance(tokens, Tokens) and own:
        ids[batch.text_present, :own], mask[batch.text_present, :own] = tokens.input_ids, tokens.attention_mask
    return GraphInputs(images, ids, mask, batch.image_present, batch.text_present)


def _batches(classifier: Classifier, path: str) -> Iterator[tuple[Batch, list[list[int]]]]:
    """Yield batches of the samples in a table, with their class indices."""
    source: Any = Table(test=path, multilabel=classifier.facts.multilabel)
    table = source.read("test")
    if len(table) == 0:
        raise RobustTuneError(f"{path} has no samples: give a table of labelled ones")
    classes = encode_labels(Rows(table), classifier.class_names, classifier.facts.multilabel, "test")
    labels = classes.to_lists()
    prepared = Batches(classifier).of_table(table, source.images, BATCH_SIZE, classifier.device, True)
    for number, (batch, _) in enumerate(prepared):
        yield batch, labels[number * BATCH_SIZE : number * BATCH_SIZE + len(batch)]
