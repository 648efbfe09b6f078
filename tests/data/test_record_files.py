"""Arrow files of records: when they are used, written anew, left out and removed."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest
from small_disk import small_disk

from robusttune.data import kept_files, record_files
from robusttune.data.record_files import RecordWriter, file_of, load_records
from robusttune.data.sources import Record, Table, table_batches, to_table
from robusttune.data.sources.base import SCHEMA, to_batch
from robusttune.data.sources.rows import RowBatch
from robusttune.errors import RobustTuneError

ROWS = 5000


@pytest.fixture(autouse=True)
def small_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have tables of more than 1,000 rows in files, of any age."""
    monkeypatch.setattr(record_files, "IN_MEMORY", 1000)
    monkeypatch.setattr(record_files, "BATCH_ROWS", 2000)
    monkeypatch.setattr(kept_files, "SETTLED", -1)


def write(path: Path, rows: int = ROWS, **last: Any) -> Table:
    cells = [{"text": f"text {n}", "label": "ab"[n % 2], "key": f"k{n}"} for n in range(rows)]
    cells[3]["text"] = "NaN"
    cells[-1] |= last
    pyarrow.parquet.write_table(pa.Table.from_pylist(cells), path)
    return Table(train=str(path), image_column=None)


def read(source: Table) -> pa.Table:
    found = source.read("train")
    assert found is not None
    return found


def files() -> list[str]:
    return sorted(path.name for path in file_of("").parent.glob("*") if path.suffix != ".lock")


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[None]:
    """Count how often a table is read."""
    counts: list[None] = []
    opened = table_batches.TableBatches.__init__
    monkeypatch.setattr(table_batches.TableBatches, "__init__", lambda *args: (counts.append(None), opened(*args))[1])
    return counts


def test_a_large_table_is_read_once(tmp_path: Path, reads: list[None], caplog: pytest.LogCaptureFixture) -> None:
    """And mapped into memory; its warnings come each time."""
    source, before = write(tmp_path / "shop.parquet"), pa.total_allocated_bytes()
    first = read(source)
    warnings = caplog.messages[:]
    caplog.clear()
    again = read(source)
    assert len(reads) == len(files()) == 1
    assert pa.total_allocated_bytes() - before < 10_000
    assert again.equals(first)
    assert again["id"].to_pylist() == [str(n) for n in range(1, ROWS + 1)]
    assert caplog.messages == warnings
    assert "5000 rows, 1 reads NaN in the column text" in warnings[0]
    again.validate(full=True)


def test_a_csv_table_also_says_how_it_was_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "shop.csv"
    path.write_text("text;label\n" + "soup;x\n" * ROWS)
    with caplog.at_level(logging.INFO):
        read(Table(train=str(path), image_column=None))
        read(Table(train=str(path), image_column=None))
    assert [m for m in caplog.messages if "delimiter" in m] == [f"{path}: CSV with the delimiter ';'; 5,000 rows"] * 2


def test_small_tables_have_no_file(tmp_path: Path) -> None:
    read(write(tmp_path / "shop.parquet", rows=1000))
    assert files() == []


def change_content(path: Path, source: Table) -> Table:
    write(path, text="another text")
    return source


CHANGES: dict[str, Callable[[Path, Table], Table]] = {
    "content": change_content,
    "another setting": lambda path, source: Table(train=source.train, image_column=None, id_column="key"),
    "more of what is blank": lambda path, source: Table(train=source.train, image_column=None, blank=["nan"]),
    "another file": lambda path, source: write(path.with_name("other.parquet")),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=[*CHANGES])
def test_other_records_are_read_anew(
    tmp_path: Path, change: Callable[[Path, Table], Table], reads: list[None], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write(tmp_path / "shop.parquet")
    read(source)
    found = read(change(tmp_path / "shop.parquet", source))
    assert len(reads) == len(files()) == 2
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "empty"))
    assert read(change(tmp_path / "shop.parquet", source)).equals(found)


