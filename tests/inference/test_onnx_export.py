"""ONNX exports: they predict as the live model does, also without PyTorch, and are refused where they do not."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from fakes import word_tokenizer, write_model
from inference.models import MODELS, clip_encoders, fusion, pairs, text_encoder, timm_encoder
from PIL import Image

from robusttune.data.images import read_image
from robusttune.encoders import (
    ImageEncoder,
    ImageTransform,
    Preprocessing,
    TextEncoder,
    TransformersImageEncoder,
)
from robusttune.errors import RobustTuneError
from robusttune.inference import Predictor
from robusttune.inference.onnx import write_onnx
from robusttune.inference.onnx.folder import self_contained_example
from robusttune.inference.onnx.parity import differences, open_session
from robusttune.inference.onnx.precision import measure
from robusttune.models import Concatenation, Experts

LONG = pytest.mark.exhaustive  # an export takes half a minute
# Predict by example.py alone: the import of what an export must not need fails.
ALONE = """
import json, sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "torchvision", "robusttune", "transformers", "timm", "onnx"):
            raise ImportError(name)
sys.meta_path.insert(0, Blocked())
sys.path.insert(0, sys.argv[1])
import example
columns = json.loads(sys.argv[2])
model = example.Model(example.Path(sys.argv[1]))
rows = list(zip(columns["images"], columns["texts"]))
print(json.dumps([model.predict(*columns.values()).tolist(), [model.predict([i], [t])[0].tolist() for i, t in rows]]))
"""


def photo_files(folder: Path) -> list[str]:
    """Write photos of many kinds: rotated by EXIF, transparent, grey, of 16 bits, with a palette, CMYK, thin."""
    rng = np.random.default_rng(1)
    colour = Image.fromarray(rng.integers(256, size=(70, 110, 3), dtype=np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    clear = Image.fromarray(rng.integers(256, size=(90, 60, 4), dtype=np.uint8))
    deep = Image.fromarray(rng.integers(1 << 16, size=(50, 80)).astype(np.uint16))
    kinds: dict[str, Callable[[Path], None]] = {
        "plain.png": colour.save,
        "rotated.jpg": lambda path: colour.save(path, exif=exif),
        "transparent.png": clear.save,
        "grey.png": colour.convert("L").save,
        "deep.png": deep.save,
        "palette.gif": colour.quantize(16).save,
        "cmyk.jpg": colour.convert("CMYK").save,
        "thin.png": colour.resize((300, 3)).save,
    }
    for name, save in kinds.items():
        save(folder / name)
    return [str(folder / name) for name in kinds]


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    """Return the self-contained example as a module."""
    path = tmp_path_factory.mktemp("example") / "example.py"
    path.write_text(self_contained_example(), encoding="utf-8")
    assert "import robusttune" not in path.read_text(encoding="utf-8")
    assert "from robusttune" not in path.read_text(encoding="utf-8")
    spec = importlib.util.spec_from_file_location("exported_example", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    "settings",
    [{"size": 32, "crop": 0.875}, {"size": 48, "crop": 1.0, "crop_mode": "squash", "interpolation": "bilinear"}],
    ids=["crop", "squash"],
)
def test_the_example_makes_the_pixels_of_training(
    example: ModuleType, settings: dict[str, Any], tmp_path: Path
) -> None:
    preprocessing = Preprocessing(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), **settings)
    model = object.__new__(example.Model)
    model.image = SimpleNamespace(**vars(preprocessing))
    for path in photo_files(tmp_path):
        live = ImageTransform(preprocessing)(read_image(path), seed=0).numpy()
        assert np.array_equal(model.pixels(path), live), path


def test_the_example_makes_the_tokens_of_training(example: ModuleType) -> None:
    for encoder in (text_encoder(), clip_encoders()[1]):
        tokenizer = encoder.tokenizer()
        model = object.__new__(example.Model)
        model.tokenizer = tokenizer.backend
        model.text = SimpleNamespace(
            max_length=tokenizer.max_length,
            least_tokens=4,
            pad_id=tokenizer.pad_id,
            before=tokenizer.before,
            after=tokenizer.after,
        )
        texts = ["a large red circle", "x", "blue " * 500, "été 日本", "a\nb\tc"]
        ids, mask = model.tokens([*texts, None])
        live = tokenizer(texts).tokens
        assert np.array_equal(ids[:-1], live.input_ids.numpy())
        assert np.array_equal(mask[:-1], live.attention_mask.numpy())
        assert not ids[-1].any()
        assert not mask[-1].any()


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param(kind, marks=pytest.mark.slow if kind in ("molt", "experts of several labels", "MMRL++") else LONG)
        for kind in MODELS
    ],
)
def test_every_model_is_exported_and_predicts_without_torch(kind: str, tmp_path: Path) -> None:
    classifier = MODELS[kind]()
    report = write_onnx(classifier, tmp_path / "model")
    assert max(report["difference"].values()) < 1e-4
    assert set(report["difference"]) == {"both", "image", "text", "neither", "mixed"}
    given = pairs()
    given["texts"] += [None, "", "blue square " * 40]
    given["images"] += [*given["images"][:2], None]
    live = Predictor([classifier]).predict_proba(**given)
    paths: list[str | None] = [
        None if image is None else str(tmp_path / f"{n}.png") for n, image in enumerate(given["images"])
    ]
    for path, image in zip(paths, given["images"], strict=True):
        if path is not None:
            Image.fromarray(image).save(path)
    done = subprocess.run(
        [sys.executable, "-c", ALONE, tmp_path / "model", json.dumps({"images": paths, "texts": given["texts"]})],
        env={"PATH": "/usr/bin"},
        check=True,
        capture_output=True,
        text=True,
    )
    together, apart = json.loads(done.stdout)
    assert np.abs(np.array(together) - live).max() < 1e-5
    assert np.abs(np.array(apart) - live).max() < 1e-5
    files = {path.name for path in (tmp_path / "model").iterdir() if path.is_file()}
    assert files == {
        *("model.onnx", "preprocessing.json", "tokenizer.json", "classes.json", "example.py", "export.json")
    }


@pytest.mark.exhaustive
def test_lower_precisions_report_what_they_change(tmp_path: Path) -> None:
    classifier = fusion(Experts())
    full = write_onnx(classifier, tmp_path / "full")
    rows = [{"text": text, "label": label} for text, label in [("red", "red circle"), ("blue", "blue square")] * 3]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps({"image": "", **row}) + "\n" for row in rows))
    for precision, most in (("float16", 0.7), ("int8", 0.7)):
        report = write_onnx(classifier, tmp_path / precision, precision)
        assert report["bytes"]["model.onnx"] < most * full["bytes"]["model.onnx"]
        assert 1e-6 < max(report["difference"].values()) < 0.2
        found = measure(classifier, tmp_path / precision / "model.onnx", str(tmp_path / "rows.jsonl"))
        assert found.samples == 6
        assert found.accuracy == found.live_accuracy
        assert 0 < found.difference < 0.2


@pytest.mark.slow
def test_a_graph_that_differs_is_refused_and_nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model whose weights change after the graph is written stands for an export that is wrong."""
    classifier = fusion(Concatenation(), timm_encoder(layers=1), clip_encoders()[1])
    folder_of_models = tmp_path / "models"
    folder_of_models.mkdir()
    folder = import_module("robusttune.inference.onnx.folder")
    write = folder.write_graph

    def write_then_change(given: Any, path: Path) -> None:
        write(given, path)
        with torch.no_grad():
            given.network.layers[-1].bias[0] += 0.01

    monkeypatch.setattr(folder, "write_graph", write_then_change)
    with pytest.raises(RobustTuneError, match="differs from the model by 0.00.* in a probability .*, so nothing was"):
        write_onnx(classifier, folder_of_models / "model")
    assert not any(folder_of_models.iterdir())
    monkeypatch.undo()
    write_onnx(classifier, folder_of_models / "model")
    found = differences(classifier, open_session(folder_of_models / "model/model.onnx"))
    assert max(found.values()) < 1e-5


