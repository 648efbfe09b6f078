"""Numbers of things in messages."""

from __future__ import annotations

from robusttune.counting import counted


def test_singular_and_plural() -> None:
    assert [counted(number, "sample") for number in (0, 1, 2, 1024)] == [
        *("0 samples", "1 sample", "2 samples", "1,024 samples"),
    ]
    assert [counted(number, "epoch") for number in (1.0, 0.5, 20.0)] == ["1 epoch", "0.5 epochs", "20 epochs"]
    assert [counted(number, "class", "classes") for number in (1, 3)] == ["1 class", "3 classes"]
