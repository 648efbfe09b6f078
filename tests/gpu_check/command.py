"""The command line: which parts run, in how much time, and the table at the end."""

from __future__ import annotations

import argparse
import importlib.metadata
import platform
from datetime import date
from pathlib import Path
from time import perf_counter

from gpu_check.parts import PARTS
from gpu_check.process import run_here, run_in_process
from gpu_check.results import PartResult, Results

LIBRARIES = ("torch", "lightning", "transformers", "timm", "torchmetrics", "tokenizers", "numpy")
SECONDS = 450  # of all parts together on a GPU, so that the whole run takes less than 8 minutes
PATIENCE = 6  # a CPU gets that many times the limit of each part, and no limit of all together
LEAST = 15  # seconds; a part that would get less is not started


def main(arguments: list[str] | None = None) -> int:
    """Run the parts, and return the exit status: 0 if no check failed."""
    parser = argparse.ArgumentParser(prog="gpu-check", description="Check and measure robusttune on a GPU.")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=[*PARTS], metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--small", action="store_true", help="tiny models and few repetitions: durations mean nothing")
    parser.add_argument("--seconds", type=float, help=f"of all parts together; {SECONDS} on a GPU")
    parser.add_argument("--out", type=Path, default=Path("runs/gpu_check.json"), help="JSON file of the results")
    parser.add_argument("--part", help=argparse.SUPPRESS)  # in the process of one part
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.part:
        return run_here(given.part, given.device, given.small, given.folder)
    name = device_name(given.device)
    if name is None:
        print("torch finds no CUDA device: use --device cpu --small to see whether the checks themselves run")
        return 2
    results = Results(name, given.small, date.today().isoformat(), versions())
    given.out.parent.mkdir(parents=True, exist_ok=True)
    whole, patience = (SECONDS, 1) if given.device == "cuda" else (float("inf"), PATIENCE)
    whole = whole if given.seconds is None else given.seconds
    start = perf_counter()
    for part in given.parts:
        left = whole - (perf_counter() - start)
        print(f"{part}: {PARTS[part].title}", flush=True)
        if left < min(LEAST, whole):
            results.parts[part] = PartResult("no time left")
        else:
            results.parts[part] = run_in_process(
                part, given.device, given.small, min(patience * PARTS[part].seconds, left)
            )
        show(results.parts[part])
        results.write(given.out)
    print(f"\n{summary(results)}\nresults: {given.out}")
    return int(results.failed)


def device_name(device: str) -> str | None:
    """Return the name of the device, or None if torch finds none.

    The first lines of a run may import torch here: the parts have processes of their own.
    """
    if device == "cpu":
        return "cpu"
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else None


def versions() -> dict[str, str]:
    """Return the version of Python and of each library that is installed."""
    found = {"python": platform.python_version()}
    for library in LIBRARIES:
        try:
            found[library] = importlib.metadata.version(library)
        except importlib.metadata.PackageNotFoundError:
            found[library] = "not installed"
    return found


def show(part: PartResult) -> None:
    """Print the records of a part."""
    for record in part.records:
        mark = {True: "ok", False: "FAILED", None: "-"}[record.passed]
        values = ", ".join(f"{name} {_short(value)}" for name, value in record.values.items())
        print(f"  {mark:6} {record.name}: {values} {record.note if record.passed is not True else ''}".rstrip(" :"))
    print(f"  {part.state} after {part.seconds:.0f} s {part.note}\n", flush=True)


def summary(results: Results) -> str:
    """Return a table of all parts, as text."""
    lines = [f"{'part':10} {'state':16} {'checks':>7} {'failed':>7} {'seconds':>8}"]
    for name, part in results.parts.items():
        checks = [record for record in part.records if record.passed is not None]
        failed = sum(not record.passed for record in checks)
        lines.append(f"{name:10} {part.state:16} {len(checks):7} {failed:7} {part.seconds:8.0f}")
    return "\n".join(lines)


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
