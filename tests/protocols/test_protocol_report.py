"""The report on a protocol, from the folders of its runs to its files."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from report.made_up import shares, write_run

from robusttune.errors import RobustTuneError
from robusttune.protocols.matrix import Overlay, PlannedRun, PlannedTest, Protocol
from robusttune.protocols.report import report_on
from robusttune.protocols.results import collect
from robusttune.protocols.state import Progress, RunState, Step
from robusttune.report import Document, write
from robusttune.report.tables import Table

TEST = (PlannedTest("test", "last", {}, Overlay()),)


def state(labels: Mapping[str, str], folder: Path | None, step: Step | None = None) -> RunState:
    """A run of one test; without a step both fit and test are done."""
    fit = Step(Progress.DONE) if step is None else step
    test = fit if step is None else Step(Progress.NOT_STARTED)
    return RunState(PlannedRun(dict(labels), Overlay(), TEST), "0" * 64, folder, fit, (test,))


def protocol(summary: str, title: str = "A <i>protocol</i>") -> Protocol:
    return Protocol(name="p", path=Path("p.yaml"), title=title, summary=summary, axes={})


@pytest.fixture(scope="module")
def right() -> dict[tuple[str, str], NDArray[np.bool_]]:
    """Correct predictions by method and seed; the better method is right on more of the same samples."""
    return {
        (method, seed): shares(400, int(seed), complete=share)["complete"]
        for method, share in (("plain", 0.6), ("better", 0.7))
        for seed in ("1", "2")
    }


@pytest.fixture(scope="module")
def states(tmp_path_factory: pytest.TempPathFactory, right: dict[tuple[str, str], NDArray[np.bool_]]) -> list[RunState]:
    """Two methods on two data sets; one run has failed, and the data of the second data set are missing."""
    root = tmp_path_factory.mktemp("runs")
    found = []
    for (method, seed), correct in right.items():
        labels = {"dataset": "flowers", "method": method, "shots": "4", "seed": seed}
        hidden = {"complete": correct, "no_image": correct}  # the summary is of complete samples
        folder = write_run(root / method / seed, method, hidden, seed=int(seed))
        found.append(state(labels, folder))
    labels = {"dataset": "flowers", "method": "better", "shots": "16", "seed": "1"}
    found.append(state(labels, root, Step(Progress.FAILED, "the weights have diverged: lower <lr>")))
    labels = {"dataset": "cars", "method": "plain", "shots": "4", "seed": "1"}
    found.append(state(labels, None, Step(Progress.DATA_MISSING, "data/cars")))
    return found


@pytest.fixture(scope="module")
def document(states: list[RunState]) -> Document:
    return report_on(protocol("few_shot"), collect(states), states)


def difference_table(document: Document) -> Table:
    return next(table for table in document.tables if table.title.startswith("Difference to "))


def test_paired_differences(document: Document, right: dict[tuple[str, str], NDArray[np.bool_]]) -> None:
    table = difference_table(document)
    assert (table.title, table.columns) == ("Difference to plain", ["better (2 pairs)"])
    ((name, (cell,)),) = table.groups[0].rows
    assert (table.groups[0].heading, name) == ("flowers, shots 4", "accuracy")
    mean, low, high = (float(part) for part in cell.text.replace("[", "").replace("]", "").replace(",", "").split())
    pairs = [right["better", seed].astype(float) - right["plain", seed] for seed in ("1", "2")]
    assert mean == pytest.approx(100 * np.mean(pairs), abs=0.006)
    # The same samples are drawn for both seeds: the interval is that of the mean difference of each sample.
    of_sample = np.mean(pairs, 0)
    drawn = np.random.default_rng(0).integers(400, size=(4000, 400))
    expected = 100 * np.quantile(of_sample[drawn].mean(1), [0.025, 0.975])
    assert [low, high] == pytest.approx(expected.tolist(), abs=0.5)
    assert cell.strong


def test_the_baseline_can_be_chosen(states: list[RunState]) -> None:
    document = report_on(protocol("few_shot"), collect(states), states, baseline="better")
    assert difference_table(document).columns == ["plain (2 pairs)"]
    with pytest.raises(RobustTuneError, match="there is no method 'best' to compare with: choose from plain; better"):
        report_on(protocol("few_shot"), collect(states), states, baseline="best")


def test_a_method_without_seeds_is_paired_with_every_seed(
    tmp_path: Path, right: Mapping[Any, NDArray[np.bool_]]
) -> None:
    runs = {("zero-shot", "1"): right["plain", "1"], **{("MMRL", seed): right["better", seed] for seed in ("1", "2")}}
    states = [
        state(
            {"method": method, "seed": seed},
            write_run(tmp_path / method / seed, method, {"complete": correct}, seed=int(seed)),
        )
        for (method, seed), correct in runs.items()
    ]
    table = difference_table(report_on(protocol("conditions"), collect(states), states))
    assert table.columns == ["MMRL (2 pairs)"]
    expected = np.mean([right["better", seed].mean() for seed in ("1", "2")]) - right["plain", "1"].mean()
    assert table.groups[0].rows[0][1][0].text.startswith(f"{100 * expected:+.2f} [")
    # With masks that the seed of the data draws, only runs with the same seed are compared.
    masked = [
        state(
            {"method": method, "seed": seed},
            write_run(tmp_path / "masked" / method / seed, method, {"missing_image_50": correct}, seed=int(seed)),
        )
        for (method, seed), correct in runs.items()
    ]
    table = difference_table(report_on(protocol("conditions"), collect(masked), masked))
    assert table.columns == ["MMRL (1 pair)"]


def test_the_average_difference_over_data_sets(tmp_path: Path) -> None:
    correct = {
        (dataset, method): shares(size, seed, complete=share)["complete"]
        for seed, (dataset, size) in enumerate((("small", 100), ("large", 400)))
        for method, share in (("plain", 0.5), ("better", 0.6))
    }
    states = [
        state(
            {"dataset": dataset, "method": method, "seed": "1"},
            write_run(tmp_path / dataset / method, method, {"complete": right}),
        )
        for (dataset, method), right in correct.items()
    ]
    table = difference_table(report_on(protocol("conditions"), collect(states), states))
    assert [group.heading for group in table.groups] == ["small", "large", "average over 2 data sets"]
    cell = table.groups[-1].rows[0][1][0].text
    mean, low, high = (float(part) for part in cell.replace("[", "").replace("]", "").replace(",", "").split())
    parts = [correct[name, "better"].astype(float) - correct[name, "plain"] for name in ("small", "large")]
    assert mean == pytest.approx(100 * np.mean([part.mean() for part in parts]), abs=0.006)
    rng = np.random.default_rng(0)  # each data set is drawn for itself
    drawn = [part[rng.integers(len(part), size=(4000, len(part)))].mean(1) for part in parts]
    expected = 100 * np.quantile(np.mean(drawn, 0), [0.025, 0.975])
    assert [low, high] == pytest.approx(expected.tolist(), abs=0.6)


def test_other_samples_are_not_paired(tmp_path: Path) -> None:
    states = [
        state({"method": method, "seed": "1"}, write_run(tmp_path / method, method, shares(size, 0, complete=0.5)))
        for method, size in (("a", 50), ("b", 60))
    ]
    table = difference_table(report_on(protocol("conditions"), collect(states), states))
    assert table.columns == []
    assert "There is no paired interval for b: it was tested on other samples" in table.note


def test_runs_that_are_not_done_are_named_in_every_file(document: Document, tmp_path: Path) -> None:
    assert [(run.folder, run.reason) for run in document.left_out] == [
        ("flowers, better, shots 16 (seed 1)", "failed: the weights have diverged: lower <lr>"),
        ("cars, plain, shots 4 (seed 1)", "data missing: data/cars"),
    ]
    assert document.finding.startswith("4 of 6 tests are done (1 failed, 1 data missing). ")
    write(document, tmp_path)
    assert "failed: the weights have diverged: lower &lt;lr&gt;" in (tmp_path / "report.md").read_text()
    page = (tmp_path / "report.html").read_text()
    assert "failed: the weights have diverged: lower &lt;lr&gt;" in page
    assert "<h1>A &lt;i&gt;protocol&lt;/i&gt;</h1>" in page
    assert "<title>A &lt;i&gt;protocol&lt;/i&gt;</title>" in page
    assert (tmp_path / "report.md").read_text().startswith("# A &lt;i&gt;protocol&lt;/i&gt;\n")
    assert r"\begin{tabular}" in (tmp_path / "report.tex").read_text()


def test_the_csv_file_has_every_cell(
    document: Document, tmp_path: Path, right: Mapping[Any, NDArray[np.bool_]]
) -> None:
    write(document, tmp_path)
    with (tmp_path / "report.csv").open(newline="") as file:
        rows = {(row["method"], row["dataset"], row["condition"]): row for row in csv.DictReader(file)}
    row = rows["better", "flowers", "4 shots"]
    values = [100 * right["better", seed].mean() for seed in ("1", "2")]
    assert (float(row["mean"]), float(row["deviation"])) == pytest.approx((np.mean(values), np.std(values, ddof=1)))
    assert (row["metric"], row["seeds"], row["missing"], row["over"]) == ("accuracy", "2", "", "")
    assert rows["better", "flowers", "16 shots"]["missing"] == "0 of 1 seed"
