"""data verify and data show, as a user runs them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from fakes import tiny_flags
from layouts import write_table_copy
from PIL import Image

from robusttune.cli import main
from robusttune.data.mask_files import read_mask

CONFIGS = Path(__file__).parents[2] / "configs"


@pytest.fixture
def flags(tmp_path: Path, text_folder: Path) -> list[str]:
    """Of a good copy in the layout of a table."""
    write_table_copy(tmp_path)
    tables = [f"--data.source.{split}={tmp_path}/{split}.jsonl" for split in ("train", "val", "test")]
    return [f"--config={CONFIGS}/table.yaml", *tiny_flags(Path("none"), text_folder), *tables]


def test_a_good_copy(flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "verify", *flags, f"--json={tmp_path}/out/found.json"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "This data has no problems." in out
    found = json.loads((tmp_path / "out/found.json").read_text())
    assert found["problems"] == []
    assert found["splits"]["train"]["samples"] == 12
    assert found["classes"] == {"pie": {"train": 6, "val": 3, "test": 3}, "soup": {"train": 6, "val": 3, "test": 3}}
    for split in found["splits"].values():
        assert split["hash"] in out


def test_a_bad_copy_is_reported_and_the_status_is_1(
    flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "photos/train0.png").unlink()
    (tmp_path / "val.jsonl").write_text("nonsense\n")
    assert main(["data", "verify", *flags, f"--json={tmp_path}/found.json"]) == 1
    out, err = capsys.readouterr()
    assert err == "robusttune: error: this data has 2 problems, listed above: correct the data\n"
    assert "problem: 1 of 14 images not found" in out
    assert "val.jsonl: of 1 rows, 1 are not JSON" in out
    assert len(json.loads((tmp_path / "found.json").read_text())["problems"]) == 2


@pytest.mark.parametrize(
    "ignored",
    [
        ["--model", "{class_path: robusttune.tasks.MMRLTask}"],
        ["--model={class_path: robusttune.tasks.FusionTask, init_args: {beta: 0}}", "--model.alpha=1"],
        ["--model", "robusttune.tasks.FusionTask", "--trainer.max_epochs", "1", "--optimizer.lr=1"],
    ],
    ids=str,
)
def test_flags_of_the_model_are_ignored(
    flags: list[str], ignored: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["data", "verify", *flags, *ignored]) == 0
    assert "This data has no problems." in capsys.readouterr().out


def test_masks_are_exported_and_used(flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    protocol = [f"--config={CONFIGS}/missing/both_70.yaml"]
    assert main(["data", "verify", *protocol, *flags, *protocol, f"--masks={tmp_path}/masks"]) == 0
    out = capsys.readouterr().out
    assert out.count("by protocol") == 3
    ids = [str(number) for number in range(1, 13)]
    mask = read_mask(tmp_path / "masks/train.parquet", ids, None, "train")
    assert mask.hash in out
    given = [f"--data.missing.train.table={tmp_path}/masks/train.parquet"]
    assert main(["data", "verify", *flags, *given]) == 0
    assert mask.hash in capsys.readouterr().out


@pytest.mark.slow
def test_a_run_keeps_its_masks(
    flags: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said: list[str] = []
    monkeypatch.setattr("robusttune.data.datamodule.rank_zero_info", said.append)
    fit = ["fit", *flags, f"--config={CONFIGS}/missing/text_70.yaml", f"--run_root={tmp_path}/runs", "--name=a"]
    assert main(fit) == 0
    run = tmp_path / "runs/a/0"
    assert sorted(path.name for path in (run / "missing").iterdir()) == ["test.parquet", "train.parquet", "val.parquet"]
    mask = read_mask(run / "missing/train.parquet", [str(number) for number in range(1, 13)], None, "train")
    assert f"train: 12 samples, 9 with image, 3 with text, 2 with neither (mask {mask.hash})" in said
    test = ["test", f"--config={run}/config.yaml", f"--ckpt_path={run}/checkpoints/best.ckpt"]
    assert main(test) == 0
    about = json.loads((run / "report/test.json").read_text())["data"]
    ids = [str(number) for number in range(1, 7)]
    assert read_mask(run / "report/missing/test.parquet", ids, None, "test").hash == about["mask"]
    assert about["missing"]["rate"] == 0.7
    assert about["samples"] == {"complete": 1, "image_only": 4, "text_only": 0, "neither": 1}
    # Another test leaves nothing of this one.
    assert main([*test, "--data.missing.test=null", "--data.noise.test.text.kinds=[typos]"]) == 0
    assert not (run / "report/missing/test.parquet").exists()
    about = json.loads((run / "report/test.json").read_text())["data"]
    assert about["mask"] is None
    assert about["noise"]["text"]["kinds"] == ["typos"]
    assert "with noise or missing modalities" in capsys.readouterr().out


def test_samples_are_drawn(flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "pictures/samples.png"
    assert main(["data", "show", *flags, "--samples=5", "--split=val", "--severity=5", f"--out={out}"]) == 0
    assert str(out) in capsys.readouterr().out
    sheet = Image.open(out)
    assert sheet.width > 1000
    again = tmp_path / "again.png"
    assert main(["data", "show", *flags, "--samples=5", "--split=val", "--severity=5", f"--out={again}"]) == 0
    assert again.read_bytes() == out.read_bytes()
    assert main(["data", "show", *flags, "--samples=5", "--split=val", "--severity=1", f"--out={again}"]) == 0
    assert again.read_bytes() != out.read_bytes()


def test_a_broken_image_is_drawn_as_such(flags: list[str], tmp_path: Path) -> None:
    (tmp_path / "photos/test0.png").write_text("no image")
    assert main(["data", "show", *flags, "--samples=2", "--split=test", f"--out={tmp_path}/samples.png"]) == 0


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["data", "verfy"], "there is no command 'data verfy'"),
        (["data", "verify", "--near=9"], "--near is 9: give a number of bits from 0 to 8"),
        (["data", "show", "--severity=6"], "--severity is 6, --samples 8: give 1 to 5"),
        (["data", "verify", "--json={folder}"], "--json .* is a folder: give another path"),
        (["data", "show", "--out={folder}"], "--out .* is a folder: give a path of a PNG file"),
        (["data", "show", "--samples=0"], "--severity is 3, --samples 0: give 1 to 5, and at least 1"),
        (["data", "show", "--split=predict"], ""),
        (["data", "verify", "--data.sourse=x"], "data.sourse is no setting"),
        (
            ["data", "verify", "--data.source.train=none.csv"],
            "none.csv does not exist: set data.source.train to a table",
        ),
        (["data", "verify", "--data.missing.test.rate=2"], "the rate in data.missing is 2"),
    ],
)
def test_wrong_options(
    flags: list[str], tmp_path: Path, args: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    options = [f"--out={tmp_path}/x.png"] if args[1:2] == ["show"] else []
    configured = [*args[:2], *flags, *options, *args[2:]] if len(args) > 2 else args
    configured = [arg.format(folder=tmp_path) if "{folder}" in arg else arg for arg in configured]
    assert main(configured) == (1 if message else 0)
    err = capsys.readouterr().err
    assert re.match(f"robusttune: error: {message}", err) if message else not err


@pytest.mark.parametrize("command", ["verify", "show"])
def test_help_is_there(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["data", command, "--help"])
    assert ended.value.code == 0
    assert f"robusttune data {command}" in capsys.readouterr().out
