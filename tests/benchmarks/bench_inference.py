"""Predictions with a loaded model of the demo: time of one pair, of loading, and of many samples.

* One pair: `Predictor.predict`, beside the network alone on a batch that is ready, plus resizing and tokenising alone.
* Loading: a process that calls `robusttune.load`, beside one that imports torch and transformers and reads the weights.
* Many: 1,024 samples in batches of 64, beside encoders and network alone on batches that are ready.
* Photos: 64 arrays of 512 x 384 pixels in batches of 32, with ViT-S/16 and ViT-B/16 (random weights), likewise.

`python tests/benchmarks/bench_inference.py`
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import median, quantiles
from time import perf_counter
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.paired import FOLDER, compare

import robusttune
from robusttune.data.sources import Shapes
from robusttune.encoders import ImageTransform, TimmEncoder, TransformersTextEncoder
from robusttune.inference import Predictor
from robusttune.inference.given_images import GivenImages
from robusttune.inference.given_rows import GivenRows
from robusttune.models import FusionClassifier
from robusttune.types import Facts

PAIRS, SAMPLES, PHOTOS, ROUNDS = 200, 1024, 64, 5
LOADING = "import robusttune; robusttune.load({run!r})"
BARE = """
import torch
from transformers import AutoImageProcessor, AutoTokenizer, CLIPModel
checkpoint = torch.load({checkpoint!r}, weights_only=True)
CLIPModel.from_pretrained({clip!r}), CLIPModel.from_pretrained({clip!r})  # one for each modality, as the demo has them
AutoTokenizer.from_pretrained({clip!r}), AutoImageProcessor.from_pretrained({clip!r})
"""


def seconds(call: Callable[[], Any], number: int) -> list[float]:
    """Return the seconds of each of several calls, after three that do not count."""
    times = []
    for _ in range(number + 3):
        start = perf_counter()
        call()
        times.append(perf_counter() - start)
    return times[3:]


def one_pair(model: Predictor, image: Any, text: str) -> dict[str, Any]:
    """Return milliseconds of a prediction, and of its parts alone."""
    (batches, (classifier,)) = model._members.groups[0]
    (prepared,) = batches.of(GivenRows([image], [text]), 1, model.device, unreadable_as_missing=False)
    transform, tokenizer = ImageTransform(batches.preprocessing.resizing), batches.preprocessing.tokenizer
    reader = GivenImages([image])

    def network() -> None:
        with torch.inference_mode():
            classifier.probabilities(prepared.batch)

    def inputs() -> None:
        transform(reader.read("0.0"), 0)
        tokenizer([text])

    parts = {
        "predict": lambda: model.predict(image=image, text=text),
        "text alone": lambda: model.predict(text=text),
        "image alone": lambda: model.predict(image=image),
        "network": network,
        "resizing and tokenising": inputs,
    }
    found: dict[str, Any] = {}
    for name, call in parts.items():
        times = [1000 * value for value in seconds(call, PAIRS)]
        found[name] = {"p50_ms": median(times), "p95_ms": quantiles(times, n=20)[-1]}
    bare = found["network"]["p50_ms"] + found["resizing and tokenising"]["p50_ms"]
    return found | {"ratio": found["predict"]["p50_ms"] / bare}


def loading(run: Path) -> dict[str, Any]:
    """Return seconds of processes that load the model, and that read the same weights without robusttune."""
    clip = Path(robusttune.__file__).parent / "demo_clip"
    names = {"run": str(run), "checkpoint": str(run / "checkpoints/best.ckpt"), "clip": str(clip)}
    found: dict[str, list[float]] = {"load": [], "bare": []}
    for _ in range(ROUNDS):
        for name, script in (("load", LOADING), ("bare", BARE)):
            start = perf_counter()
            subprocess.run([sys.executable, "-c", script.format(**names)], check=True, stderr=subprocess.DEVNULL)
            found[name].append(perf_counter() - start)
    return {name: median(times) for name, times in found.items()} | {"rounds": found}


def many(name: str, model: Predictor, images: list[Any], texts: list[str], batch_size: int) -> dict[str, float]:
    """Compare samples per second of `predict` with those of encoders and network alone; see `compare`."""
    (batches, (classifier,)) = model._members.groups[0]
    given = GivenRows(images, list(texts))
    ready = [*batches.of(given, batch_size, model.device, unreadable_as_missing=False)]

    def networks() -> None:
        with torch.inference_mode():
            for prepared in ready:
                classifier.probabilities(prepared.batch)

    def predict() -> None:
        model.predict(images=images, texts=texts, batch_size=batch_size)

    def rate(call: Callable[[], None]) -> float:
        start = perf_counter()
        call()
        return len(images) / (perf_counter() - start)

    ways = {"predict": lambda: rate(predict), "encoders and network": lambda: rate(networks)}
    return compare(f"predict-{name}", "samples/s", ways, ROUNDS)


def photos_model(name: str) -> Predictor:
    """Return an untrained model on an image encoder of timm and the demo's text encoder."""
    clip = str(Path(robusttune.__file__).parent / "demo_clip")
    image = TimmEncoder(name=name, weights="random", layers=2)
    text = TransformersTextEncoder(name=clip, layers=2, max_length=32)
    facts = Facts([str(number) for number in range(101)], [1 / 101] * 101, multilabel=False)
    return Predictor([FusionClassifier(image, text, facts).eval()])


def main() -> None:
    settings = {"run_root": FOLDER / "inference", "trainer.max_epochs": 1, "trainer.enable_progress_bar": False}
    run = robusttune.fit("demo", settings)
    source = Shapes(test=SAMPLES)
    images = [np.asarray(source.draw("test", row)) for row in range(SAMPLES)]
    table = source.read("test")
    assert table is not None
    texts = table["text"].to_pylist()
    texts = [text or "a red circle" for text in texts]
    model = run.load()
    found: dict[str, Any] = {
        "one_pair": one_pair(model, images[0], texts[0]),
        "loading_s": loading(run.folder),
        "many": {"demo": many("demo", model, images, texts, 64)},
        "threads": torch.get_num_threads(),
    }
    photos = [*np.random.default_rng(0).integers(0, 256, (PHOTOS, 384, 512, 3), dtype=np.uint8)]
    for name in ("vit_small_patch16_224", "vit_base_patch16_224"):
        found["many"][name] = many(name, photos_model(name), photos, ["a plate of pasta with basil"] * PHOTOS, 32)
    view = Table("figure", "value")
    for name, values in found["one_pair"].items():
        view.add_row(name, f"{values['p50_ms']:.1f} ms" if isinstance(values, dict) else f"{values:.2f} x bare")
    view.add_row("load, seconds above bare", f"{found['loading_s']['load'] - found['loading_s']['bare']:.2f}")
    Console().print(view)
    (FOLDER / "inference.json").write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
