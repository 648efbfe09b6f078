"""How the cost of a training grows with classes, layers, samples and nodes: measured tables.

Steps are measured by `robusttune.planning` on ViT-B/16 and BERT-base (MoLT) or a ViT-B/16 CLIP (MMRL), with random
weights, from a feature cache. What grows with the samples of a table is measured by `python -m experiments.scale`.

`python tests/benchmarks/plan_scale.py [--steps 10]`
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from benchmarks.bench_cache import text_encoder, write_data
from benchmarks.bench_mmrl import write_clip
from dishes import DISHES, FILLERS
from fakes import write_table
from lightning.pytorch import Trainer

from robusttune.commands.plan_table import size, span
from robusttune.commands.quiet import quiet
from robusttune.data import CacheSettings, ImageTextDataModule
from robusttune.data.sources import Table
from robusttune.encoders import CLIPImageEncoder, CLIPTextEncoder, Encoder, TimmEncoder, TransformersTextEncoder
from robusttune.planning import TRAINER, Extent, Plan, estimate
from robusttune.ranks import cores
from robusttune.tasks import FusionTask, MMRLTask

FOLDER = Path("runs/benchmarks")
CLASSES = {"MoLT": (10, 100, 1_000, 10_000), "MMRL": (10, 100, 1_000)}
LAYERS = (1, 4, 8, 12)
SAMPLES = tuple(10**power for power in range(4, 10))
DEVICES = ((1, 1), (8, 1), (8, 8), (8, 64))  # of a node, and nodes
WORDS = [word for _, _, words in DISHES.values() for word in words] + FILLERS


def write_rows(folder: Path, rows: int, classes: int) -> None:
    """A table in which photos come again, with texts of their own and names of classes of two words."""
    rng = random.Random(0)
    photos = sorted(path.name for path in folder.glob("*.jpg"))
    made = [
        {
            "image": photos[row % len(photos)],
            "text": " ".join(rng.choices(WORDS, k=rng.randint(3, 12))),
            "label": f"w{row % classes // 300} w{row % classes % 300}",
        }
        for row in range(rows)
    ]
    write_table(folder, "train", made)
    write_table(folder, "val", made[:64])


def data_of(folder: Path, image: Encoder, text: Encoder, batch_size: int) -> ImageTextDataModule:
    source = Table(train=str(folder / "train.jsonl"), val=str(folder / "val.jsonl"))
    return ImageTextDataModule(source, image, text, batch_size, cache=CacheSettings(str(folder / "none")))  # type: ignore[arg-type]


def planned(task: Any, data: ImageTextDataModule, steps: int, extent: Extent) -> Plan:
    trainer = Trainer(accelerator="cpu", **TRAINER)
    plan = estimate(task, data, trainer, extent, steps)
    print(f"{plan.task}, {plan.classes} classes: {', '.join(cells(plan))}", file=sys.stderr, flush=True)
    return plan


def molt(folder: Path, classes: int, layers: int, steps: int, extent: Extent = Extent(max_epochs=1)) -> Plan:  # noqa: B008
    write_rows(folder, max(4096, classes), classes)
    image = TimmEncoder(name="vit_base_patch16_224.augreg_in21k", weights="random", layers=layers, grid=4)
    text = TransformersTextEncoder(name=text_encoder(folder).name, weights="random", layers=layers)
    data = data_of(folder, image, text, batch_size=64)
    return planned(FusionTask(image, text, data.facts), data, steps, extent)


def mmrl(folder: Path, classes: int, steps: int) -> Plan:
    write_rows(folder, max(4096, classes), classes)
    clip = str(folder / "clip")
    image, text = CLIPImageEncoder(name=clip), CLIPTextEncoder(name=clip)
    data = data_of(folder, image, text, batch_size=4)
    return planned(MMRLTask(image, text, data.facts), data, steps, Extent(max_epochs=1))


def cells(plan: Plan) -> list[str]:
    """What a step takes."""
    step = plan.time.step
    return [
        f"{plan.model.trained / 1e6:.2f} M",
        f"{plan.model.flops / 1e9:.1f} GFLOP",
        size(plan.memory.activations),
        span(step.seconds),
    ]


def show(head: list[str], rows: list[list[str]]) -> None:
    """In Markdown."""
    for row in (head, ["---"] * len(head), *rows):
        print(f"| {' | '.join(row)} |")
    print(flush=True)


def say_samples(plan: Plan) -> None:
    """Disk and time that are proportional to the samples."""
    features = plan.disk.features[:2]
    inputs = plan.samples["train"] + plan.samples["val"]
    photos, texts = features
    cached = photos.bytes / photos.inputs + texts.bytes / texts.inputs
    filling = photos.seconds / photos.inputs + texts.seconds / texts.inputs
    epoch = plan.time.step.seconds / plan.batch_size
    print(f"measured on {inputs} samples: {cached / 1e3:.0f} kB, {filling * 1e3:.1f} ms to encode\n")
    rows = [
        [f"10^{len(str(count)) - 1}", size(cached * count), span(filling * count), span(epoch * count)]
        for count in SAMPLES
    ]
    show(["samples", "cache", "to fill it", "epoch"], rows)


def say_devices(plan: Plan) -> None:
    """An epoch of a million samples."""
    rows = []
    for devices, nodes in DEVICES:
        extent = Extent(devices=devices, nodes=nodes)
        steps = extent.train_batches(10**6, plan.batch_size)
        world = extent.world_size
        sent = 2 * (world - 1) / world * plan.traffic.step  # of a ring
        took = span(steps * plan.time.step.seconds)
        travels = [size(sent), size(sent * steps)] if sent else ["-", "-"]
        rows.append([f"{nodes} x {devices}", f"{steps:,}", f"{plan.batch_size * world:,}", took, *travels])
    show(["nodes x devices", "steps", "samples a step", "epoch, without what travels", "sent a step", "an epoch"], rows)


@quiet()
def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=10)
    steps = parser.parse_args().steps
    warnings.simplefilter("ignore")
    found: dict[str, Any] = {}
    print(f"{cores()} cores, {torch.get_num_threads()} threads\n")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_data(folder)
        write_clip(folder / "clip")
        head = ["trained", "operations", "activations", "step"]
        plans: dict[str, Plan] = {}
        for classes in CLASSES["MoLT"]:
            plans[f"MoLT, {classes:,} classes"] = molt(folder, classes, 4, steps)
        say_samples(plans["MoLT, 100 classes"])
        say_devices(plans["MoLT, 100 classes"])
        for classes in CLASSES["MMRL"]:
            plans[f"MMRL, {classes:,} classes"] = mmrl(folder, classes, max(3, steps // 3))
        show(["", *head], [[name, *cells(plan)] for name, plan in plans.items()])
        by_layers = {f"MoLT, {layers} layers": molt(folder, 100, layers, steps) for layers in LAYERS}
        rows = []
        for case, plan in by_layers.items():
            cached = sum(part.bytes / part.inputs for part in plan.disk.features[:2])
            rows.append([case, *cells(plan), f"{cached / 1e3:.0f} kB"])
        show(["", *head, "cache a sample"], rows)
        found = {name: plan.time.step.seconds for name, plan in {**plans, **by_layers}.items()}
    FOLDER.mkdir(parents=True, exist_ok=True)
    (FOLDER / "plan_scale.json").write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
