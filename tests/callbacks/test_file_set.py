"""Files of a report replace those of the report before together, or not at all."""

from __future__ import annotations

import json
from pathlib import Path
from unittest.mock import patch

import pytest
from small_disk import small_disk

from robusttune.callbacks.file_set import replace_together
from robusttune.paths import digest_of_file


def write(folder: Path, content: str, *names: str) -> None:
    writers = {name: lambda path: path.write_text(content) for name in names}
    replace_together(folder, writers, "test.json", {"content": content}, stale=["missing/test.parquet"])


def contents(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def is_whole(folder: Path) -> bool:
    """Whether the files are those of the listing."""
    listed = json.loads((folder / "test.json").read_text())["files"]
    return all(digest_of_file(folder / name) == digest for name, digest in listed.items())


def test_the_listing_has_the_digest_of_each_file(tmp_path: Path) -> None:
    write(tmp_path, "one", "test.csv", "missing/test.parquet")
    assert contents(tmp_path).keys() == {"test.csv", "missing/test.parquet", "test.json"}
    assert is_whole(tmp_path)
    write(tmp_path, "two", "test.csv")
    assert contents(tmp_path).keys() == {"test.csv", "test.json"}
    assert is_whole(tmp_path)


def test_if_one_file_fails_all_stay(tmp_path: Path) -> None:
    write(tmp_path, "one", "a", "b")
    before = contents(tmp_path)

    def fail(path: Path) -> None:
        path.write_text("half")
        raise OSError("no room")

    with pytest.raises(OSError, match="no room"):
        replace_together(tmp_path, {"a": lambda path: path.write_text("two"), "b": fail}, "test.json", {})
    assert contents(tmp_path) == before


@pytest.mark.parametrize("after", range(4))
def test_a_kill_between_two_replacements_can_be_recognised(tmp_path: Path, after: int) -> None:
    write(tmp_path, "one", "a", "b")
    replaced = 0

    def replace(path: Path, target: Path, original: object = Path.replace) -> None:
        nonlocal replaced
        if replaced == after:
            raise KeyboardInterrupt
        replaced += 1
        path.rename(target)

    with patch.object(Path, "replace", replace):
        if after < 3:
            with pytest.raises(KeyboardInterrupt):
                write(tmp_path, "two", "a", "b")
        else:
            write(tmp_path, "two", "a", "b")
    assert is_whole(tmp_path) == (after in (0, 3))


def test_a_full_disk_leaves_the_report_before(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "1m") as folder:
        write(folder, "one", "a", "b")
        before = contents(folder)
        with pytest.raises(OSError, match="No space left"):
            write(folder, "x" * 700_000, "a", "b")
        assert contents(folder) == before
