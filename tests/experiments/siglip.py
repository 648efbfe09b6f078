"""What does MMRL add to a SigLIP, and which of the design's choices matter? Base to new classes of generated scenes.

A tiny SigLIP is pretrained first, with the scenes, captions, tokenizer and sizes of the demo CLIP and the sigmoid loss
of Zhai et al. (2023, arXiv 2303.15343). It starts from the layers of the demo CLIP, which saves most of the steps, or
from random weights with --from-scratch. The data and the recipe are those of the protocol `demo_base_to_new`.

    make siglip ARGS="--steps 200 --batch-size 48 --epochs 10 --seeds 1"    # a small part of the study
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple
from unittest import mock

import jsonargparse
import numpy as np
import torch
import yaml
from experiments.records import ROOT, RUNS, Record, Results, run_jobs
from experiments.training import evaluate, overlays, train
from lightning.pytorch import Trainer, seed_everything
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader
from transformers import CLIPModel, SiglipConfig, SiglipImageProcessor, SiglipModel

from robusttune.data.sources.shapes.drawing import SIDE
from robusttune.demo_clip.pretrain import HERE, Pairs, Pretraining, Settings, make_tokenizer
from robusttune.encoders.upper_tower import UpperTower, unit
from robusttune.models.mmrl import MMRLNetwork

PROTOCOL = yaml.safe_load((ROOT / "configs/protocols/demo_base_to_new.yaml").read_text())
DATASETS: dict[str, dict[str, Any]] = {name: one["settings"] for name, one in PROTOCOL["axes"]["dataset"].items()}
MMRL, MMRL_PLUS_PLUS = (combination["settings"] for combination in PROTOCOL["combinations"])
METRICS = ("base_accuracy", "new_accuracy", "harmonic_mean")
SCALE, BIAS = 10.0, -10.0  # of the logits at first, as in the paper


class Job(NamedTuple):
    """Settings of one run: a method in `METHODS`, data in `DATASETS`, epochs, and the seed of model and scenes."""

    method: str
    data: str
    epochs: int
    seed: int


class Method(NamedTuple):
    """A method that is compared.

    Attributes:
        flags: Flags of the command line.
        changed: Context within which the method's code differs from that of the package.
    """

    flags: list[str]
    changed: Callable[[], Any]


class FullLengthPairs(Pairs):
    """Batches whose captions are padded to the full length, without a mask."""

    def __getitem__(self, step: int) -> dict[str, Tensor]:
        batch = super().__getitem__(step)
        ids, length = batch["input_ids"], self.settings.context
        padded = functional.pad(ids, (0, length - ids.shape[1]), value=self.tokenizer.pad_token_id)
        return {"pixel_values": batch["pixel_values"], "input_ids": padded}


def make_siglip(settings: Settings, tokens: int) -> SiglipModel:
    """Create a SigLIP of the demo CLIP's sizes with random weights.

    Args:
        settings: Settings of the demo CLIP's pretraining.
        tokens: Size of the tokenizer's vocabulary.
    """
    text = {**settings.text, "projection_size": settings.vision["hidden_size"], "vocab_size": tokens}
    text |= {"max_position_embeddings": settings.context, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
    vision = {**settings.vision, "image_size": SIDE, "patch_size": settings.patch}
    act = {"hidden_act": "quick_gelu"}  # as in the demo CLIP, whose weights it may start from
    model = SiglipModel(SiglipConfig(text_config=text | act, vision_config=vision | act))
    model.logit_scale.data.fill_(float(np.log(SCALE)))
    model.logit_bias.data.fill_(BIAS)
    return model


def copy_layers(model: nn.Module, clip: nn.Module) -> None:
    """Copy the weights of a CLIP that a SigLIP has under the same names; there is no position of a class token."""
    own, start = model.state_dict(), clip.state_dict()
    positions = "vision_model.embeddings.position_embedding.weight"
    start[positions] = start[positions][1:]
    model.load_state_dict(
        {k: v for k, v in start.items() if k in own and v.shape == own[k].shape and v.ndim}, strict=False
    )


def pretrain(settings: Settings, out: Path, from_scratch: bool) -> None:
    """Train a SigLIP, and write it, its tokenizer and its preprocessing to a folder."""
    seed_everything(settings.seed)
    tokenizer = make_tokenizer(settings)
    model = make_siglip(settings, len(tokenizer))
    if not from_scratch:
        copy_layers(model, CLIPModel.from_pretrained(HERE).float())
    trainer = Trainer(max_epochs=1, devices=1, gradient_clip_val=1.0, logger=False, enable_checkpointing=False)
    task = Pretraining(settings, model)  # with the loss that the model itself returns
    trainer.fit(task, DataLoader(FullLengthPairs(settings, tokenizer), batch_size=None))
    model.cpu().save_pretrained(out)
    tokenizer.save_pretrained(out)
    SiglipImageProcessor(size={"height": SIDE, "width": SIDE}).save_pretrained(out)


def read_settings(**changes: Any) -> Settings:
    """Return the settings of the demo CLIP's pretraining, with some of them changed."""
    parser = jsonargparse.ArgumentParser()
    parser.add_argument("--config", action="config")
    parser.add_class_arguments(Settings)
    found = parser.instantiate(parser.parse_args([f"--config={HERE}/pretrain.yaml"])).as_dict()
    return replace(Settings(**{key: value for key, value in found.items() if key != "config"}), **changes)


