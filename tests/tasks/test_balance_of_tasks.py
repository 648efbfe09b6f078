"""Settings for imbalanced classes in the tasks: losses, predictions, refusals and notes."""

from __future__ import annotations

import logging
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from fakes import FACTS, random_batch, tiny_image_encoder, tiny_text_encoder
from lightning.pytorch import Trainer
from torch import Tensor
from torch.nn import functional

from robusttune.data import TrainingSettings
from robusttune.encoders import CLIPImageEncoder, CLIPTextEncoder
from robusttune.errors import RobustTuneError
from robusttune.models import MMRL, Balance, Concatenation
from robusttune.tasks import FusionTask, MMRLTask, RobustTask, ZeroShotTask
from robusttune.types import Facts, View

WEIGHTS = 1 / torch.tensor(FACTS.class_frequencies)
PRIOR = torch.tensor(FACTS.class_frequencies).log()
DISHES = Facts(["apple", "pie", "soup"], [0.5, 0.3, 0.2], False, 10)


def trained_by(task: RobustTask, **data: Any) -> RobustTask:
    trainer = Trainer(logger=False, enable_checkpointing=False, accelerator="cpu", log_every_n_steps=1)
    trainer.datamodule = SimpleNamespace(**data)  # type: ignore[attr-defined]
    task.trainer = trainer
    return task


def fusion_task(text_folder: Path, facts: Facts = FACTS, **changes: Any) -> FusionTask:
    torch.manual_seed(0)
    encoders = tiny_image_encoder(), tiny_text_encoder(text_folder)
    task = FusionTask(*encoders, facts, Concatenation(width=8), beta=0.0, **changes)
    return cast("FusionTask", trained_by(task).eval())


def clip_task(kind: Any, clip_folder: Path, **changes: Any) -> Any:
    torch.manual_seed(0)
    clip: dict[str, Any] = {"name": str(clip_folder), "first_layer": 3}
    return kind(CLIPImageEncoder(**clip), CLIPTextEncoder(**clip), DISHES, templates=["{}"], **changes)


@pytest.mark.parametrize("every_pattern", [False, True])
def test_fusion_has_the_weighted_mean(text_folder: Path, every_pattern: bool) -> None:
    """Whichever patterns a sample is trained in, it counts as much as its class."""
    balance, smoothing = Balance("inverse"), 0.1
    task = fusion_task(text_folder, balance=balance, every_pattern=every_pattern, label_smoothing=smoothing)
    batch = random_batch(8)
    batch.counted = torch.arange(8) < 7
    label = batch.label
    assert label is not None

    def losses(logits: Tensor, label: Tensor = label) -> Tensor:
        return functional.cross_entropy(logits, label, WEIGHTS, label_smoothing=smoothing, reduction="none")

    whole, image, text = map(losses, task.classifier.logits(batch, [View(), View(text=None), View(image=None)]))
    both = batch.image_present & batch.text_present
    values = torch.where(both, whole / 2 + image / 4 + text / 4, whole) if every_pattern else whole
    expected = values[:7].sum() / WEIGHTS[label[:7]].sum()
    torch.testing.assert_close(task.training_losses(batch, 0).parts["task_loss"], expected)


def test_mmrl_balances_every_cross_entropy(clip_folder: Path) -> None:
    facts = torch.tensor(DISHES.class_frequencies)
    task = trained_by(clip_task(MMRLTask, clip_folder, adapter=MMRL(2, 8), balance=Balance("inverse")))
    batch = random_batch(8)
    batch.texts.inputs.input_ids.clamp_(max=9)  # type: ignore[union-attr]
    batch.texts.inputs.input_ids[:, -1] = 1  # type: ignore[union-attr]
    batch.texts.inputs.attention_mask[:] = True  # type: ignore[union-attr]
    found = task.training_losses(batch, 0).parts
    classifier: Any = task.classifier
    adapted = classifier.adapted()
    images = classifier.image_logits(batch, ["clean"], adapted, untouched=True)["clean"]
    texts = classifier.text_logits(batch, ["clean"], adapted)["clean"]
    assert batch.label is not None
    rows = batch.image_present
    by_class, by_representation = (
        functional.cross_entropy(logits[rows], batch.label[rows], 1 / facts) for logits in images[:2]
    )
    torch.testing.assert_close(found["task_loss"], 0.7 * by_class + 0.3 * by_representation)
    rows = batch.text_present
    torch.testing.assert_close(found["text_loss"], functional.cross_entropy(texts[rows], batch.label[rows], 1 / facts))


