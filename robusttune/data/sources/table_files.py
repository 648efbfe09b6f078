"""The files of a table: one file, all files of a folder, or those that a pattern matches."""

from __future__ import annotations

import glob
from collections.abc import Callable
from pathlib import Path

from robusttune.data.problems import Problems
from robusttune.data.sources.arrow_file import read_ipc, read_parquet
from robusttune.data.sources.compression import CODECS, split_compression
from robusttune.data.sources.csv_file import read_csv
from robusttune.data.sources.excel_file import read_excel
from robusttune.data.sources.files import path_kind
from robusttune.data.sources.json_file import read_json_array, read_jsonl
from robusttune.data.sources.rows import Rows, TableOptions
from robusttune.errors import RobustTuneError

Reader = Callable[[Path, Problems, set[str], TableOptions], Rows]
TEXT_READERS: dict[str, Reader] = {  # of files that may be compressed
    ".jsonl": read_jsonl,
    ".ndjson": read_jsonl,
    ".json": read_json_array,
    ".csv": read_csv,
    ".tsv": read_csv,
}
BINARY_READERS: dict[str, Reader] = {
    ".parquet": read_parquet,
    ".arrow": read_ipc,
    ".feather": read_ipc,
    ".xlsx": read_excel,
}
READERS = TEXT_READERS | BINARY_READERS
PATTERN = frozenset("*?[")


def ending_of(path: Path) -> str:
    """Return the ending of a table file in lower case, without that of its compression.

    Example:
        >>> ending_of(Path("my/train.CSV.gz")), ending_of(Path("notes.txt"))
        ('.csv', '.txt')
    """
    return Path(split_compression(path.name)[0]).suffix


def table_files(path: Path) -> list[Path]:
    """Return the files of a table, sorted by name.

    Args:
        path: Path of a file; of a folder, for all tables in it; or of a file with a pattern as its name, such as
            ``train-*.parquet``. Hidden files and those that begin with ``_`` are ignored.

    Raises:
        RobustTuneError: If there is no file, a file has another ending than those of `READERS`, or the files have
            different ones.
    """
    kind = path_kind(path)
    if kind == "nothing" and PATTERN.intersection(path.name):
        files = sorted(Path(found) for found in glob.glob(str(path)))  # noqa: PTH207, Path.glob needs a root
    elif kind == "folder":
        files = sorted(file for file in path.iterdir() if not file.is_dir() and not file.name.startswith((".", "_")))
    else:
        files = [path]
    if not files:
        problem = "is a folder without files" if kind == "folder" else "matches no file"
        raise RobustTuneError(f"{path} {problem}: give a table, a folder of tables, or a pattern")
    for file in files:
        _check_ending(file)
    endings = sorted({ending_of(file) for file in files})
    if len(endings) > 1:
        raise RobustTuneError(f"{path} has files of several formats ({', '.join(endings)}): give those of one format")
    return files


def _check_ending(file: Path) -> None:
    ending, codec = ending_of(file), split_compression(file.name)[1]
    if codec is not None and ending in BINARY_READERS:
        raise RobustTuneError(f"{file} is a compressed {ending} file, which cannot be read in parts: decompress it")
    if ending == ".xls":
        raise RobustTuneError(f"{file} is an old Excel workbook: save it as .xlsx")
    if ending not in READERS:
        kinds = f"{', '.join(READERS)}; text formats also with {' or '.join(CODECS)}"
        raise RobustTuneError(f"{file} is no table ({kinds}): convert it, or give it its ending")
