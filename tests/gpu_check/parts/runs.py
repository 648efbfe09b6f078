"""Whole runs on the device: fit with validation, test, checkpoint, and predictions that equal those on the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

import robusttune
from gpu_check.context import Context
from gpu_check.scenes import KINDS, data_of, task_of
from gpu_check.stepping import trainer_of

TEXTS = ["a red circle", "a small blue square", None, "two green triangles"]
# Probabilities of the same weights in float32. TF32, which cuDNN uses for the patch embedding, has 11 bits.
TOLERANCE = 2e-3


def run(context: Context) -> None:
    """Run both demos, with and without a feature cache, in the precision that is common on the device."""
    for kind in KINDS:
        for cached in (False, True):
            name = f"{kind}, {'features' if cached else 'inputs'}"
            with context.case(name):
                whole_run(context, name, kind, context.folder / "cache" if cached else None)


def whole_run(context: Context, name: str, kind: str, cache: Path | None) -> None:
    """Fit, test and predict, and load the checkpoint on both devices."""
    torch.manual_seed(0)
    data = data_of(kind, samples=64 if context.small else 768, cache=cache)
    task = task_of(kind, data)
    epochs = 1 if context.small else 3
    trainer = trainer_of(
        context,
        max_epochs=epochs,
        precision="bf16-mixed" if context.on_gpu else "32-true",
        gradient_clip_val=1.0,
        num_sanity_val_steps=1,
        log_every_n_steps=4,
    )
    seconds = context.seconds(lambda: trainer.fit(task, datamodule=data))
    [tested] = trainer.test(task, datamodule=data, verbose=False)
    checkpoint = context.folder / f"{name}.ckpt"
    trainer.save_checkpoint(checkpoint)
    here = probabilities(checkpoint, context.device)
    off = float(np.abs(here - probabilities(checkpoint, "cpu")).max())
    accuracy = tested["test/complete/accuracy"]
    passed = off <= TOLERANCE and bool(np.isfinite([*tested.values()]).all())
    context.add(
        name,
        passed,
        f"probabilities differ by at most {TOLERANCE}",
        difference_of_probabilities=off,
        accuracy=float(accuracy),
        fit_seconds=seconds,
        memory_gigabytes=torch.cuda.max_memory_allocated() / 1e9 if context.on_gpu else None,
    )


def probabilities(checkpoint: Path, device: str) -> Any:
    """Return the class probabilities of a few samples on a device."""
    model = robusttune.load(checkpoint, device=device)
    generator = np.random.default_rng(0)
    images = [Image.fromarray(generator.integers(0, 256, (64, 64, 3), dtype=np.uint8)) for _ in TEXTS]
    return model.predict_proba(images=images, texts=TEXTS)
