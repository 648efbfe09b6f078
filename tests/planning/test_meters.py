"""What is made of measured times, and when measuring ends."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from fakes import random_batch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader

from robusttune.planning import meters
from robusttune.planning.inspection import STEPS, Inspection
from robusttune.planning.meters import BatchTimes, StepMeter
from robusttune.planning.timing import loading

QUIET: dict[str, Any] = dict.fromkeys(
    ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False
)


class Tiny(LightningModule):
    """One layer."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 2)
        self.seen = 0

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        return batch

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        self.seen += 1
        return self.layer(batch).sum()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def measured(steps: int, rows: int = 40, workers: int = 0, **trainer: Any) -> tuple[Tiny, StepMeter]:
    task, meter = Tiny(), StepMeter(steps)
    loader: Any = DataLoader(torch.randn(rows, 8), batch_size=4, num_workers=workers)  # type: ignore[arg-type]
    Trainer(accelerator="cpu", max_epochs=1000, callbacks=[meter], **QUIET, **trainer).fit(task, loader)
    return task, meter


def test_warm_up_and_what_is_asked_for() -> None:
    """Steps that begin an epoch are not among them."""
    task, meter = measured(steps=12)
    assert len(meter.times.working) == len(meter.times.waiting) == 12
    assert task.seen == STEPS + meters.WARM_UP + 12 + 1


def test_where_an_epoch_has_one_batch_only_that_is_measured() -> None:
    _, meter = measured(steps=5, rows=4)
    assert len(meter.times.working) == 5


def test_slow_steps_are_few_but_some(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meters, "SECONDS", 0.0)
    assert len(measured(steps=1000)[1].times.working) == meters.LEAST


def test_a_step_of_the_optimiser_is_among_them() -> None:
    task, _ = measured(steps=1, rows=400, accumulate_grad_batches=30)
    assert task.seen == 30


def test_all_workers_have_their_turns() -> None:
    task, meter = measured(steps=5, rows=400, workers=2)
    assert len(meter.times.working) == 6
    assert task.seen == STEPS + 4 + 6  # what they have ready is used up first


def test_waiting_is_the_mean_and_working_the_median() -> None:
    """Two workers that hand over two batches at a time: every second one is there at once."""
    times = BatchTimes()
    times.waiting, times.working = [2.0, 0.0, 2.0, 0.0], [1.0, 1.0, 1.0, 9.0]
    assert times.wait == 1.0
    assert times.work == 1.0
    assert times.quartiles == (2.5, 4.5)  # of 3, 1, 3 and 9


def test_a_loader_without_workers_has_no_time_of_its_own() -> None:
    assert loading(DataLoader(torch.randn(8, 8), batch_size=4)) is None  # type: ignore[arg-type]
    seconds = loading(DataLoader(torch.randn(8, 8), batch_size=4, num_workers=1))  # type: ignore[arg-type]
    assert seconds is not None
    assert seconds > 0


def test_counting_leaves_nothing_behind_when_a_step_fails() -> None:
    class Failing(Tiny):
        def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
            raise ValueError("no")

    loader = DataLoader([0, 1], collate_fn=lambda _: random_batch())  # type: ignore[arg-type, var-annotated]
    with pytest.raises(ValueError, match="no"):
        Trainer(accelerator="cpu", max_epochs=1, callbacks=[Inspection()], **QUIET).fit(Failing(), loader)
    assert not torch.utils._python_dispatch._get_current_dispatch_mode_stack()