def flags_of(settings: dict[str, Any]) -> list[str]:
    """Return the flags of settings, which are plain strings or JSON."""
    return [f"--{name}={value if isinstance(value, str) else json.dumps(value)}" for name, value in settings.items()]


@contextmanager
def probe_of_all() -> Iterator[None]:
    """Let SigLIP's probe attend to the representation tokens as well as to the patches."""

    def image_end(self: MMRLNetwork, upper: UpperTower, space: Tensor, states: Tensor) -> tuple[Tensor, Tensor]:
        count, tokens = space.shape[1], torch.cat([space.expand(len(states), -1, -1), states], 1)
        tokens = upper.blocks[-1](tokens)
        representation = self.projection(upper, upper.norm(tokens[:, :count]).mean(1))
        return upper.read_out(tokens), unit(representation)

    with mock.patch.object(MMRLNetwork, "_image_end", image_end):
        yield


def identity() -> Any:
    """Return a context in which MMRL++ adds its residual to the identity instead of the frozen pooling."""
    return mock.patch.object(UpperTower, "project", lambda _, states: states)


@contextmanager
def unchanged() -> Iterator[None]:
    yield


METHODS = {
    "zero-shot": Method(overlays("baselines/zero_shot"), unchanged),
    "MMRL": Method(flags_of(MMRL), unchanged),
    "MMRL++": Method(flags_of(MMRL | MMRL_PLUS_PLUS), unchanged),
    "MMRL, no regularisation": Method(flags_of(MMRL | {"model.reg_weight": 0.0}), unchanged),
    "MMRL, probe attends to all tokens": Method(flags_of(MMRL), probe_of_all),
    "MMRL++, residual of the identity": Method(flags_of(MMRL | MMRL_PLUS_PLUS), identity),
}


def measure(root: Path, job: Job) -> Record:
    """Return the accuracy on base and new classes and their harmonic mean, from images alone."""
    method, modalities = METHODS[job.method], ("image", "text")
    common = {**PROTOCOL["settings"], **DATASETS[job.data], "data.source.seed": job.seed}
    common |= {f"{modality}_encoder.name": str(root / "siglip") for modality in modalities}
    with method.changed():
        flags = [*overlays("demo_mmrl"), *method.flags, *flags_of(common)]
        flags += [f"--trainer.max_epochs={job.epochs}"] if job.method != "zero-shot" else []
        folder = train(root, "-".join(map(str, job)).replace(" ", "_"), job.seed, *flags)
        report = evaluate(folder, "--data.batch_size=200")
    found = json.loads((report / "test.json").read_text())["conditions"]["complete"]
    return {metric: round(found[metric], 6) for metric in METRICS}


def table(results: Results) -> str:
    """Return Markdown: base accuracy, new accuracy and harmonic mean of each method, averaged over seeds."""
    data = results.values("data")
    lines = [f"| base, new, harmonic mean | {' | '.join(data)} |", "| --- " * (1 + len(data)) + "|"]
    for method in results.values("method"):
        runs = [results.metrics(method=method, data=name) for name in data]
        cells = [" ".join(f"{mean(run[metric] for run in of_data):.3f}" for metric in METRICS) for of_data in runs]
        lines.append(f"| {method} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=RUNS / "siglip", help="folder of the model, runs and results.json")
    parser.add_argument("--steps", type=int, default=2000, help="steps of the pretraining; the demo CLIP had 6000")
    parser.add_argument("--batch-size", type=int, default=128, help="pairs a step of the pretraining")
    parser.add_argument("--from-scratch", action="store_true", help="pretrain from random weights")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--data", nargs="+", choices=DATASETS, default=list(DATASETS))
    parser.add_argument("--epochs", type=int, default=MMRL["trainer.max_epochs"], help="epochs of MMRL")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--processes", type=int, default=os.cpu_count(), help="jobs at a time, one core each")
    given = parser.parse_args()
    root = given.root.resolve()
    if not (root / "siglip/config.json").is_file():
        steps, warmup = given.steps, min(300, given.steps // 10)
        settings = read_settings(steps=steps, warmup=warmup, batch_size=given.batch_size)
        pretrain(settings, root / "siglip", given.from_scratch)
    jobs = [Job(*job) for job in product(given.methods, given.data, [given.epochs], range(1, given.seeds + 1))]
    start = "random weights" if given.from_scratch else "the layers of the demo CLIP"
    about = {"SigLIP": f"{given.steps} steps of {given.batch_size} pairs from {start}"}
    results = run_jobs(root, jobs, partial(measure, root), given.processes, about)
    results.write(root / "results.json")
    print(table(results))


if __name__ == "__main__":
    main()
