"""The folder of an ONNX export: the graph, its preprocessing and tokenizer, the classes, an example and a report."""

from __future__ import annotations

import inspect
import json
import re
import shutil
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from robusttune.data import images
from robusttune.encoders.preprocessing import resize_and_crop
from robusttune.errors import RobustTuneError
from robusttune.inference.batches import Batches
from robusttune.inference.onnx.graph import LEAST_TOKENS, write_graph
from robusttune.inference.onnx.parity import differences, open_session, refuse_differences
from robusttune.inference.onnx.precision import PRECISIONS, convert
from robusttune.inference.standalone import refuse_existing
from robusttune.models.classifier import Classifier
from robusttune.paths import partial_of

GRAPH = "model.onnx"
NEEDED = "from contextlib import suppress\nfrom functools import cache\n\nfrom PIL import ImageOps"
EXAMPLE = Path(__file__).with_name("example.py")
PACKAGES = ("onnx", "onnxscript", "onnxruntime")
IMPORTS = re.compile(r"# <<<.*?# >>>\n", re.DOTALL)


def write_onnx(classifier: Classifier, folder: Path, precision: str = "float32") -> dict[str, Any]:
    """Export a classifier to a new folder, which appears only if the graph predicts the same as the live model.

    Args:
        classifier: Classifier on the CPU, in float32.
        folder: Folder that is created.
        precision: ``float32``; ``float16``; or ``int8``, for weights of matrix products. The latter two change
            probabilities, and the differences are reported instead of checked.

    Returns:
        Report: the greatest difference of a probability by pattern of present modalities, and file sizes in bytes.

    Raises:
        RobustTuneError: The folder exists, a package is missing, the precision is unknown, or the graph in float32
            differs from the live model by more than `TOLERANCE`.
    """
    require_packages()
    refuse_existing(folder)
    if precision not in PRECISIONS:
        raise RobustTuneError(f"there is no precision {precision!r}: choose from {', '.join(PRECISIONS)}")
    if classifier.temperatures.values.dtype != torch.float32 or classifier.device.type != "cpu":
        raise RobustTuneError("only a model in float32 on the CPU is exported: load it with the default arguments")
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = partial_of(folder)
    try:
        partial.mkdir()
        write_graph(classifier, partial / GRAPH)
        report: dict[str, Any] = {"precision": precision, "difference": _checked(classifier, partial)}
        if precision != "float32":
            convert(partial / GRAPH, precision)
            report["difference"] = differences(classifier, open_session(partial / GRAPH))
        _write_files(classifier, partial)
        report["bytes"] = {path.name: path.stat().st_size for path in sorted(partial.iterdir())}
        (partial / "export.json").write_text(_json(report), encoding="utf-8")
        if folder.exists():  # an empty folder
            folder.rmdir()
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return report


def require_packages() -> None:
    """Check that the packages of the extra ``onnx`` are installed.

    Raises:
        RobustTuneError: One is missing.
    """
    missing = [name for name in PACKAGES if find_spec(name) is None]
    if missing:
        raise RobustTuneError(f"the export to ONNX needs {', '.join(missing)}: pip install 'robusttune[onnx]'")


def self_contained_example() -> str:
    """Return the source of the example, with the functions that it shares with this package in place of imports."""
    functions = (images._formats, images._turn_upright, images._as_rgb, resize_and_crop)
    shared = [f"{NEEDED}\n\nFORMATS = {images.FORMATS!r}", *(inspect.getsource(each).rstrip() for each in functions)]
    joined = "\n\n\n".join(shared).replace("preprocessing: Preprocessing", "preprocessing: SimpleNamespace")
    return IMPORTS.sub(lambda _: f"{joined}\n", EXAMPLE.read_text(encoding="utf-8"))


def _checked(classifier: Classifier, folder: Path) -> dict[str, float]:
    """Return the differences of a graph in float32 from the live model, see `refuse_differences`."""
    found = differences(classifier, open_session(folder / GRAPH))
    refuse_differences(found)
    return found


def _write_files(classifier: Classifier, folder: Path) -> None:
    """Write the files beside the graph: preprocessing, tokenizer, classes and example."""
    preprocessing = Batches(classifier).preprocessing
    tokenizer = preprocessing.tokenizer
    settings = {
        "format": 1,
        "multilabel": classifier.facts.multilabel,
        "thresholds": None if classifier.thresholds is None else classifier.thresholds.values.tolist(),
        "image": asdict(preprocessing.resizing),
        "text": {
            "max_length": tokenizer.max_length,
            "least_tokens": LEAST_TOKENS,
            "pad_id": tokenizer.pad_id,
            "before": tokenizer.before,
            "after": tokenizer.after,
        },
    }
    (folder / "preprocessing.json").write_text(_json(settings), encoding="utf-8")
    (folder / "classes.json").write_text(_json(classifier.class_names), encoding="utf-8")
    (folder / "tokenizer.json").write_text(tokenizer.backend.to_str(), encoding="utf-8")
    (folder / "example.py").write_text(self_contained_example(), encoding="utf-8")


def _json(content: Any) -> str:
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"
