"""Reading of run folders: settings, state, and test results."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from robusttune.errors import RobustTuneError
from robusttune.paths import digest_of_file, user_path
from robusttune.plain_yaml import read_plain_yaml
from robusttune.regular_files import NotRegularError, read_regular_text, refuse_irregular
from robusttune.report.conditions import natural

Values = dict[str, dict[str, float | None]]  # condition -> metric -> value, None if it is unknown
# Data settings in a test's record that do not count as test settings: seeds, results of the data selection, and
# settings of the other splits.
IGNORED_TEST_SETTINGS = re.compile(r"seed|missing\.seed|mask|samples(\..*)?|splits\.(shots|val_fraction)")


@dataclass(frozen=True)
class TestResults:
    """The results of `robusttune test` for a run.

    Attributes:
        test_settings: Test settings, such as ``tested.noise.image``, ``tested.checkpoint`` (the file's name) and
            ``tested.samples`` (the number of samples).
        seeds: Seed of the data and seed of the missing-modality protocol; None for an unset one.
        headline: Name of the task's main metric.
        samples: Number of test samples.
        values: Metric values by condition and metric; None for an unknown value.
        intervals: Bounds (low, high) of the 95 % intervals over samples by condition and metric.
        relative: Headline metric divided by its value on complete samples, by condition.
        curves: Condition by missing modality (``image``, ``text`` or ``both``) and missing rate in [0, 1].
        correlation: Canonical correlations of the layers, for true and for shuffled image-text pairs; None if the
            test has none.
        class_names: Names of the classes.
        multilabel: Flag for samples with several labels.
    """

    test_settings: dict[str, Any]
    seeds: tuple[Any, ...]
    headline: str
    samples: int
    values: Values
    intervals: dict[str, dict[str, tuple[float, float]]]
    relative: dict[str, float | None]
    curves: dict[str, dict[float, str]]
    correlation: tuple[list[float], list[float]] | None
    class_names: list[str]
    multilabel: bool


@dataclass(frozen=True)
class Run:
    """A run, read from the folder that `robusttune fit` has created.

    Attributes:
        folder: Folder of the run, below the path that the user gave.
        settings: Settings of the configuration by their dotted path, such as ``model.init_args.beta``.
        finished: Flag for a fit that was not interrupted.
        tested: Results of the test; None if the run is not tested or not finished.

    Example:
        >>> run = Run(Path("runs/molt/0"), {"name": "molt"}, finished=True, tested=None)
        >>> run.predictions.as_posix()
        'runs/molt/0/report/test.parquet'
    """

    folder: Path
    settings: dict[str, Any]
    finished: bool
    tested: TestResults | None

    @property
    def name(self) -> str:
        """Return the name of the run from its settings; runs may share a name."""
        return str(self.settings["name"])

    @property
    def predictions(self) -> Path:
        """Return the folder of Parquet files with the predictions for each sample."""
        return self.folder / "report/test.parquet"


def find_runs(paths: Sequence[str]) -> list[Run]:
    """Find the runs in some folders and below.

    Args:
        paths: Folders of runs, or folders above them.

    Returns:
        Each run once, in the order of the paths, and below each path sorted by folder with numbers by value.

    Raises:
        RobustTuneError: A path is not a folder or holds no runs, or a file of a run cannot be read.
    """
    found: dict[Path, Run] = {}
    for path in map(user_path, paths):
        if not path.is_dir():
            raise RobustTuneError(f"{path} is no folder: give the folder of a run, or one above some")
        runs = [run for folder in _folders(path) if (run := _read(folder)) is not None]
        if not runs:
            raise RobustTuneError(f"{path} holds no runs (folders with a config.yaml): give a folder that does")
        for run in runs:
            found.setdefault(run.folder.resolve(), run)
    return [*found.values()]


def _folders(path: Path) -> Iterator[Path]:
    """Yield the folders with a config.yaml, without looking inside them: loggers may write such files there."""
    for folder, inner, files in os.walk(path, followlinks=False):
        inner.sort(key=natural)
        if "config.yaml" in files:
            inner.clear()
            yield Path(folder)


def _read(folder: Path) -> Run | None:
    """Read the run in a folder; return None if its config.yaml is not the configuration of a run."""
    path = folder / "config.yaml"
    try:
        config = read_plain_yaml(read_regular_text(path))
    except (yaml.YAMLError, ValueError) as error:
        raise RobustTuneError(
            f"{path} is not YAML ({' '.join(str(error).split()):.200}): repair it, or leave it out"
        ) from None
    if not isinstance(config, dict) or not {"name", "model", "data"} <= {*config}:
        return None
    finished = (folder / "finished.json").exists()
    tested = finished and all((folder / "report" / name).exists() for name in ("test.json", "test.parquet"))
    return Run(folder, dict(_flat(config)), finished, read_tested(folder) if tested else None)


def _flat(settings: dict[Any, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield nested settings as (dotted path, value); an empty group is a value."""
    for key, value in settings.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def read_tested(folder: Path, name: str = "test") -> TestResults:
    """Read the results of a test of a run.

    Args:
        folder: Folder of the run.
        name: Name of the report, see ``robusttune test --report``.

    Raises:
        RobustTuneError: A file has another format, or the files come from different tests.
    """
    path, predictions = (folder / "report" / f"{name}.{suffix}" for suffix in ("json", "parquet"))
    try:
        found = json.loads(read_regular_text(path))
        digests = {shard.relative_to(path.parent).as_posix(): shard for shard in predictions.glob("*.parquet")}
        for shard in digests.values():
            refuse_irregular(shard, shard.stat().st_mode)
        listed = {shard: digest for shard, digest in found["files"].items() if shard.startswith(f"{predictions.name}/")}
        same_test = listed == {shard: digest_of_file(where) for shard, where in digests.items()}
        metadata = json.loads(pq.read_schema(min(digests.values())).metadata[b"robusttune"])
        tested = _tested(found, metadata)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, pa.ArrowException, NotRegularError):
        raise RobustTuneError(
            f"{path} and {predictions.name} beside it are not what this version of robusttune test writes: "
            "test the run again, or leave it out"
        ) from None
    if not same_test:
        raise RobustTuneError(
            f"{path} and {predictions.name} beside it come from two different tests: test the run again, or leave it "
            "out"
        )
    return tested


