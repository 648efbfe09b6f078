"""The command export: a run as a standalone folder and as ONNX, and what it refuses."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from inference.models import fusion, pairs

from robusttune.cli import main
from robusttune.inference import Predictor, load
from robusttune.models import Experts

CONFIGS = Path(__file__).parents[2] / "configs"
TINY = ["--data.source.train=48", "--data.source.val=24", "--data.source.test=24", "--trainer.max_epochs=1"]


@pytest.fixture(scope="module")
def standalone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a small model."""
    return Predictor([fusion(Experts())]).save_pretrained(tmp_path_factory.mktemp("export") / "model")


REFUSED = {
    "unknown format": (["--format=pickle"], "there is no format 'pickle': choose from standalone, onnx, published"),
    "no format": ([], "the following arguments are required: --format"),
    "precision of another format": (
        ["--format=standalone", "--precision=int8"],
        "--precision and --input belong to --format onnx, not standalone: leave them out",
    ),
    "unknown precision": (["--format=onnx", "--precision=int4"], "there is no precision 'int4': choose from float32,"),
    "published format of a folder": (["--format=published"], "has no checkpoints/best.ckpt: give the folder of one"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case: str, standalone: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags, sentence = REFUSED[case]
    assert main(["export", f"--ckpt_path={standalone}", f"--out={tmp_path}/out", *flags]) == 1
    error = capsys.readouterr().err
    assert sentence in error
    assert error.startswith("robusttune: error: ") or "Loading weights" in error
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["standalone", "onnx"])
def test_what_exists_is_kept(name: str, standalone: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    assert main(["export", f"--ckpt_path={standalone}", f"--out={tmp_path}/out", f"--format={name}"]) == 1
    assert "out exists: give the name of a new folder" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine.txt"]


def test_a_missing_extra_is_named(
    standalone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = import_module("robusttune.inference.onnx.folder")
    monkeypatch.setattr(folder, "find_spec", lambda name: None)
    assert main(["export", f"--ckpt_path={standalone}", f"--out={tmp_path}/out", "--format=onnx"]) == 1
    assert "needs onnx, onnxscript, onnxruntime: pip install 'robusttune[onnx]'" in capsys.readouterr().err


@pytest.mark.slow
def test_a_run_in_both_formats(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With the results of its test in the model card."""
    flags = [*TINY, "--data.loader.workers=0", "--data.cache.folder=null", "--trainer.enable_progress_bar=false"]
    assert main(["fit", f"--config={CONFIGS}/demo.yaml", *flags, f"--run_root={tmp_path}"]) == 0
    run = tmp_path / "demo" / "0"
    assert main(["test", f"--config={run}/config.yaml", f"--ckpt_path={run}/checkpoints/best.ckpt"]) == 0
    assert main(["export", f"--ckpt_path={run}", "--format=standalone", f"--out={tmp_path}/folder"]) == 0
    assert "A standalone model of " in capsys.readouterr().out
    assert np.array_equal(load(tmp_path / "folder").predict_proba(**pairs()), load(run).predict_proba(**pairs()))
    card = (tmp_path / "folder" / "README.md").read_text()
    assert "* Source: robusttune.data.sources" in card
    accuracy = json.loads((run / "report/test.json").read_text())["conditions"]["complete"]["accuracy"]
    assert f"| complete | {accuracy:.3f} (" in card
    rows = [{"text": "a red circle", "image": "", "label": "red circle"}] * 3
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    onnx = ["export", f"--ckpt_path={tmp_path}/folder", "--format=onnx", f"--out={tmp_path}/onnx"]
    assert main([*onnx, f"--input={tmp_path}/rows.jsonl"]) == 0
    printed = capsys.readouterr().out
    assert "Greatest difference of a probability, modalities neither: " in printed
    assert "On 3 samples: accuracy " in printed
    assert "An ONNX model in float32 of " in printed
