"""Comparison of an ONNX graph with the live model, under every pattern of present modalities."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from robusttune.errors import RobustTuneError
from robusttune.inference.batches import Batches
from robusttune.inference.onnx.graph import LEAST_TOKENS, GraphInputs, example_inputs
from robusttune.models.classifier import Classifier

TOLERANCE = 1e-4  # greatest difference of a probability in float32
PATTERNS = {"both": (True, True), "image": (True, False), "text": (False, True), "neither": (False, False)}
BATCHES = (1, 2, 7)


def open_session(path: Path) -> Any:
    """Return an ONNX Runtime session for a graph, on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def run_graph(session: Any, inputs: GraphInputs) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the logits and the probabilities of a graph, shape (B, C) each."""
    used = {given.name for given in session.get_inputs()}
    feed = {name: tensor.numpy() for name, tensor in inputs._asdict().items() if name in used}
    logits, found = session.run(["logits", "probabilities"], feed)
    return logits, found


@torch.inference_mode()
def differences(classifier: Classifier, session: Any) -> dict[str, float]:
    """Return the greatest difference between the probabilities of a graph and of the live model, by pattern.

    Each pattern of present modalities is tried in batches of 1, 2 and 7 rows, with texts from the shortest to the
    longest that the model takes. ``mixed`` is a batch whose rows have different patterns.

    Args:
        classifier: Live model, on the CPU.
        session: ONNX Runtime session of its graph.
    """
    longest = max(LEAST_TOKENS, Batches(classifier).preprocessing.tokenizer.max_length)
    found = dict.fromkeys([*PATTERNS, "mixed"], 0.0)
    for rows, tokens in zip(BATCHES, (LEAST_TOKENS, longest, min(9, longest)), strict=True):
        inputs = example_inputs(classifier, 4 * rows, tokens, seed=rows)
        for number, (pattern, present) in enumerate(PATTERNS.items()):
            # Rows of one pattern follow each other at a distance of four, see `example_inputs`.
            part = GraphInputs(*(tensor[number::4] for tensor in inputs))
            assert (bool(part.image_present[0]), bool(part.text_present[0])) == present
            found[pattern] = max(found[pattern], _difference(classifier, session, part))
        mixed = GraphInputs(*(tensor[:rows] for tensor in inputs))
        found["mixed"] = max(found["mixed"], _difference(classifier, session, mixed))
    return found


def refuse_differences(found: dict[str, float]) -> None:
    """Check the differences of probabilities.

    Raises:
        RobustTuneError: One is above `TOLERANCE`, or NaN.
    """
    worst = max(found, key=lambda pattern: np.nan_to_num(found[pattern], nan=np.inf))
    if not found[worst] <= TOLERANCE:
        raise RobustTuneError(
            f"the exported graph differs from the model by {found[worst]:.2g} in a probability (modalities: {worst}), "
            f"and {TOLERANCE:g} is allowed, so nothing was written: export as standalone, or choose another encoder"
        )


def _difference(classifier: Classifier, session: Any, inputs: GraphInputs) -> float:
    live = classifier.probabilities(inputs.batch())[0].numpy()
    return float(np.abs(run_graph(session, inputs)[1] - live).max())
