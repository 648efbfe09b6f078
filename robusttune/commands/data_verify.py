"""The command ``data verify``: check a copy of a data set."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from robusttune.commands.data_config import read_data
from robusttune.counting import counted
from robusttune.data.description import write_masks
from robusttune.data.verify import Verification, verify
from robusttune.data.verify.images import ImageCheck
from robusttune.errors import RobustTuneError
from robusttune.paths import atomic_write, user_path
from robusttune.ranks import cores
from robusttune.terminal import cell, print_line

LINES = {
    "samples": "samples",
    "published": "published",
    "classes": "classes",
    "complete": "complete",
    "image_only": "image only",
    "text_only": "text only",
    "neither": "neither image nor text",
    "unlabelled": "unlabelled",
    "repeated_samples": "repeated samples",
    "repeated_images": "repeated images",
    "tokens_median": "tokens a text, median",
    "tokens_95": "tokens a text, 95th percentile",
    "tokens_max": "tokens a text, maximum",
    "texts_cut": "texts to be cut",
    "tokens_cut": "tokens to be cut",
    "hash": "hash",
}
SHOWN = 12  # largest number of classes that the terminal lists; the JSON file has all


def run(args: list[str]) -> None:
    """Run the command.

    Args:
        args: Arguments of the command line after ``data verify``.

    Raises:
        RobustTuneError: The data cannot be read, or the check finds errors in them.
    """
    given, data = read_data("data verify", "Check a copy of a data set.", args, _add)
    if given.near is not None and not 0 <= given.near <= 8:
        raise RobustTuneError(f"--near is {given.near}: give a number of bits from 0 to 8")
    for name in ("json", "masks"):
        _refuse_wrong_output(name, getattr(given, name), folder=name == "masks")
    found = verify(data, given.near, cores(), _with_progress)
    _show(found)
    if given.json is not None:
        _write(user_path(given.json), asdict(found))
    if given.masks is not None:
        write_masks(data, user_path(given.masks))
    if found.problems:
        raise RobustTuneError(
            f"this data has {counted(len(found.problems), 'problem')}, listed above: correct the data"
        )


def _refuse_wrong_output(name: str, path: str | None, folder: bool) -> None:
    """Check an output path before all data are read: ``--masks`` needs a folder, ``--json`` a file."""
    if path is not None and user_path(path).exists() and user_path(path).is_dir() != folder:
        raise RobustTuneError(f"--{name} {path} is {'no' if folder else 'a'} folder: give another path")


def _add(parser: ArgumentParser) -> None:
    parser.add_argument("--json", type=str | None, help="JSON file to write all findings to.")
    parser.add_argument("--masks", type=str | None, help="Folder for the masks of data.missing, as Parquet files.")
    parser.add_argument(
        "--near",
        type=int | None,
        help="Also find near-duplicate images: maximum number of differing bits of 64, such as 4.",
    )


def _with_progress(checks: Iterator[ImageCheck], total: int) -> Iterable[ImageCheck]:
    if not sys.stderr.isatty():
        yield from checks
        return
    with Progress(console=Console(stderr=True), transient=True) as progress:
        yield from progress.track(checks, total=total, description="images")


def _show(found: Verification) -> None:
    if found.splits:
        Console().print(_splits(found.splits))
    if found.classes and found.splits:
        Console().print(_classes(found.classes, [*found.splits]))
    if found.images.get("distinct"):
        by_kind = (f"{count:,} {name.replace('_', ' ')}" for name, count in found.images.items())
        print_line(f"images: {', '.join(by_kind)}")
    for split, mask in found.masks.items():
        patterns = ("complete", "image_only", "text_only", "neither")
        counts = ", ".join(f"{mask[key]:,} {LINES[key]}" for key in patterns)
        print_line(f"{split} by protocol: {counts} (mask {mask['hash']})")
    for note in found.notes:
        print_line(f"note: {note}")
    for problem in found.problems:
        print_line(f"problem: {problem}")
    if not found.problems:
        print_line("This data has no problems.")


def _splits(splits: dict[str, dict[str, Any]]) -> Table:
    table = Table()
    for title in ("", *splits):
        table.add_column(title, justify="right" if title else "left", overflow="fold")
    for key, title in LINES.items():
        if any(split.get(key) for split in splits.values()):
            table.add_row(title, *(_cell(split.get(key, "")) for split in splits.values()))
    return table


def _classes(classes: dict[str, dict[str, int]], splits: list[str]) -> Table:
    table = Table()
    table.add_column("class")
    for split in splits:
        table.add_column(split, justify="right")
    for name in [*classes][:SHOWN]:
        table.add_row(cell(name), *(_cell(classes[name].get(split, 0)) for split in splits))
    if len(classes) > SHOWN:
        counts = {split: sorted(by_split.get(split, 0) for by_split in classes.values()) for split in splits}
        table.add_section()
        table.add_row(f"{len(classes) - SHOWN} more; all: least", *(_cell(counts[split][0]) for split in splits))
        table.add_row("most", *(_cell(counts[split][-1]) for split in splits))
    return table


def _cell(value: Any) -> str:
    return value if isinstance(value, str) else f"{value:,.0f}"


def _write(path: Path, found: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as partial:
        partial.write_text(json.dumps(found, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
