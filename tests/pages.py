"""The code blocks of the Markdown pages, and a folder with tiny data in which their commands run.

A block of commands (```` ```bash ````) or of Python (```` ```python ````) is run by `tests/test_readme.py`, unless the
line above it says why not: `<!-- not run: needs a network -->`. The blocks of a page run in order, in one folder.
"""

from __future__ import annotations

import csv
import gzip
import re
import shlex
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from layouts import picture
from test_configs import flags_for

from robusttune.cli import main

ROOT = Path(__file__).parents[1]
FOLDERS = ("configs", "robusttune", "tests", ".github")
PAGES = sorted([*ROOT.glob("*.md"), *(page for folder in FOLDERS for page in (ROOT / folder).rglob("*.md"))])
COMMANDS = ("", "bash", "python")  # a block without a language counts as commands, so that none is overlooked
SHOWN = ("text", "csv", "yaml", "bibtex")
BLOCK = re.compile(
    r"^(?:<!-- not run: (?P<reason>[^\n]+?) -->\n)?```(?P<language>\w*)\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE
)
# The blocks of a page that needs one thing that no test has.
NOT_RUN = {"tests/experiments/README.md": "needs hours: tests/test_studies.py runs the studies on little data"}


class Block(NamedTuple):
    """A code block of a page.

    Attributes:
        place: The page and the number of the block's first line, as ``README.md:12``.
        language: The language after the opening fence, which may be empty.
        text: The lines between the fences.
        reason: Why no test runs the block; None if one does.
    """

    place: str
    language: str
    text: str
    reason: str | None


def name_of(page: Path) -> str:
    """Return the path of a page within the project."""
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path) -> list[Block]:
    """Return the code blocks of a page."""
    text, name = page.read_text(encoding="utf-8"), name_of(page)
    return [
        Block(
            f"{name}:{text.count(chr(10), 0, found.start('text'))}",
            found["language"],
            found["text"],
            found["reason"] or NOT_RUN.get(name),
        )
        for found in BLOCK.finditer(text)
    ]


def commands(block: Block) -> Iterator[list[str]]:
    """Yield the words of each command line of a block, without comments."""
    for line in block.text.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        if words:
            yield words


