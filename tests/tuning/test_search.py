"""The search: how many trials, which are pruned, what is continued, and when it gives up. Fits are functions here."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from robusttune.errors import RobustTuneError
from robusttune.tuning import search
from robusttune.tuning.search import Search
from robusttune.tuning.space import Choices, Range, Space

SPACE: Space = {"x": Range(0.0, 1.0, False, None), "kind": Choices(("good", "bad"))}
Values = Callable[[float, str], Iterable[float]]


class FakeFit:
    """A fit whose values are a function of its flags."""

    values_of: Values
    started: list[tuple[float, str]]
    names: list[str]

    def __init__(self, args: list[str], root: Path, name: str, monitor: str) -> None:
        flags = dict(arg.removeprefix("--").split("=") for arg in args)
        self.given = float(flags["x"]), flags["kind"]
        self.started.append(self.given)
        self.names.append(name)
        self.folder = root / name / "0"

    def values(self) -> Iterator[float]:
        yield from type(self).values_of(*self.given)

    def stop(self) -> None:
        pass


@pytest.fixture(autouse=True)
def _fits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "TrialProcess", FakeFit)
    FakeFit.started, FakeFit.names = [], []
    FakeFit.values_of = lambda x, kind: [0.0, (kind == "good") - (x - 0.3) ** 2, 0.0]


def searching(folder: Path, monitor: str = "val/mean/accuracy", **others: Any) -> Search:
    return Search([], SPACE, monitor, folder, key="demo", **others)


def test_the_best_validation_decides(tmp_path: Path) -> None:
    found = searching(tmp_path)
    found.run(18)
    best, *rest = found.trials()
    assert best.params["kind"] == "good"
    assert best.params["x"] == pytest.approx(0.3, abs=0.1)
    assert best.value == max(trial.value or -9.0 for trial in [best, *rest])
    assert found.flags_of(best) == [f"--x={best.params['x']}", "--kind=good"]


def test_a_loss_is_minimised(tmp_path: Path) -> None:
    FakeFit.values_of = lambda x, kind: [1 + x, x]
    found = searching(tmp_path, "val/mean/loss")
    found.run(4)
    values = [trial.value for trial in found.trials()]
    assert values == sorted(x for x, _ in FakeFit.started)


def test_a_search_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    searching(tmp_path).run(3)
    searching(tmp_path).run(5)
    assert len({*FakeFit.started}) == 5  # no values are drawn twice
    searching(tmp_path).run(5)
    assert len(FakeFit.started) == 5
    assert "5 of 5" in capsys.readouterr().out
    Search([], SPACE, "val/mean/accuracy", tmp_path, key="other settings").run(1)
    assert FakeFit.started[5] == FakeFit.started[0]
    assert len({*FakeFit.names}) == 6  # and so the metrics of the first search's run are not taken for its own


def test_poor_trials_are_pruned(tmp_path: Path) -> None:
    seen = []

    def values(x: float, kind: str) -> Iterator[float]:
        late = len(FakeFit.started) > 6
        for epoch in range(4):
            seen.append((len(FakeFit.started), epoch))
            yield 0.1 if late else 0.5 + epoch / 10

    FakeFit.values_of = values
    found = searching(tmp_path)
    found.run(8)
    assert (6, 3) in seen
    assert (8, 3) not in seen
    assert len(found.trials()) == 6


def test_a_trial_of_a_killed_process_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Killed(BaseException):
        """The end of the process."""

    def killed(x: float, kind: str) -> list[float]:
        if len(FakeFit.started) == 2:
            raise Killed
        return [x]

    FakeFit.values_of = killed
    monkeypatch.setattr(os, "getpid", lambda: 2**22 + 1)  # above the largest number of a process
    with pytest.raises(Killed):
        searching(tmp_path).run(3)
    monkeypatch.undo()
    monkeypatch.setattr(search, "TrialProcess", FakeFit)
    searching(tmp_path).run(3)
    assert len(FakeFit.started) == 4
    assert FakeFit.started[2] == FakeFit.started[1]
    assert len(searching(tmp_path).trials()) == 3


def test_failed_trials(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def failing(x: float, kind: str) -> list[float]:
        if len(FakeFit.started) % 2:
            raise RobustTuneError("the width is odd: give an even one")
        return [x]

    FakeFit.values_of = failing
    found = searching(tmp_path)
    found.run(3)
    assert len(found.trials()) == 3
    assert capsys.readouterr().out.count("failed: the width is odd") == 3
    FakeFit.values_of = lambda x, kind: [float("nan")]
    with pytest.raises(RobustTuneError, match="the last 3 trials failed: val/mean/accuracy was never a finite number"):
        found.run(9)
    assert len(FakeFit.started) == 9


def test_a_database_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(RobustTuneError, match="the trials cannot be stored in nonsense://here"):
        searching(tmp_path, storage="nonsense://here").run(1)
