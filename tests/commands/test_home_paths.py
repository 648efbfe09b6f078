"""``~`` is the home folder wherever a setting is a path."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from fakes import tiny_flags
from layouts import picture

from robusttune.cli import main

CONFIGS = Path(__file__).parents[2] / "configs"


@pytest.mark.slow
def test_a_tilde_is_the_home_folder(
    tmp_path: Path, text_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In settings of data, encoders and runs, and in options of commands; nothing is written to a folder ``~``."""
    home, here = tmp_path / "home", tmp_path / "here"
    here.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(here)
    shutil.copytree(text_folder, home / "text")
    shutil.copy(CONFIGS / "table.yaml", home / "own.yaml")
    for number in range(20):
        picture(home / f"photos/{number}.png", number)
    lines = [f"{number}.png,dish {number},{'ab'[number % 2]}" for number in range(20)]
    (home / "train.csv").write_text("\n".join(["image,text,label", *lines]))
    config = ["--config=~/own.yaml", *tiny_flags(Path("none"), Path("~/text"))]
    given = [*config, "--data.source.train=~/train.csv", "--data.source.image_root=~/photos"]
    data = [flag for flag in given if not flag.startswith(("--model", "--trainer"))]
    run = ["--run_root=~/runs", "--name=a", "--data.cache.folder=~/cache", "--data.missing.train.rate=0.5"]
    assert main(["fit", *given, *run, "--data.missing.train.type=image"]) == 0
    assert [*(home / "cache").iterdir()]
    mask = ["--data.missing.train.table=~/runs/a/0/missing/train.parquet"]
    assert main(["fit", *given, "--run_root=~/runs", "--name=b", *mask]) == 0
    checkpoint = "--ckpt_path=~/runs/a/0/checkpoints/best.ckpt"
    assert main(["validate", "--config=~/runs/a/0/config.yaml", checkpoint]) == 0
    assert main(["data", "show", *data, "--out=~/samples.png"]) == 0
    assert main(["data", "verify", *data, "--json=~/found.json"]) in (0, 1)
    assert main(["plan", *given, "--json=~/plan.json", "--steps=2"]) == 0
    assert main(["report", "~/runs", "--out=~/report"]) in (0, 1)
    for name in ("samples.png", "found.json", "plan.json"):
        assert (home / name).is_file(), name
    assert not (here / "~").exists(), [*here.rglob("*")]
    capsys.readouterr()
    for flag, message in {
        "--image_encoder.weights=~/none": "weights ~/none do not exist",
        "--text_encoder.name=~/none": "the encoder folder ~/none does not exist",
        "--image_encoder.name=~/none": "the encoder folder ~/none does not exist",
        "--data.source.train=~/none.csv": f"{home}/none.csv does not exist",
    }.items():
        assert main(["fit", *given, flag]) == 1
        assert message in capsys.readouterr().err
