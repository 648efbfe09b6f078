"""Files of the report of a test or validation, which processes write together."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from robusttune.callbacks.file_set import Writers, replace_together
from robusttune.callbacks.picture import chosen_predictions, draw
from robusttune.data import ImageTextDataModule
from robusttune.data.description import write_split_mask
from robusttune.errors import RobustTuneError
from robusttune.escaping import csv_cell
from robusttune.evaluation import ConditionMetrics
from robusttune.evaluation.tables import class_rows, sample_tables
from robusttune.paths import partial_of, sync
from robusttune.ranks import on_rank_zero, rank
from robusttune.types import Split

Values = dict[str, dict[str, float | None]]  # condition -> metric -> value, None if it is unknown


def write_report(
    folder: Path, results: dict[str, Any], metrics: ConditionMetrics, data: Any, split: Split, name: str
) -> list[str]:
    """Write the report of a test or validation, and return one line of output for each kind of file.

    Every rank must call this. Each writes its own samples, and rank 0 the rest.

    Args:
        folder: Folder of the report.
        results: Results as plain data.
        metrics: Computed metrics.
        data: Data module.
        split: Split that was evaluated.
        name: Name of the report's files, such as ``test``.

    Raises:
        RobustTuneError: The folder cannot be written. The earlier report stays unchanged.
    """
    samples = f"{name}.parquet"
    mask = f"missing/{split if split == 'val' else name}.parquet"
    writers: Writers = {
        f"{name}.csv": lambda path: _write_rows(path, condition_rows(results["conditions"])),
        f"{name}_classes.csv": lambda path: write_classes(path, class_rows(metrics.measured, metrics.classes.names)),
    }
    lines = [f"All metrics, classes and samples: {folder / name}*"]
    if isinstance(data, ImageTextDataModule) and split == "test":
        shown = chosen_predictions(data, metrics)
        writers[f"{name}.png"] = lambda path: draw(data, shown, results["checkpoint"]).save(path, format="PNG")
        lines.append(f"Samples and predictions drawn in {folder / f'{name}.png'}")
    if isinstance(data, ImageTextDataModule) and split in data.masks:
        writers[mask] = lambda path: write_split_mask(data, split, path)
        lines.append(f"Masks written to {folder / 'missing'}")

    def finish(parts: list[tuple[str, Path, OSError | None]]) -> None:
        """Write everything else on rank 0, and replace the earlier report."""
        for _, path, error in parts:
            if error is not None:
                raise error
            if not path.exists():
                raise RobustTuneError(
                    f"{path} of another node is not here: put the runs on a disk that all nodes share"
                )
        stale = [mask, *(str(path.relative_to(folder)) for path in (folder / samples).glob("*.parquet"))]
        written = {shard: path for shard, path, _ in parts}
        replace_together(folder, writers, f"{name}.json", results, stale, written)

    shard, problem = f"{samples}/{rank():05}.parquet", None
    partial = partial_of(folder / shard)
    try:
        try:
            _make_folder(folder / samples)
            write_samples(partial, sample_tables(metrics))
            sync(partial)
        except OSError as error:
            problem = OSError(error.errno, error.strerror or str(error))
        on_rank_zero((shard, partial, problem), finish)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)  # pyarrow writes a whole sentence to strerror.
        raise RobustTuneError(
            f"the report in {folder} cannot be written ({reason}), and the previous one is unchanged: "
            f"make room, and {'validate' if split == 'val' else 'test'} again"
        ) from error
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
    return lines


def _make_folder(folder: Path) -> None:
    """Create the folder of the samples; earlier versions wrote a file of that name."""
    if folder.is_file():
        with suppress(OSError):  # Another rank may have replaced it.
            folder.unlink()
    folder.mkdir(parents=True, exist_ok=True)


def condition_rows(values: Values) -> Iterable[dict[str, Any]]:
    """Yield one row a condition, with its name under ``condition`` and its metrics.

    Example:
        >>> list(condition_rows({"complete": {"accuracy": 0.9}}))
        [{'condition': 'complete', 'accuracy': 0.9}]
    """
    return ({"condition": name, **row} for name, row in values.items())


def write_classes(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write the table of classes as CSV. Floats have six significant digits."""
    _write_rows(path, ({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()} for row in rows))


def write_samples(path: Path, tables: Iterable[pa.Table]) -> None:
    """Write all tables to one Parquet file, one after the other, so that memory holds only one of them."""
    writer = None
    for table in tables:
        writer = writer or pq.ParquetWriter(path, table.schema, compression="zstd")
        writer.write_table(table)
    if writer is not None:
        writer.close()


def _write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = None
        for row in rows:
            if writer is None:
                writer = csv.DictWriter(file, list(row))
                writer.writeheader()
            writer.writerow({name: csv_cell(value) for name, value in row.items()})