def _tested(found: dict[str, Any], metadata: dict[str, Any]) -> TestResults:
    """Convert the content of ``test.json`` and the metadata of ``test.parquet``."""
    data = dict(_flat(found.get("data") or {}))
    test_settings = {name: value for name, value in data.items() if not IGNORED_TEST_SETTINGS.fullmatch(name)}
    test_settings |= {"checkpoint": Path(found["checkpoint"]).name, "samples": int(found["samples"])}
    robustness = found.get("robustness") or {}
    curves = robustness.get("curves") or {}
    conditions: dict[str, dict[str, Any]] = found["conditions"]
    correlation = found.get("canonical_correlation")
    return TestResults(
        test_settings={f"tested.{name}": value for name, value in test_settings.items()},
        seeds=(data.get("seed"), data.get("missing.seed")),
        headline=str(found["headline"]),
        samples=int(found["samples"]),
        values={name: {metric: _number(value) for metric, value in row.items()} for name, row in conditions.items()},
        intervals={
            name: {metric: (float(bounds[0]), float(bounds[1])) for metric, bounds in row.items() if _known(bounds)}
            for name, row in (found.get("intervals") or {}).items()
        },
        relative={name: _number(value) for name, value in (robustness.get("relative") or {}).items()},
        curves={
            kind: {float(rate): str(name) for rate, name in zip(curve["rates"], curve["conditions"], strict=True)}
            for kind, curve in curves.items()
        },
        correlation=None
        if not correlation
        else (list(map(float, correlation["layers"])), list(map(float, correlation["shuffled"]))),
        class_names=list(map(str, metadata["class_names"])),
        multilabel=bool(metadata["multilabel"]),
    )


def _known(bounds: Any) -> bool:
    return bounds is not None and all(_number(bound) is not None for bound in bounds)


def _number(value: Any) -> float | None:
    """Return the value as a float, or None if it is missing or not finite."""
    return None if value is None or not math.isfinite(value) else float(value)
