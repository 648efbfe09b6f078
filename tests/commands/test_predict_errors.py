"""Wrong input of `predict`, and commands that find the configuration of a run: each error is one sentence."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from fakes import tiny_flags, write_table

from robusttune.checkpoint_file import FORMAT, KEY, digest_of, read_checkpoint
from robusttune.cli import main

CONFIG = Path(__file__).parents[2] / "configs" / "table.yaml"
TEXTS = ["--data.source.image_column=null"]


@pytest.fixture(scope="module")
def run(text_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a fit to texts."""
    root = tmp_path_factory.mktemp("runs")
    rows = [{"text": f"{word} {number}", "label": word} for number in range(8) for word in ("soup", "pie")]
    flags = [*tiny_flags(Path("none"), text_folder), *TEXTS, f"--run_root={root}"]
    flags += [f"--data.source.{split}={write_table(root, split, rows)}" for split in ("train", "test")]
    assert main(["fit", f"--config={CONFIG}", *flags]) == 0
    return root / "table/0"


class Place:
    """A folder with a table and a checkpoint.

    Args:
        root: Empty folder.
        run: Folder of a run.
    """

    def __init__(self, root: Path, run: Path) -> None:
        self.root = root
        self.run = run
        self.out = root / "out"
        self.table = write_table(root, "new", [{"text": "soup", "price": 3}, {"text": "pie", "price": 4}])

    def predict(self, *flags: str, **given: Any) -> list[str]:
        """Return a command line; ``given`` replaces some of its flags."""
        named = {"ckpt_path": self.run, "input": self.table, "out": self.out} | given
        known = [f"--{name}={value}" for name, value in named.items() if value is not None]
        return ["predict", *known, *TEXTS, "--data.loader.workers=0", *flags]

    def written(self, content: str, name: str = "other.csv") -> Path:
        """Write a file and return its path."""
        (self.root / name).write_text(content)
        return self.root / name

    def newer(self) -> Path:
        """Return a checkpoint of a later version."""
        checkpoint = read_checkpoint(self.run / "checkpoints/best.ckpt")
        checkpoint[KEY]["format"] = FORMAT + 1
        checkpoint[KEY]["digest"] = digest_of(checkpoint)
        torch.save(checkpoint, self.root / "newer.ckpt")
        return self.root / "newer.ckpt"

    def predicted(self, spoil: Callable[[Path], Any]) -> list[str]:
        """Predict, spoil the folder, and return the command line that predicts again."""
        assert main(self.predict()) == 0
        spoil(self.out)
        return self.predict()


CASES: dict[str, tuple[Callable[[Place], list[str]], str]] = {
    "no checkpoint": (lambda p: p.predict(ckpt_path=None), "predict needs a checkpoint: give --ckpt_path"),
    "no run": (lambda p: p.predict(ckpt_path=p.root), "has no checkpoints/best.ckpt: give the folder of one run"),
    "newer": (lambda p: p.predict(ckpt_path=p.newer()), f"has checkpoint format {FORMAT + 1}, and this version of"),
    "no input": (lambda p: p.predict(input=None), "no table is given: set data.source.train"),
    "no such input": (lambda p: p.predict(input="/no.csv"), "/no.csv does not exist: give --input a table"),
    "empty": (lambda p: p.predict(input=p.written("text\n")), "other.csv has no rows: give a table with samples"),
    "only bad rows": (
        lambda p: p.predict(input=p.written("{\n{\n", "a.jsonl")),
        "a.jsonl has no row that can be used (the first: line 1, Expecting property name",
    ),
    "no text column": (
        lambda p: p.predict("--data.source.text_column=title"),
        "new.jsonl has no column title (it has price, text): set data.source.image_column, text_column or label_column",
    ),
    "unknown columns": (
        lambda p: p.predict("--columns=price,prize"),
        "the input has no column 'prize' (it has 'price', 'text'): correct --columns",
    ),
    "a column of the predictions": (
        lambda p: p.predict("--columns=all", input=p.written("text,probability\nsoup,1\n")),
        "the input has a column 'probability', as the predictions have: rename it, or leave it out of --columns",
    ),
    "shard 0": (lambda p: p.predict("--shard=0/4"), "--shard is '0/4': give number/total, from 1/16 to 16/16"),
    "top_k 0": (lambda p: p.predict("--top_k=0"), "--top_k is 0, and there are 2 classes: give 1 to all"),
    "part_rows 0": (lambda p: p.predict("--part_rows=0"), "part_rows is 0: give at least 1"),
    "out is a file": (lambda p: p.predict(out=p.table), "new.jsonl is no folder: give --out a folder"),
    "out cannot be made": (
        lambda p: p.predict(out="/proc/out"),
        "the predictions in /proc/out cannot be written (No such file or directory): make room, or give another --out",
    ),
    "manifest damaged": (
        lambda p: p.predicted(lambda out: (out / "manifest.json").write_text("{")),
        "manifest.json is damaged: give another --out, or remove the folder",
    ),
    "manifest gone": (
        lambda p: p.predicted(lambda out: (out / "manifest.json").unlink()),
        "out has parts/part-00000.parquet and no manifest.json: give --out an empty folder",
    ),
    "part damaged": (
        lambda p: p.predicted(lambda out: (out / "parts/part-00000.parquet").write_bytes(b"PAR1")),
        "part-00000.parquet is damaged: remove it, and the same command computes it again",
    ),
    "a configuration of a run": (
        lambda p: p.predict(f"--config={p.run}/config.yaml"),
        "predict takes encoders, model and classes from the checkpoint: leave out the --config of a run",
    ),
    "a setting of the model": (lambda p: p.predict("--image_encoder.size=3"), "image_encoder.size is no setting"),
    "columns of a folder": (
        lambda p: [*p.predict(input=p.root)[:4], "--data.source=ImageFolder", "--columns=all"],
        "--columns copies columns of a table, and ImageFolder has none: leave it out",
    ),
    "a source without tables": (
        lambda p: ["predict", f"--ckpt_path={p.run}", f"--input={p.table}", "--data.source=Shapes"],
        "--input is a table, and robusttune.data.sources.Shapes reads none: leave one of them out",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_wrong_input_is_one_sentence(
    case: str, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    make, message = CASES[case]
    arguments = make(Place(tmp_path, run))
    capsys.readouterr()
    assert main(arguments) == 1
    error = capsys.readouterr().err.splitlines()
    assert [line for line in error if line.startswith("robusttune: error: ")] == error[-1:]
    assert message in error[-1]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = Place(tmp_path, run)
    place.out.mkdir(mode=0o500)
    assert main(place.predict()) == 1
    assert "cannot be written (Permission denied): make room" in capsys.readouterr().err


def test_a_run_folder_is_enough(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """Flags and further files are laid over the configuration of the run."""
    quick = f"--config={CONFIG.parent}/conditions/quick.yaml"
    assert main(["test", f"--ckpt_path={run}", quick, "--data.evaluation.conditions=[complete,no_text]"]) == 0
    assert f"using {run}/config.yaml" in caplog.text
    told = capsys.readouterr().out
    assert "no_text" in told
    assert "no_image" not in told
    copy = shutil.copytree(run, tmp_path / "run")
    (copy / "config.yaml").unlink()
    assert main(["validate", f"--ckpt_path={copy}"]) == 1
    assert f"validate needs a configuration, and {copy}/config.yaml does not exist: give --config" in (
        capsys.readouterr().err
    )
    assert main(["validate", f"--config={run}/config.yaml", f"--ckpt_path={copy}"]) == 0
