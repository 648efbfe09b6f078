"""The search space: numbers, choices, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from robusttune.errors import RobustTuneError
from robusttune.tuning.space import Choices, Range, read_space


def space_file(folder: Path, text: str) -> Path:
    path = folder / "space.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_numbers_and_choices(tmp_path: Path) -> None:
    text = """
    lr: {low: 1e-4, high: 0.01, log: true}
    layers: {low: 1, high: 4}
    dropout: {low: 0, high: 1, step: 0.25}
    sizes: {choices: [[8, 16], null, auto, true]}
    """
    assert read_space(space_file(tmp_path, text)) == {
        "lr": Range(0.0001, 0.01, True, None),
        "layers": Range(1, 4, False, None),
        "dropout": Range(0.0, 1.0, False, 0.25),
        "sizes": Choices(("[8, 16]", "null", "auto", "true")),
    }


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "has no settings"),
        ("- lr", "has no settings"),
        ("lr: 0.1", "lr is 0.1: give {choices"),
        ("lr: {choices: []}", "has the keys choices"),
        ("lr: {choices: [1, 1]}", "has a choice twice"),
        ("lr: {low: 1}", "has the keys low"),
        ("lr: {low: 1, high: 2, lgo: true}", "has the keys low, high, lgo"),
        ("lr: {low: 2, high: 1}", "low 2 and high 1"),
        ("lr: {low: 0, high: 1, log: true}", "a low above 0"),
        ("lr: {low: 1, high: 2, log: yes please}", "give true or false"),
        ("lr: {low: 1, high: 2, step: 0}", "a number above 0"),
        ("lr: {low: small, high: 1}", "'small' where a number is needed"),
        ("lr: {low: 0, high: .inf}", "inf where a number is needed"),
        ("lr: {low: true, high: 2}", "True where a number is needed"),
        ("lr: [", "is not YAML"),
        ("{lr: {low: 1, high: 2}, lr: {low: 3, high: 4}}", "lr is given twice"),
    ],
)
def test_other_forms_are_refused(tmp_path: Path, text: str, sentence: str) -> None:
    with pytest.raises(RobustTuneError) as raised:
        read_space(space_file(tmp_path, text))
    assert sentence in str(raised.value)


def test_a_file_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(RobustTuneError, match="does not exist"):
        read_space(tmp_path / "space.yaml")
