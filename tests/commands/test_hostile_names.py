"""Names that look like markup, commands, formulas or escape codes go through a whole run as what they are: names."""

from __future__ import annotations

import csv
import itertools
import re
import shlex
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pyarrow.parquet as pq
import pytest
from fakes import tiny_flags, write_table
from layouts import picture

from robusttune.cli import main
from robusttune.escaping import from_csv_cell, visible

CONFIGS = Path(__file__).parents[2] / "configs"
CLASSES = ["=cmd|' /C calc'!A1", "<script>alert(1)</script>", "a[/b]", "\x1b[31mred", "two\nlines", "$x_1$ `rm` |"]
NAME = "exp[lr=1][red] $(touch x)"
FOLDER = "runs [/b]"  # two folders

Run = Callable[..., str]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("hostile") / "data [/i]"
    for place, (split, number) in enumerate({"train": 24, "val": 12, "test": 12}.items()):
        rows = [
            {
                "id": f"={split}{i}" if i else "-5",
                "image": picture(root / f"\x1b]0;{split}{i}\x07.png", 100 * place + i),
                "text": f"\x1b[2J[/b] <b>{split}</b>\n= {i}",
                "label": CLASSES[i % len(CLASSES)],
            }
            for i in range(number)
        ]
        write_table(root, split, rows)
    return root


@pytest.fixture
def run(root: Path, text_folder: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command, and return what it printed, in which there must be nothing that a terminal obeys."""
    monkeypatch.chdir(root)
    monkeypatch.setenv("COLUMNS", "250")

    def ran(command: str, *flags: str, data: bool = True, status: int = 0) -> str:
        given = []
        if data:
            tiny = [flag for flag in tiny_flags(Path("none"), text_folder) if "source.root" not in flag]
            given = [f"--config={CONFIGS}/table.yaml", *tiny, "--data.source.train=train.jsonl"]
            given += ["--data.source.val=val.jsonl", "--data.source.test=test.jsonl", "--data.source.id_column=id"]
            given += [] if command in ("data verify", "data show") else [f"--run_root={FOLDER}", f"--name={NAME}"]
        if command in ("data verify", "data show"):
            given = [flag for flag in given if not flag.startswith(("--model", "--trainer"))]
        capfd.readouterr()
        assert main([*command.split(), *given, *flags]) == status
        said = capfd.readouterr()
        assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f]", said.out + said.err), said
        return said.out

    return ran


class Tags(HTMLParser):
    """Collects the tags of a page, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.add(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.mark.slow
def test_a_run_from_its_data_to_its_report(run: Run, root: Path) -> None:
    found = run("data verify")
    assert all(visible(name) in found for name in CLASSES)
    assert run("data show", "--out=[/b].png") == "Drawn in [/b].png\n"

    said = run("fit")
    folder = f"{FOLDER}/{NAME}/0"
    assert re.search(re.escape(f"): {folder}/checkpoints/best.ckpt"), said)
    (command,) = re.findall("Test it: (.*)", said)
    program, verb, *flags = shlex.split(command)
    assert (program, verb) == ("robusttune", "test")

    said = run("test", *flags, data=False)
    assert f"test: {folder}/checkpoints/best.ckpt" in said
    assert f"All metrics, classes and samples: {folder}/report/test*" in said
    assert f"Samples and predictions drawn in {folder}/report/test.png" in said
    predict = ["--input=test.jsonl", "--data.source.id_column=id", f"--out={FOLDER}/predictions"]
    told = run("predict", *flags, *predict, data=False)
    assert told == f"12 predictions written to {FOLDER}/predictions; 1 of 1 part finished\n"
    predictions = pq.read_table(root / FOLDER / "predictions/parts")  # for programs, as they are
    assert {f"p_{name}" for name in CLASSES} < {*predictions.column_names}
    assert predictions["id"].to_pylist() == ["-5", *(f"=test{i}" for i in range(1, 12))]
    assert {*predictions["prediction"].to_pylist()} <= {*CLASSES}
    with (root / folder / "report/test_classes.csv").open(newline="") as file:
        cells = [row["class"] for row in csv.DictReader(file)]
    assert {from_csv_cell(cell) for cell in cells} == {*CLASSES}
    assert not [cell for cell in cells if cell[0] in "=+-@"]
    answers = pq.read_table(root / folder / "report/test.parquet")
    assert {*answers["label"].to_pylist()} == {*CLASSES}  # for programs, as they are


@pytest.mark.slow
def test_a_report_of_runs(run: Run, root: Path) -> None:
    """Two runs that were tested, and one that was not."""
    names, place = ["a|b <script>alert(1)[red]", "=1+1 `rm` [2J", "never [lr=1]"], f"{FOLDER}2"
    for size, name in enumerate(names, 16):
        flags = [f"--data.batch_size={size}", f"--name={name}", f"--run_root={place}"]
        run("fit", "--data.evaluation.conditions=[complete,no_image]", *flags)
    for name in names[:2]:
        folder = f"{place}/{name}/0"
        run("test", f"--config={folder}/config.yaml", f"--ckpt_path={folder}/checkpoints/best.ckpt", data=False)
    said = run("report", place, "--out=[/u]", data=False)
    assert f"excluded: {place}/{names[2]}/0: never tested. Run robusttune test --config '{place}/" in said
    assert said.endswith("Written to [/u]: report.html, report.md, report.csv, report.tex, plots\n")
    assert all(visible(name) in said for name in names[:2])

    (command,) = re.findall("Run (robusttune .*)", said)
    assert Path(shlex.split(command)[3]).is_file()
    page = Tags((root / "[/u]/report.html").read_text(encoding="utf-8"))
    assert "script" not in page.tags
    assert all(visible(name) in page.text for name in names)
    assert command in page.text

    lines = (root / "[/u]/report.md").read_text(encoding="utf-8").splitlines()
    assert not [line for line in lines if "<script" in line or "\x1b" in line]
    assert f"`{command}`" in "\n".join(lines)
    for start, line in enumerate(lines):
        if line.startswith("| --- |"):
            cells = len(re.findall(r"(?<!\\)\|", line))
            rows = itertools.takewhile(lambda row: row.startswith("|"), lines[start - 1 :])
            assert all(len(re.findall(r"(?<!\\)\|", row)) == cells for row in rows)
    with (root / "[/u]/report.csv").open(newline="") as file:
        models = {row["model"] for row in csv.DictReader(file)}
    assert {from_csv_cell(model) for model in models} == {*names[:2]}
    assert names[1] not in models
    for plot in (root / "[/u]/plots").glob("*.svg"):
        ElementTree.parse(plot)
