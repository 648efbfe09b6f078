"""The setting `test_best`: the best checkpoint is tested right after the fit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from forked import run_command

from robusttune.cli import main

CONFIG = Path(__file__).parents[2] / "configs" / "demo.yaml"
FIT = [
    *("fit", f"--config={CONFIG}", "--data.source.train=60", "--data.source.val=20", "--data.source.test=20"),
    *("--data.batch_size=16", "--trainer.max_epochs=1", "--trainer.enable_progress_bar=false"),
    *("--image_encoder.layers=2", "--text_encoder.layers=2", "--data.evaluation.conditions=[complete,no_image]"),
    *("--test_best=true", "--trainer.accelerator=cpu"),
]

pytestmark = pytest.mark.usefixtures("one_thread")


def results(run: Path) -> dict[str, object]:
    found: dict[str, object] = json.loads((run / "report/test.json").read_text())
    return found


def test_the_results_are_those_of_a_test(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([*FIT, f"--data.cache.folder={tmp_path}/cache"]) == 0
    printed = capsys.readouterr().out
    assert (
        "Next: robusttune demo --ckpt_path runs/demo/0 tries it on a page, and robusttune fit --config table" in printed
    )
    assert "Test it:" not in printed
    found = results(Path("runs/demo/0"))
    (tmp_path / "runs/demo/0/report/test.json").unlink()
    assert main(["test", "--ckpt_path=runs/demo/0"]) == 0
    assert results(Path("runs/demo/0")) == found
    (tmp_path / "runs/demo/0/report/test.json").unlink()
    capsys.readouterr()
    assert main([*FIT, f"--data.cache.folder={tmp_path}/cache", "--resume=auto"]) == 0  # of a job that ended in between
    assert results(Path("runs/demo/0")) == found
    assert main([*FIT, f"--data.cache.folder={tmp_path}/cache", "--resume=auto"]) == 0
    assert capsys.readouterr().out.count("Next: ") == 1


@pytest.mark.slow
def test_all_processes_test(tmp_path: Path) -> None:
    flags = (*FIT[1:], f"--data.cache.folder={tmp_path}/cache", f"--run_root={tmp_path}/runs")
    run_command("fit", *flags, "--trainer.devices=2", "--trainer.strategy=ddp")
    assert results(tmp_path / "runs/demo/0")["samples"] == 20


def test_without_a_checkpoint_there_is_nothing_to_test(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = [f"--data.cache.folder={tmp_path}/cache", f"--run_root={tmp_path}/runs"]
    assert main([*FIT, *flags, "--trainer.enable_checkpointing=false"]) == 1
    assert "test_best is true, and trainer.enable_checkpointing false" in capsys.readouterr().err


def test_a_missing_test_split_is_found_before_the_fit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "train.jsonl").write_text('{"text": "soup", "label": "a"}\n{"text": "pie", "label": "b"}\n' * 10)
    table = ["--data.source=Table", f"--data.source.train={tmp_path}/train.jsonl", "--data.source.image_column=null"]
    assert main(["fit", f"--config={CONFIG}", *table, "--test_best=true", f"--run_root={tmp_path}/runs"]) == 1
    assert "the data has no test split" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()
