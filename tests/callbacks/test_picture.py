"""The picture of samples that a test leaves."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from fakes import tiny_image_encoder, tiny_text_encoder, write_image, write_table

from robusttune.callbacks.picture import cards_of
from robusttune.corruption.conditions import Conditions
from robusttune.data import ImageTextDataModule
from robusttune.data.sources import Table
from robusttune.evaluation import ConditionMetrics, Scores


def make(folder: Path, text_folder: Path, labels: list[list[str]], multilabel: bool = False) -> ImageTextDataModule:
    rows = [
        {"id": str(i), "image": f"{i}.png", "text": f"text {i}", "label": label if multilabel else label[0]}
        for i, label in enumerate(labels)
    ]
    for i in range(len(rows)):
        write_image(folder / f"{i}.png", size=(i + 1, 1))
    table = str(write_table(folder, "test", rows))
    source = Table(train=table, val=table, test=table, id_column="id", multilabel=multilabel)
    data = ImageTextDataModule(source, tiny_image_encoder(), tiny_text_encoder(text_folder), unreadable="absent")
    data.setup("test")
    return data


def scores(ids: list[str], logits: torch.Tensor) -> Scores:
    """The same logits (N, C) under each condition, the highest first class under the last."""
    stacked = torch.stack([logits] * 3)
    stacked[-1, :, 0] = 9.0
    present = torch.ones(len(ids), 2, dtype=torch.bool)
    return Scores(ids, torch.zeros(len(ids), dtype=torch.int64), present, logits=stacked, unknown=stacked)


def test_answers_belong_to_their_samples(tmp_path: Path, text_folder: Path) -> None:
    """Scores come in the order of ids as texts, in which 10 stands before 2."""
    labels = [["abc"[i % 3]] for i in range(30)]
    data, ids = make(tmp_path, text_folder, labels), sorted(map(str, range(30)))
    right = torch.nn.functional.one_hot(torch.tensor(["abc".index(labels[int(i)][0]) for i in ids]), 3) * 5.0
    cards = cards_of(data, ConditionMetrics(data.facts, Conditions()), scores(ids, right))
    assert len(cards) == 12
    for card in cards:
        number = int((card.text or "").split()[1])
        assert card.image is not None
        assert card.image.size == (number + 1, 1)
        assert card.label == labels[number][0]
        assert [prediction.condition for prediction in card.predictions] == Conditions().names
        assert card.predictions[0].right
        assert card.predictions[0].predicted == card.label
        assert card.predictions[-1].right == (card.label == "a")
        assert card.predictions[-1].probability == pytest.approx(1, abs=0.05)


def test_several_labels(tmp_path: Path, text_folder: Path) -> None:
    data = make(tmp_path, text_folder, [["a", "b"], ["c"], ["b"]], multilabel=True)
    cards = cards_of(
        data,
        ConditionMetrics(data.facts, Conditions()),
        scores(["0", "1", "2"], torch.tensor([[1.0, 2.0, -3.0], [-1, -1, -1], [-1, 2, -1]])),
    )
    assert [card.predictions[0].predicted for card in cards] == ["b, a", "none", "b"]
    assert [card.predictions[0].right for card in cards] == [True, False, True]
    assert cards[0].label == "a, b"


def test_few_or_unreadable_samples(tmp_path: Path, text_folder: Path) -> None:
    data = make(tmp_path, text_folder, [["a"], ["b"]])
    (tmp_path / "0.png").write_bytes(b"broken")
    cards = cards_of(data, ConditionMetrics(data.facts, Conditions()), scores(["0"], torch.zeros(1, 2)))
    assert [(card.image, card.text) for card in cards] == [(None, "text 0")]
    assert cards_of(data, ConditionMetrics(data.facts, Conditions()), scores([], torch.zeros(0, 2))) == []
