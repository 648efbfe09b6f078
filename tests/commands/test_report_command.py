"""robusttune report, as a user runs it."""

from __future__ import annotations

from pathlib import Path

import pytest
from report.made_up import CONDITIONS, shares, write_run

from robusttune.cli import main

GOOD = shares(40, 0, **dict.fromkeys(CONDITIONS, 0.9))
BAD = shares(40, 0, **dict.fromkeys(CONDITIONS, 0.4))


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two models; the tests are where the runs are."""
    write_run(tmp_path / "runs/late/0", "late", BAD, {"model.x": 1})
    write_run(tmp_path / "runs/molt/0", "molt [bold]", GOOD)
    write_run(tmp_path / "runs/molt/1", "molt", {}, finished=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    return tmp_path


def error(args: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert main(["report", *args]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    return err.removeprefix("robusttune: error: ").strip()


def test_runs_are_compared(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", "runs"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "molt [bold] (1 seed)" in out
    stopped = "excluded: runs/molt/1: interrupted. Run robusttune fit --config runs/molt/1/config.yaml"
    assert stopped in out
    assert "\nmolt [bold] has the best mean accuracy over 3 conditions, 0." in out
    assert "against late (95 % interval over samples +0." in out
    assert {path.name for path in (runs / "report").iterdir()} == {
        *("report.html", "report.md", "report.csv", "report.tex", "plots")
    }


def test_baseline_metric_trend_and_folder_are_options(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for seed in (1, 2, 3):
        write_run(
            runs / f"runs/late/{seed}", "late", shares(40, 0, complete=0.2 * seed, no_text=0.1), {"model.x": 1}, seed
        )
    args = ["runs/late", "runs/molt", "--metric", "top5_accuracy", "--baseline", "molt [bold]", "--out", "a/b"]
    assert main(["report", *args, "--trend", "late"]) == 0
    assert "Top5 accuracy by condition" in capsys.readouterr().out
    text = (runs / "a/b/report.md").read_text()
    assert r"## Difference in top5 accuracy to molt \[bold\]" in text
    assert "## Effective robustness" in text


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        ([], "runs"),
        (["nowhere"], "nowhere is no folder: give the folder of a run, or one above some"),
        (["empty"], "empty holds no runs (folders with a config.yaml): give a folder that does"),
        (["runs", "--nonsense", "1"], "robusttune report --help lists the settings"),
        (["runs", "--baseline", "mlp"], "--baseline is 'mlp', and no model has this label: choose from late; molt"),
        (["runs", "--trend", "mlp"], "--trend is 'mlp', and no model has this label: choose from late; molt [bold]"),
        (["runs", "--trend", "late"], "--trend has 1 runs with different accuracy on complete samples"),
        (["runs", "--metric", "f2"], "there is no metric 'f2': choose from accuracy, top5_accuracy, auroc"),
        (["runs", "--out", "file"], "--out file is no folder: give another path"),
        (["runs/molt/1"], "no run of 1 is finished and tested, the first is runs/molt/1 (interrupted): run"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_one_sentence(
    args: list[str], sentence: str, runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (runs / "empty").mkdir()
    (runs / "file").touch()
    assert sentence in error(args, capsys)
    assert not (runs / "report").exists()


def test_foreign_json_is_one_sentence(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (runs / "runs/late/0/report/test.json").write_text('{"conditions": 1}')
    assert "test the run again, or leave it out" in error(["runs"], capsys)