def test_post_hoc_adjusts_predictions_and_metrics_before_temperatures(text_folder: Path) -> None:
    plain, adjusted = fusion_task(text_folder), fusion_task(text_folder, balance=Balance(post_hoc=0.5))
    adjusted.load_state_dict(plain.state_dict())
    batch = random_batch(8)
    logits = plain.classifier.logits(batch, [View()])[0]
    for task in (plain, adjusted):
        task.classifier.temperatures.values[:3] = 2.0
    both = batch.image_present & batch.text_present
    expected = ((logits - 0.5 * PRIOR) / 2).softmax(1)[both]
    torch.testing.assert_close(adjusted.classifier.probabilities(batch)[0][both], expected)
    torch.testing.assert_close(plain.classifier.probabilities(batch)[0][both], (logits / 2).softmax(1)[both])
    with torch.no_grad():
        adjusted.validation_step(batch, 0)
    adjusted.metrics.compute()
    shown = next(adjusted.metrics.blocks(0))
    torch.testing.assert_close(shown.logits.softmax(1)[both], expected)
    assert torch.equal(adjusted.training_losses(batch, 0).loss, plain.training_losses(batch, 0).loss)


def test_new_classes_keep_their_logits(clip_folder: Path) -> None:
    task = clip_task(ZeroShotTask, clip_folder, balance=Balance(post_hoc=1.0))
    task.set_classes(["cake", "soup", "apple"])
    found = task.classifier.adjusted(torch.zeros(1, 1, 3))[0, 0]
    assert found.tolist() == pytest.approx([0, -math.log(0.6), -math.log(1.5)])


def test_zero_shot_has_no_loss_to_balance(clip_folder: Path) -> None:
    with pytest.raises(
        RobustTuneError, match="nothing is trained, so model.balance has no loss .*: set post_hoc alone"
    ):
        clip_task(ZeroShotTask, clip_folder, balance=Balance("inverse"))


def test_post_hoc_needs_samples_of_every_class(text_folder: Path) -> None:
    facts = FACTS._replace(class_frequencies=[0.5, 0.5, 0.0])
    with pytest.raises(RobustTuneError, match="post_hoc does not work: 1 class has no training sample, .* 'c': add"):
        fusion_task(text_folder, facts, balance=Balance(post_hoc=1.0))


@pytest.mark.parametrize("balance", [Balance("inverse"), Balance(logit_adjustment=1.0), Balance(post_hoc=1.0)])
def test_frequencies_are_corrected_once(text_folder: Path, balance: Balance) -> None:
    task = trained_by(fusion_task(text_folder, balance=balance), training=TrainingSettings(balance="square_root"))
    with pytest.raises(RobustTuneError, match=r"^data.training.balance and model.balance.\w+ would correct .* twice"):
        task.setup("fit")
    task.setup("test")
    trained_by(
        fusion_task(text_folder, balance=Balance(focal=1.0)), training=TrainingSettings(balance="balanced")
    ).setup("fit")


@pytest.mark.parametrize(
    ("facts", "balance", "sampling", "noted"),
    [
        (Facts(["a", "b"], [0.91, 0.09], False, 100), Balance(), None, True),
        (Facts(["a", "b"], [0.9, 0.1], False, 100), Balance(focal=1.0), None, False),
        (Facts(["a", "b"], [0.91, 0.09], False, 100), Balance(), "balanced", False),
        (Facts(["a", "b"], [0.8, 0.2], False, 100), Balance(), None, False),
        (Facts(["a", "b"], [0.91, 0.09], False), Balance(), None, False),
    ],
)
def test_a_fit_notes_imbalance_that_nothing_corrects(
    facts: Facts, balance: Balance, sampling: Any, noted: bool, text_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    task = trained_by(fusion_task(text_folder, facts, balance=balance), training=TrainingSettings(balance=sampling))
    with caplog.at_level(logging.INFO):
        task.on_fit_start()
    assert ("from 91 samples of 'a' to 9 samples of 'b': try data.training.balance" in caplog.text) == noted
