"""configs: list the configurations that come with robusttune, and copy one to edit."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path

from robusttune.commands.plain_parser import PlainParser
from robusttune.errors import RobustTuneError
from robusttune.packaged_configs import find_packaged, packaged_files
from robusttune.paths import user_path
from robusttune.terminal import print_line


def run(args: list[str]) -> None:
    """Run the command.

    Raises:
        RobustTuneError: No such configuration exists, or the file to write does.
    """
    parser = PlainParser(
        prog="robusttune configs",
        description="List the configurations that come with robusttune, or copy one to edit.",
    )
    copy = parser.add_subparsers(dest="action", metavar="copy").add_parser("copy", help="copy one to edit")
    copy.add_argument("name", help="A name that robusttune configs lists.")
    copy.add_argument("to", nargs="?", default=".", help="File or folder to copy to; by default this folder.")
    given = parser.parse_args(args)
    if given.action == "copy":
        _copy(given.name, given.to)
    else:
        _list()


def _list() -> None:
    files = packaged_files()
    width = max(map(len, files), default=0)
    for folder, names in groupby(files, key=lambda name: name.rpartition("/")[0]):
        print_line(f"{folder}/" if folder else "complete configurations")
        for name in names:
            print_line(f"  {name:<{width}}  {first_comment(files[name])}")
        print_line("")
    print_line("Use them by name: robusttune fit --config food101 --config trainer/smoke")
    print_line("Copy one to edit: robusttune configs copy food101")


def first_comment(path: Path) -> str:
    """Return the first comment line of a file, without its mark; empty where it has none."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return next((line[2:].strip() for line in lines if line.startswith("# ")), "")


def _copy(name: str, to: str) -> None:
    source, target = find_packaged(name), user_path(to)
    if target.is_dir() or to.endswith("/"):
        target /= source.name
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with target.open("x", encoding="utf-8") as file:
            file.write(source.read_text(encoding="utf-8"))
    except FileExistsError:
        raise RobustTuneError(
            f"{target} exists: give another path, as in robusttune configs copy {name} mine.yaml"
        ) from None
    print_line(f"{name} is copied to {target}")
