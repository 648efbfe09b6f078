"""Results of a study: a JSON file with a line for each finished job, and with what made them."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field
from datetime import date
from multiprocessing import get_context
from pathlib import Path
from time import perf_counter
from typing import Any

import torch

from robusttune.paths import atomic_write

ROOT = Path(__file__).parents[2]
PUBLISHED = Path(__file__).parent / "results"
RUNS = Path("runs/experiments")
Record = dict[str, Any]


@dataclass
class Results:
    """What is known of one study.

    Attributes:
        command: Command that made the results, without folders.
        date: Day of the last job, as YYYY-MM-DD.
        versions: Version by name of Python, of the libraries and of the data, and the commit of the package.
        jobs: Settings, seconds and metrics of each finished job.
        summary: What the study derived from all jobs together, such as paired differences.
    """

    command: str
    date: str
    versions: dict[str, str]
    jobs: list[Record] = field(default_factory=list)
    summary: list[Record] = field(default_factory=list)

    @classmethod
    def read(cls, path: Path) -> Results:
        return cls(**json.loads(path.read_text(encoding="utf-8")))

    def write(self, path: Path) -> None:
        """Replace the file atomically. Each job has a line of its own, so that differences can be read."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as temporary:
            temporary.write_text(_to_json(asdict(self)), encoding="utf-8")

    @property
    def minutes(self) -> float:
        return sum(float(job["seconds"]) for job in self.jobs) / 60

    def metrics(self, **settings: Any) -> list[Record]:
        """Return the metrics of the jobs that have these settings."""
        return [job["metrics"] for job in self.jobs if settings.items() <= job.items()]

    def values(self, setting: str) -> list[Any]:
        """Return the values that a setting takes, in the order of the jobs."""
        return list(dict.fromkeys(job[setting] for job in self.jobs))


def load(study: str) -> Results:
    """Read the results that are published with the code."""
    return Results.read(PUBLISHED / f"{study}.json")


def run_jobs(
    root: Path,
    jobs: Iterable[Any],
    measure: Callable[[Any], Record],
    processes: int | None = None,
    data: dict[str, str] | None = None,
) -> Results:
    """Run the jobs that `progress.json` lacks, which is written after each of them.

    Args:
        root: Folder of the study, with `progress.json`.
        jobs: Settings of all runs, each a named tuple of JSON values.
        measure: Function that runs one job and returns its metrics; it must be picklable.
        processes: Number of jobs at a time, each with one CPU thread; by default one for each core.
        data: Versions of the data.

    Returns:
        The results of these jobs, in their order, whatever else has been run before.

    Raises:
        SystemExit: The progress was made with other versions.
    """
    path, jobs = root / "progress.json", list(jobs)
    results = _opened(path, data or {})
    finished = [_settings(record) for record in results.jobs]
    missing = [job for job in jobs if job._asdict() not in finished]
    os.environ["OMP_NUM_THREADS"] = "1"
    with ProcessPoolExecutor(processes, get_context("spawn"), torch.set_num_threads, (1,)) as pool:
        running = {pool.submit(_timed, measure, job): job for job in missing}
        failed: Exception | None = None
        for future in as_completed(running):
            job = running[future]
            try:
                seconds, metrics = future.result()
            except Exception as error:
                failed = failed or error
                pool.shutdown(wait=False, cancel_futures=True)  # jobs that have begun still finish and are kept
                continue
            results.jobs.append({**job._asdict(), "seconds": round(seconds, 1), "metrics": metrics})
            results.date = date.today().isoformat()
            results.write(path)
            print(f"{len(results.jobs)} of {len(jobs)} jobs, {seconds:.0f} s: {job}", flush=True)
    if failed:
        raise failed
    results.jobs = [next(record for record in results.jobs if _settings(record) == job._asdict()) for job in jobs]
    return results


def _opened(path: Path, data: dict[str, str]) -> Results:
    shown = [Path(word).name if Path(word).exists() else word for word in sys.argv[1:]]
    study = Path(sys.argv[0]).with_suffix("").parts
    inside = study[study.index("experiments") :] if "experiments" in study else ("experiments", study[-1])
    command = shlex.join(["python", "-m", ".".join(inside), *shown])
    new = Results(command, date.today().isoformat(), versions() | data)
    if not path.exists():
        return new
    found = Results.read(path)
    if found.versions != new.versions:
        sys.exit(f"{path} was made with {found.versions}, and now there are {new.versions}: delete it to start again")
    found.command = command
    return found


def versions() -> dict[str, str]:
    libraries = {name: importlib.metadata.version(name) for name in ("torch", "lightning")}
    git = ["git", "-C", str(ROOT)]
    commit = subprocess.check_output([*git, "log", "-1", "--format=%h", "--", "robusttune", "configs"], text=True)
    changed = subprocess.check_output([*git, "status", "--porcelain", "--", "robusttune", "configs"], text=True)
    package = commit.strip() + (" with changes" if changed else "")
    return {"python": platform.python_version(), **libraries, "robusttune": package}


def _timed(measure: Callable[[Any], Record], job: Any) -> tuple[float, Record]:
    start = perf_counter()
    metrics = measure(job)
    return perf_counter() - start, metrics


def _settings(record: Record) -> Record:
    return {name: value for name, value in record.items() if name not in ("seconds", "metrics")}


def _to_json(fields: Record) -> str:
    lines = []
    for name, value in fields.items():
        if isinstance(value, list) and value:
            elements = ",\n".join(f"    {json.dumps(element)}" for element in value)
            lines.append(f'  "{name}": [\n{elements}\n  ]')
        else:
            lines.append(f'  "{name}": {json.dumps(value)}')
    return "{\n" + ",\n".join(lines) + "\n}\n"
