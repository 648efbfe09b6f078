"""MMRL compiled or checkpointed is MMRL: losses, gradients, logits; checkpointed it keeps less."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from fakes import VIEWS, random_batch
from lightning.pytorch import Trainer
from running import LONG, bytes_kept, compiling_with
from torch import Tensor
from torch._dynamo.utils import counters

from robusttune.encoders import CLIPImageEncoder, CLIPTextEncoder
from robusttune.models import MMRL
from robusttune.tasks import MMRLTask
from robusttune.types import Batch, Facts, Tokens, Variants

FACTS = Facts(["apple", "pie", "soup"], [0.5, 0.3, 0.2], False)
SMALL = MMRL(space_tokens=2, space_width=8)
PLUS_PLUS = MMRL(space_tokens=2, space_width=8, beta=0.6, residual_rank=2, projection_rank=2)


@pytest.fixture(params=LONG)
def compiler(request: pytest.FixtureRequest) -> Iterator[None]:
    with compiling_with(request.param):
        yield


def make_task(clip_folder: Path, adapter: MMRL = SMALL, **settings: Any) -> MMRLTask:
    torch.manual_seed(0)
    image = CLIPImageEncoder(name=str(clip_folder), first_layer=2)
    text = CLIPTextEncoder(name=str(clip_folder), first_layer=2)
    task = MMRLTask(image, text, FACTS, adapter, templates=["a photo of {}"], **settings)
    with torch.no_grad():
        task.classifier.network.space.mul_(20)
    task.trainer = Trainer(logger=False, enable_checkpointing=False, accelerator="cpu")
    return task


def make_batch(size: int) -> Batch:
    """Rows as of `random_batch`, with texts that the tiny CLIP knows."""
    torch.manual_seed(size)
    batch = random_batch(size)
    count, place = len(batch.texts), torch.arange(9)
    lengths, ids = torch.randint(1, 7, (count, 1)), torch.randint(2, 10, (count, 9))
    ids[:, 0], ids[place == lengths + 1] = 0, 1
    batch.texts = Variants(["clean"], Tokens(ids, place <= lengths + 1))
    return batch


def step(task: MMRLTask, batch: Batch) -> tuple[Tensor, list[Tensor]]:
    task.zero_grad()
    loss = task.training_losses(batch, 0).loss
    loss.backward()
    gradients = [parameter.grad for parameter in task.classifier.network.parameters()]
    assert None not in gradients
    return loss.detach(), gradients  # type: ignore[return-value]


@pytest.mark.parametrize("adapter", [SMALL, PLUS_PLUS])
def test_checkpointing_changes_no_bit_and_keeps_less(clip_folder: Path, adapter: MMRL) -> None:
    plain, checkpointed = (
        make_task(clip_folder, adapter),
        make_task(clip_folder, adapter, checkpoint_activations=True),
    )
    (loss, gradients), (same_loss, same_gradients) = step(plain, make_batch(8)), step(checkpointed, make_batch(8))
    assert torch.equal(loss, same_loss)
    for gradient, same in zip(gradients, same_gradients, strict=True):
        assert torch.equal(gradient, same)
    batch = make_batch(24)
    kept = [
        bytes_kept(task.classifier.network, lambda task=task: task.training_losses(batch, 0).loss)  # type: ignore[misc]
        for task in (plain, checkpointed)
    ]
    assert kept[1] * 2.5 < kept[0]


@pytest.mark.exhaustive  # fusion networks, which are compiled in the same way, are compared in every run
@pytest.mark.usefixtures("compiler")
@pytest.mark.parametrize(("adapter", "checkpointed"), [(SMALL, False), (PLUS_PLUS, True)])
def test_compiled_is_eager(clip_folder: Path, adapter: MMRL, checkpointed: bool) -> None:
    """In a step, and in evaluation, batch after batch of other sizes."""
    eager = make_task(clip_folder, adapter)
    compiled = make_task(clip_folder, adapter, compile=True, checkpoint_activations=checkpointed)
    for size in (8, 11):
        (loss, gradients), (found, found_gradients) = (step(task, make_batch(size)) for task in (eager, compiled))
        torch.testing.assert_close(found, loss, rtol=1e-5, atol=1e-5)
        for gradient, same in zip(gradients, found_gradients, strict=True):
            torch.testing.assert_close(same, gradient, rtol=1e-3, atol=1e-5)
    trained = counters["stats"]["unique_graphs"]
    step(compiled, make_batch(15))
    assert counters["stats"]["unique_graphs"] == trained
    with torch.inference_mode():
        logits = [task.eval().classifier.logits(make_batch(9), list(VIEWS.values())) for task in (eager, compiled)]
    torch.testing.assert_close(logits[1], logits[0], rtol=1e-4, atol=1e-4)
    assert list(eager.state_dict()) == list(compiled.state_dict())
