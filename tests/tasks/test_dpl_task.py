"""The losses of a task with prototypes: margins, smoothed labels, class weights, every pattern, several labels."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from fakes import FACTS, random_batch
from lightning.pytorch import Trainer
from plain_dcp import plain_margin
from torch import Tensor
from torch.nn import functional
from torch.optim import SGD

from robusttune.encoders import CLIPImageEncoder, CLIPTextEncoder
from robusttune.models import DPL, Balance, Prototypes
from robusttune.tasks import FusionTask, Schedule
from robusttune.types import View

MARGINS = {"arc_m": 0.1, "arc_m_tm": 0.2, "arc_m_im": 0.3, "arc_s": 32.0, "arc_s_tm": 16.0, "arc_s_im": 8.0}
HEAD = Prototypes(scale=(32.0, 16.0, 8.0), margin=(0.1, 0.2, 0.3), contrast=0.5)


def task_of(clip_folder: Path, multilabel: bool = False, **settings: Any) -> FusionTask:
    clip: dict[str, Any] = {"name": str(clip_folder), "first_layer": 5}
    facts = FACTS._replace(multilabel=multilabel)
    task = FusionTask(CLIPImageEncoder(**clip), CLIPTextEncoder(**clip), facts, DPL(HEAD), beta=0.0, **settings)
    task.trainer = Trainer(logger=False, enable_checkpointing=False, accelerator="cpu", log_every_n_steps=1)
    return task


def margins(task: FusionTask, batch: Any, images: Tensor, texts: Tensor) -> Tensor:
    """Scaled cosines with margins, one number after the other; rows without input keep the log of the frequencies."""
    logits = task.classifier.network(*task.classifier.encode(batch), images, texts).logits
    hot = functional.one_hot(batch.label, 3) if batch.label.dim() == 1 else batch.label
    missing = torch.where(images & ~texts, 1, torch.where(texts & ~images, 2, 0))
    known = (images | texts).unsqueeze(1)
    return torch.where(known, plain_margin(torch.where(known, logits, 0.0), hot, missing, MARGINS), logits)


@pytest.mark.parametrize("weighted", [False, True])
def test_margins_with_smoothed_labels_and_class_weights(clip_folder: Path, weighted: bool) -> None:
    """The margin belongs to the label itself, and the smoothed target to the loss, as torch has it."""
    task = task_of(clip_folder, label_smoothing=0.1, balance=Balance("inverse" if weighted else None))
    batch = random_batch(8)
    assert batch.label is not None
    parts = task.training_losses(batch, 0)
    weights = task.balanced_loss.class_weights if weighted else None
    logits = margins(task, batch, batch.image_present, batch.text_present)
    expected = functional.cross_entropy(logits, batch.label, weights, label_smoothing=0.1)
    assert parts.parts["task_loss"].item() == pytest.approx(expected.item(), rel=1e-5)
    contrast = task.classifier.network.extra_losses()["contrastive_loss"]
    assert parts.loss.item() == pytest.approx((expected + contrast).item(), rel=1e-5)
    assert parts.parts["contrastive_loss"].item() == contrast.item() > 0


def test_every_pattern_has_the_margin_of_its_modalities(clip_folder: Path) -> None:
    task = task_of(clip_folder, multilabel=True, every_pattern=True)
    batch = random_batch(8, multilabel=True)
    assert batch.label is not None
    on, off = batch.image_present, torch.zeros(8, dtype=torch.bool)
    pairs = batch.image_present & batch.text_present
    losses = [
        functional.binary_cross_entropy_with_logits(margins(task, batch, *shown), batch.label, reduction="none").mean(1)
        for shown in ((on, batch.text_present), (pairs, off), (off, pairs))
    ]
    expected = torch.where(pairs, losses[0] / 2 + losses[1] / 4 + losses[2] / 4, losses[0]).mean()
    found = task.training_losses(batch, 0)
    assert found.parts["task_loss"].item() == pytest.approx(expected.item(), rel=1e-5)


def test_metrics_see_the_cosines(clip_folder: Path) -> None:
    """So that a threshold of 0.5 is a cosine of 0."""
    task = task_of(clip_folder, multilabel=True, threshold=0.5)
    batch = random_batch(8, multilabel=True)
    logits = task.metric_logits(batch, [View()])[0]
    known = batch.image_present | batch.text_present
    assert logits[0][known].abs().max() <= 1
    assert task.classifier.cuts is not None
    assert not task.classifier.cuts.any()


@pytest.mark.parametrize("decay_biases", [True, False])
def test_weight_decay_of_biases(clip_folder: Path, monkeypatch: pytest.MonkeyPatch, decay_biases: bool) -> None:
    """With gradients of zero, a step of SGD shrinks what decays."""
    monkeypatch.setattr(Trainer, "estimated_stepping_batches", 10)
    optimizer = partial(SGD, lr=0.5, weight_decay=0.5)
    task = task_of(clip_folder, decay_biases=decay_biases, optimizer=optimizer, schedule=Schedule(warmup=0.0))
    made: Any = task.configure_optimizers()
    trained = {name: p for name, p in task.named_parameters() if p.requires_grad}
    for parameter in trained.values():
        parameter.data.fill_(1.0)
        parameter.grad = torch.zeros_like(parameter)
    made["optimizer"].step()
    shrunk = {name for name, parameter in trained.items() if parameter.max() == 0.75}
    assert trained.keys() - shrunk == (set() if decay_biases else {name for name in trained if "bias" in name})
    assert len(trained) == 6