def test_a_difference_that_is_nan_is_refused() -> None:
    from robusttune.inference.onnx.parity import refuse_differences

    refuse_differences({"both": 1e-5, "image": 0.0})
    with pytest.raises(RobustTuneError, match="modalities: image"):
        refuse_differences({"both": 1e-5, "image": float("nan")})
    with pytest.raises(RobustTuneError, match="differs from the model by 0.00011 .*modalities: both"):
        refuse_differences({"both": 1.1e-4, "image": 0.0})


def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder = import_module("robusttune.inference.onnx.folder")
    monkeypatch.setattr(folder, "find_spec", lambda name: None if name == "onnxscript" else object())
    with pytest.raises(RobustTuneError, match=r"needs onnxscript: pip install 'robusttune\[onnx\]'"):
        write_onnx(fusion(Experts()), tmp_path / "model")


def _of_transformers(folder: Path, image_type: str, text_type: str) -> tuple[ImageEncoder, TextEncoder]:
    """Return the settings of tiny random encoders of two types of model, written to a folder."""
    image, text = write_model(folder / "image", image_type), write_model(folder / "text", text_type)
    word_tokenizer().save_pretrained(text)
    processor = {"image_processor_type": "ViTImageProcessor", "size": {"height": 32, "width": 32}}
    (image / "preprocessor_config.json").write_text(json.dumps(processor))
    return (
        TransformersImageEncoder(name=str(image), layers=1, pooling="class"),
        text_encoder(name=str(text), layers=1, max_length=8),
    )


@pytest.mark.parametrize(
    ("image_type", "text_type"),
    [
        pytest.param("siglip", "siglip", marks=pytest.mark.slow),
        *(pytest.param(*pair, marks=LONG) for pair in (("vit", "bert"), ("dinov2", "roberta"), ("beit", "deberta-v2"))),
    ],
)
def test_types_of_encoders(image_type: str, text_type: str, tmp_path: Path) -> None:
    """Among them texts that are always padded to one length (SigLIP), and relative positions (DeBERTa)."""
    classifier = fusion(Experts(), *_of_transformers(tmp_path, image_type, text_type))
    report = write_onnx(classifier, tmp_path / "model")
    assert max(report["difference"].values()) < 1e-5
