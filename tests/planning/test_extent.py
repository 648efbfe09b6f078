"""How much a training does, against what a Trainer does."""

from __future__ import annotations

from pathlib import Path

import pytest
from fakes import grouped, tiny_image_encoder, tiny_text_encoder

from robusttune.data import ImageTextDataModule
from robusttune.data.sources import Food101
from robusttune.planning import Extent


class World:
    """As much of a Trainer as a loader asks for."""

    class strategy:  # noqa: N801
        class root_device:  # noqa: N801
            type = "cpu"

    def __init__(self, world_size: int) -> None:
        self.world_size = self.num_devices = world_size
        self.global_rank = world_size - 1


@pytest.mark.parametrize("world_size", [1, 2, 3, 8])
@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_batches_are_those_of_the_loaders(food101: Path, text_folder: Path, world_size: int, batch_size: int) -> None:
    data = ImageTextDataModule(
        Food101(str(food101)), tiny_image_encoder(), tiny_text_encoder(text_folder), batch_size, **grouped(workers=0)
    )
    data.trainer = World(world_size)  # type: ignore[assignment]
    data.setup("fit")
    extent = Extent(devices=1, nodes=world_size)
    for split, loader, batches in (
        ("train", data.train_dataloader(), extent.train_batches),
        ("val", data.val_dataloader(), extent.val_batches),
    ):
        rows = len(data.records(split))  # type: ignore[arg-type]
        assert batches(rows, batch_size) == len(loader)
    assert Extent(devices=world_size).train_batches(100, batch_size) == extent.train_batches(100, batch_size)


def test_limits_are_a_number_or_a_share() -> None:
    assert Extent(limit_train=3).train_batches(100, 10) == 3
    assert Extent(limit_train=30).train_batches(100, 10) == 10
    assert Extent(limit_val=0.5).val_batches(100, 10) == 5
    assert Extent(limit_val=0).val_batches(100, 10) == 0


@pytest.mark.parametrize(
    ("extent", "epochs"),
    [
        (Extent(), 1000),
        (Extent(max_epochs=6), 6),
        (Extent(max_steps=25), 2.5),
        (Extent(max_epochs=2, max_steps=25), 2),
        (Extent(max_epochs=-1, max_steps=25), 2.5),
        (Extent(max_steps=25, accumulate=2), 5),
    ],
)
def test_epochs_end_with_whatever_comes_first(extent: Extent, epochs: float) -> None:
    assert extent.epochs(train_batches=10) == epochs


@pytest.mark.parametrize(
    ("extent", "validations"),
    [
        (Extent(max_epochs=6), 6),
        (Extent(max_epochs=6, validate_every=3), 2),
        (Extent(max_epochs=6, check_interval=0.25), 30),
        (Extent(max_epochs=6, check_interval=5), 12),
        (Extent(max_epochs=200), 50),  # short epochs
        (Extent(max_epochs=200, check_interval=10), 200),
        (Extent(max_epochs=-1, max_steps=2000, accumulate=5), 100),
    ],
)
def test_validations_are_as_often_as_they_are_asked_for(extent: Extent, validations: float) -> None:
    assert extent.validations(train_batches=10) == validations
