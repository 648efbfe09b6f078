"""The folders of runs: what is in them, and which count."""

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

Values = dict[str, dict[str, float | None]]  # condition -> metric -> value, None where it is unknown
# Of how the data of a test were chosen: seeds and what came of it, and what concerns the other splits alone.
NOT_ASKED = re.compile(r"seed|missing\.seed|mask|samples(\..*)?|splits\.(shots|val_fraction)")


@dataclass(frozen=True)
class Tested:
    """What `robusttune test` found of a run.

    Attributes:
        asked: how it was tested: ``tested.noise.image``, ``tested.checkpoint`` (the file's name), ``tested.samples``
            (how many), ...
        seeds: of the data, and of a protocol by which sides are missing.
        headline: the metric that the task is judged by.
        samples: that were tested.
        values: condition -> metric -> value.
        intervals: condition -> metric -> 95 % interval over samples.
        relative: condition -> headline as a share of that of complete samples.
        curves: type of what is missing -> rate in [0, 1] -> condition.
        correlation: canonical correlation of each layer, and the same of shuffled pairs; None where there is none.
        class_names: of the answers.
        multilabel: whether samples have several labels.
    """

    asked: dict[str, Any]
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
    """A folder that a fit has opened.

    Attributes:
        folder: as the user gave it or a folder above it.
        settings: of the configuration, by their paths in it: ``model.init_args.beta``.
        finished: whether the fit came to its end.
        tested: what a test found; None before one, or where the fit was interrupted.
    """

    folder: Path
    settings: dict[str, Any]
    finished: bool
    tested: Tested | None

    @property
    def name(self) -> str:
        return str(self.settings["name"])

    @property
    def answers(self) -> Path:
        """The file of what was answered, sample by sample."""
        return self.folder / "report/test.parquet"


def find_runs(paths: Sequence[str]) -> list[Run]:
    """Runs that are or lie in the folders, each once, in the order of the paths, and in each by name.

    Raises:
        RobustTuneError: a path is no folder or holds no runs, or a file of a run cannot be read.
    """
    found: dict[Path, Run] = {}
    for path in map(user_path, paths):
        if not path.is_dir():
            raise RobustTuneError(f"{path} is no folder: give the folder of a run, or one above some")
        there = [run for folder in _folders(path) if (run := _read(folder)) is not None]
        if not there:
            raise RobustTuneError(f"{path} holds no runs (folders with a config.yaml): give a folder that does")
        for run in there:
            found.setdefault(run.folder.resolve(), run)
    return [*found.values()]


def _folders(path: Path) -> Iterator[Path]:
    """Those with a config.yaml, but none within them: what other loggers leave there is no run."""
    for folder, inner, files in os.walk(path, followlinks=False):
        inner.sort(key=natural)
        if "config.yaml" in files:
            inner.clear()
            yield Path(folder)


def _read(folder: Path) -> Run | None:
    """None where the configuration is not that of a run."""
    path = folder / "config.yaml"
    try:
        config = read_plain_yaml(read_regular_text(path))
    except (yaml.YAMLError, ValueError) as error:
        raise RobustTuneError(
            f"{path} is not YAML ({' '.join(str(error).split()):.200}): mend it, or leave it out"
        ) from None
    if not isinstance(config, dict) or not {"name", "model", "data"} <= {*config}:
        return None
    finished = (folder / "finished.json").exists()
    tested = finished and all((folder / "report" / name).exists() for name in ("test.json", "test.parquet"))
    return Run(folder, dict(_flat(config)), finished, _read_tested(folder / "report") if tested else None)


def _flat(settings: dict[Any, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in settings.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _read_tested(report: Path) -> Tested:
    path = report / "test.json"
    try:
        found = json.loads(read_regular_text(path))
        refuse_irregular(report / "test.parquet", (report / "test.parquet").stat().st_mode)
        is_whole = found["files"]["test.parquet"] == digest_of_file(report / "test.parquet")
        about = json.loads(pq.read_schema(report / "test.parquet").metadata[b"robusttune"])
        tested = _tested(found, about)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, pa.ArrowException, NotRegularError):
        raise RobustTuneError(
            f"{path} and test.parquet beside it are not what this version of robusttune test writes: "
            "test the run again, or leave it out"
        ) from None
    if not is_whole:
        raise RobustTuneError(
            f"{path} and test.parquet beside it are of two different tests: test the run again, or leave it out"
        )
    return tested


def _tested(found: dict[str, Any], about: dict[str, Any]) -> Tested:
    data = dict(_flat(found.get("data") or {}))
    asked = {name: value for name, value in data.items() if not NOT_ASKED.fullmatch(name)}
    asked |= {"checkpoint": Path(found["checkpoint"]).name, "samples": int(found["samples"])}
    robustness = found.get("robustness") or {}
    curves = robustness.get("curves") or {}
    conditions: dict[str, dict[str, Any]] = found["conditions"]
    correlation = found.get("canonical_correlation")
    return Tested(
        asked={f"tested.{name}": value for name, value in asked.items()},
        seeds=(data.get("seed"), data.get("missing.seed")),
        headline=str(found["headline"]),
        samples=int(found["samples"]),
        values={name: {metric: _number(value) for metric, value in row.items()} for name, row in conditions.items()},
        intervals={
            name: {metric: (float(ends[0]), float(ends[1])) for metric, ends in row.items() if _known(ends)}
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
        class_names=list(map(str, about["class_names"])),
        multilabel=bool(about["multilabel"]),
    )


def _known(ends: Any) -> bool:
    return ends is not None and all(_number(end) is not None for end in ends)


def _number(value: Any) -> float | None:
    return None if value is None or not math.isfinite(value) else float(value)