def test_a_table_that_was_just_changed_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A further change within the same tick of the clock could not be noticed."""
    monkeypatch.setattr(kept_files, "SETTLED", 2_000_000_000)
    assert len(read(write(tmp_path / "shop.parquet"))) == ROWS
    assert files() == []


def test_a_change_while_it_is_read_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even of a file that was read to its end."""
    write(tmp_path / "a.parquet")
    write(tmp_path / "b.parquet")
    source, convert = Table(train=str(tmp_path), image_column=None), RowBatch.arrays
    seen: list[str] = []

    def arrays(batch: RowBatch) -> Any:
        seen.append(batch.file)
        if "b" in batch.file and len(seen) == 2:
            write(tmp_path / "a.parquet", text="meanwhile")
        return convert(batch)

    monkeypatch.setattr(RowBatch, "arrays", arrays)
    with pytest.raises(RobustTuneError, match=f"{tmp_path} changed while it was read: wait until"):
        read(source)
    assert files() == []


def test_a_refused_table_leaves_no_file(tmp_path: Path) -> None:
    source = write(tmp_path / "shop.parquet", label=" ", key="k7")
    with pytest.raises(RobustTuneError, match=r"of 5000 rows, 1 repeat an id .the first: row 5000, 'k7' of row 8."):
        read(Table(train=source.train, image_column=None, id_column="key"))
    assert files() == []


def test_several_processes_write_one_file(tmp_path: Path) -> None:
    source = write(tmp_path / "shop.parquet")
    with ThreadPoolExecutor(4) as pool:
        first, *others = pool.map(read, [source] * 4)
    assert all(other.equals(first) for other in others)
    assert len(files()) == 1


@pytest.mark.parametrize("content", [b"", b"ARROW1\0\0", b"\0" * 5000])
def test_a_damaged_file_is_replaced(tmp_path: Path, content: bytes, reads: list[None]) -> None:
    source = write(tmp_path / "shop.parquet")
    expected = read(source).to_pylist()
    file_of("").with_name(files()[0]).write_bytes(content)
    assert read(source).to_pylist() == read(source).to_pylist() == expected
    assert len(reads) == 2


def test_a_full_disk_costs_memory_and_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    source = write(tmp_path / "shop.parquet")
    expected = read(source)
    with small_disk(tmp_path / "disk", "150k") as disk:
        monkeypatch.setenv("XDG_CACHE_HOME", str(disk))
        found = read(source)
        assert found.equals(expected)
        said = [m.partition(str(disk))[2] for m in caplog.messages if "the records of a large table" in m]
        reason = "No space left on device), and are kept in memory: make room, or set XDG_CACHE_HOME"
        assert said == [f"/robusttune/tables ({reason} to another folder"]
        assert files() == []
        del found  # the part that was written is mapped


def test_a_cache_folder_that_cannot_be_made_costs_memory_and_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert len(read(write(tmp_path / "shop.parquet"))) == ROWS
    assert "Not a directory" in caplog.text


def test_unused_files_are_removed(tmp_path: Path) -> None:
    source, other = write(tmp_path / "shop.parquet"), write(tmp_path / "other.parquet")
    read(source)
    read(other)
    old, used = (file_of("").with_name(name) for name in files())
    for path in (old, used):
        os.utime(path, (0, time.time() - record_files.UNUSED - 60))
    key = used.name.removesuffix(".arrow")
    assert load_records(key) is not None
    read(write(tmp_path / "third.parquet"))
    assert len(files()) == 2
    assert (used.exists(), old.exists()) == (True, False)


def test_images_in_cells_are_not_kept(tmp_path: Path) -> None:
    """Their copies in the cache folder may be removed, and are made again with the records."""
    path = tmp_path / "shop.jsonl"
    row = {"image": "data:image/png;base64,aGVsbG8=", "text": "t", "label": "x"}
    path.write_text(f"{json.dumps(row)}\n" * ROWS)
    assert len(read(Table(train=str(path)))) == ROWS
    assert files() == []


def test_many_records_of_any_source_are_mapped() -> None:
    before = pa.total_allocated_bytes()
    found = to_table(Record(str(n), f"{n}.png", None, ["x"], ["y"]) for n in range(ROWS))
    assert pa.total_allocated_bytes() - before < 10_000
    assert found.column("id").to_pylist() == [str(n) for n in range(ROWS)]
    assert files() == []


def test_a_block_that_raises_leaves_nothing() -> None:
    def write_and_raise() -> None:
        with RecordWriter(SCHEMA, "0-0") as writer:
            for _ in range(3):
                writer.add(to_batch([Record(str(n), None, "t", None) for n in range(1000)]))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write_and_raise()
    assert files() == []
