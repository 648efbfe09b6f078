"""Training from Python: the same run, checks and messages as on the command line."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest
from fakes import tiny_flags

import robusttune
from robusttune.commands.from_python import Run, fit
from robusttune.errors import RobustTuneError
from robusttune.settings import as_flags

CONFIG = Path(__file__).parents[2] / "configs" / "food101.yaml"


@pytest.fixture(scope="module")
def settings(food101: Path, text_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    flags = (flag.removeprefix("--").partition("=") for flag in tiny_flags(food101, text_folder))
    own = {"run_root": tmp_path_factory.mktemp("runs"), "trainer.precision": "32-true", "trainer.max_epochs": 2}
    return {name: value for name, _, value in flags} | own


@pytest.fixture(scope="module")
def handlers() -> list[Any]:
    return [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)]


@pytest.fixture(scope="module")
def run(settings: dict[str, Any], handlers: list[Any]) -> Run:
    del handlers  # They are those from before.
    return fit(CONFIG, settings)


def test_a_fit_is_a_run(run: Run, settings: dict[str, Any], handlers: list[Any]) -> None:
    assert run.folder == settings["run_root"] / "food101" / "0"
    assert (run.folder / "finished.json").is_file()
    after = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)]
    assert after == handlers


def test_its_metrics_are_those_of_the_best_checkpoint(run: Run) -> None:
    found = run.metrics.metrics
    assert {"complete", "no_image", "no_text", "mean"} == {*found}
    best = max(
        sum(float(row[f"val/{condition}/accuracy"]) for condition in found if condition != "mean") / 3
        for row in run._logged()
    )
    assert found["mean"]["accuracy"] == pytest.approx(best, abs=1e-6)


def test_it_is_tested_and_loaded(run: Run) -> None:
    found = run.test({"data.evaluation.conditions": ["complete", "no_text"]})
    reported = json.loads((run.folder / "report/test.json").read_text())
    assert found.metrics == reported["conditions"]
    assert [*found.metrics] == ["complete", "no_text", "mean"]
    low, high = found.intervals["complete"]["accuracy"]
    assert low <= found.metrics["complete"]["accuracy"] <= high
    assert len(run.load().classes) == 12
    before = {path: path.read_bytes() for path in (run.folder / "report").rglob("*") if path.is_file()}
    names = {path.name for path in (run.folder / "report").iterdir()}
    other = run.test({"data.evaluation.conditions": ["no_image"]}, report="no-image_2")
    assert [*other.metrics] == ["no_image", "mean"]
    assert {path: path.read_bytes() for path in before} == before  # each report has its own files
    assert {path.name for path in (run.folder / "report").iterdir()} - names == {
        f"no-image_2{ending}" for ending in (".json", ".csv", ".parquet", ".png", "_classes.csv")
    }


def test_a_finished_run_is_returned(run: Run, settings: dict[str, Any]) -> None:
    assert robusttune.fit(CONFIG, settings | {"resume": "auto"}) == run


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"trainer.epochs": 3}, "trainer.epochs is no setting"),
        ({"data.batch_size": 0}, "data.batch_size is 0"),
        ({"data.source.root": "/no/such/folder"}, "/no/such/folder"),
        ({"data.seed": object()}, "a value of the type object"),
    ],
    ids=["name", "range", "folder", "type"],
)
def test_wrong_settings(settings: dict[str, Any], changes: dict[str, Any], message: str) -> None:
    with pytest.raises(RobustTuneError, match=message):
        fit(CONFIG, settings | changes)
    with pytest.raises(RobustTuneError, match="did you mean food101"):
        fit("fod101")


def test_values_of_every_kind() -> None:
    given = {"a": 1.5, "b": None, "c": True, "d": {"x": [1, "two"]}, "e": Path("f/g"), "h": "text: with colon"}
    assert as_flags(given) == [
        "--a=1.5",
        "--b=null",
        "--c=true",
        '--d={"x": [1, "two"]}',
        "--e=f/g",
        "--h=text: with colon",
    ]
