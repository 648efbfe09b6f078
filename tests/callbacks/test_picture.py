"""The picture of samples that a test leaves."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from fakes import tiny_image_encoder, tiny_text_encoder, write_image, write_table

from robusttune.callbacks.picture import cards_of, chosen_predictions
from robusttune.corruption.conditions import Conditions
from robusttune.data import ImageTextDataModule
from robusttune.data.sources import Table
from robusttune.evaluation import ConditionMetrics
from robusttune.evaluation.cards import Card


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


def cards(data: ImageTextDataModule, ids: list[str], logits: torch.Tensor) -> list[Card]:
    """The cards of samples with the same logits (N, C) under each condition, the highest first class under the last."""
    stacked = torch.stack([logits] * 3)
    stacked[-1, :, 0] = 9.0
    metrics = ConditionMetrics(data.facts, Conditions())
    label = torch.zeros(logits.shape if data.facts.multilabel else len(ids), dtype=torch.int64)
    metrics.update(ids, label, torch.ones(len(ids), 2, dtype=torch.bool), stacked)
    return cards_of(data, chosen_predictions(data, metrics))


def test_answers_belong_to_their_samples(tmp_path: Path, text_folder: Path) -> None:
    """Scores come in the order of ids as texts, in which 10 stands before 2."""
    labels = [["abc"[i % 3]] for i in range(30)]
    data, ids = make(tmp_path, text_folder, labels), sorted(map(str, range(30)))
    right = torch.nn.functional.one_hot(torch.tensor(["abc".index(labels[int(i)][0]) for i in ids]), 3) * 5.0
    found = cards(data, ids, right)
    assert len(found) == 12
    for card in found:
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
    found = cards(data, ["0", "1", "2"], torch.tensor([[1.0, 2.0, -3.0], [-1, -1, -1], [-1, 2, -1]]))
    assert [card.predictions[0].predicted for card in found] == ["b, a", "none", "b"]
    assert [card.predictions[0].right for card in found] == [True, False, True]
    assert found[0].label == "a, b"


def test_few_or_unreadable_samples(tmp_path: Path, text_folder: Path) -> None:
    data = make(tmp_path, text_folder, [["a"], ["b"]])
    (tmp_path / "0.png").write_bytes(b"broken")
    assert [(card.image, card.text) for card in cards(data, ["0"], torch.zeros(1, 2))] == [(None, "text 0")]
    assert cards(data, [], torch.zeros(0, 2)) == []