class Workplace:
    """A folder in which the blocks of a page run: with ``configs``, tables in ``my`` and made-up data sets.

    Args:
        folder: An empty folder, which becomes the working directory.
        encoders: Folders of a tiny text encoder and of a tiny CLIP.
        monkeypatch: Undoes the changes to the process.
    """

    def __init__(self, folder: Path, encoders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.encoders = encoders
        self.monkeypatch = monkeypatch
        (folder / "configs").symlink_to(ROOT / "configs")
        picture(folder / "photo.jpg", 0)
        write_tables(folder / "my")
        write_dishes(folder / "my" / "dishes")
        monkeypatch.chdir(folder)

    def run(self, block: Block) -> None:
        """Run a block; raise an AssertionError if one of its commands fails."""
        if block.language == "python":
            self._run_python(block)
            return
        for words in commands(block):
            while re.fullmatch(r"[A-Z_]+=.*", words[0]):
                name, _, value = words.pop(0).partition("=")
                assert (name, value) == ("PYTHONPATH", "."), f"{block.place}: {name} has no meaning in the test"
                self.monkeypatch.syspath_prepend(str(self.folder))
            assert words[0] == "robusttune", f"{block.place}: {words[0]} cannot be run: mark the block"
            args = words[1:]
            # A made-up copy of a data set never has the published number of samples.
            expected = {0, 1} if args[:2] == ["data", "verify"] and "/path/to" in str(args) else {0}
            assert self._status([*args, *self._tiny(args)]) in expected, f"{block.place}: {shlex.join(words)}"

    def _run_python(self, block: Block) -> None:
        file = re.match(r"# (\w+\.py)\n", block.text)
        if file:
            (self.folder / file[1]).write_text(block.text, encoding="utf-8")
            return
        exec(compile(block.text, block.place, "exec"), {"__name__": "example"})

    @staticmethod
    def _status(args: list[str]) -> int:
        try:
            return main(args)
        except SystemExit as ended:  # --help and --print_config
            return int(ended.code or 0)

    def _tiny(self, args: list[str]) -> list[str]:
        """Return the flags that put tiny encoders and data in the place of those of a shipped configuration."""
        given = [Path(value) for flag, value in pairwise(args) if flag == "--config"]
        if not given or given[0].parent != Path("configs"):
            return []
        config = ROOT / given[0]
        flags = flags_for(config, *self.encoders, self.folder / "data" / config.stem)
        flags = [flag for flag in flags if not flag.startswith(("--config=", "--run_root="))]
        if any(name.startswith("--data.source") and "/path/to" not in value for name, value in pairs(args)):
            flags = [flag for flag in flags if not flag.startswith("--data.source") or config.stem.startswith("demo")]
        if any(overlay.parent.name in ("baselines", "fusion") for overlay in given):
            flags = [flag for flag in flags if not flag.startswith(("--model.fusion.", "--model.adapter."))]
        if args[0] == "data":
            return [flag for flag in flags if flag.startswith(("--data.source", "--text_encoder.name"))]
        return [*flags, *(["--steps=3"] if args[0] == "plan" else [])]


def pairs(args: list[str]) -> Iterator[tuple[str, str]]:
    """Yield the flags of a command line with their values; a switch has the value of the next flag."""
    for flag, following in zip(args, [*args[1:], ""], strict=True):
        if flag.startswith("--"):
            name, equals, value = flag.partition("=")
            yield name, value if equals else following


def write_tables(folder: Path) -> None:
    """Write the tables of the READMEs, with photos: CSV for each split, and the others that they name."""
    for start, (split, size) in enumerate({"train": 32, "test": 8, "new": 4}.items()):
        rows = []
        for number in range(size):
            photo = f"photos/{split}{number}.png"
            picture(folder / photo, 100 * start + number)
            label, text = [("dessert", "Grandma's apple pie"), ("soup", "A bowl of pho")][number % 2]
            image, text = ("", text) if number % 5 == 0 else (photo, "" if number % 7 == 0 else text)
            rows.append([image, text, label] if split != "new" else [image, text])
        with (folder / f"{split}.csv").open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([["image", "text", "label"][: len(rows[0])], *rows])
    with (folder / "train.csv").open(newline="", encoding="utf-8") as file:
        samples = list(csv.DictReader(file))
    for sample in samples:
        sample["image"] = (folder / sample["image"]).read_bytes() if sample["image"] else None
    pq.write_table(pa.Table.from_pylist(samples), folder / "embedded.parquet")
    with (folder / "products.csv").open("w", newline="", encoding="utf-8") as file:
        photos = [f"photos/train{number}.png" for number in range(32)]
        products = [[*pair, "Pho", ["dessert", "soup"][n % 2]] for n, pair in enumerate(pairwise(photos))]
        csv.writer(file).writerows([["front", "back", "text", "label"], *products])
    lines = ["image\ttitle\tdescription\tdessert\tsoup"]
    lines += [f"photos/train{n}.png\tPho\t{'' if n % 5 else 'Hot'}\t{n % 2}\t{1 - n % 2}" for n in range(32)]
    (folder / "dishes.tsv.gz").write_bytes(gzip.compress("\n".join(lines).encode()))


def write_dishes(folder: Path) -> None:
    """Write photos, and lines of a photo's name, a dish and a title, as the example of a new data set reads them."""
    for start, (split, size) in enumerate({"train": 16, "test": 4}.items()):
        lines = [f"{split}{number}.png\t{['soup', 'pie'][number % 2]}\tdish {number}\n" for number in range(size)]
        for number in range(size):
            picture(folder / f"{split}{number}.png", 50 * start + number)
        (folder / f"{split}.txt").write_text("".join(lines), encoding="utf-8")
