"""Seconds until the command line answers: `fit --help` against the bare imports that it needs, and what needs none.

`python tests/benchmarks/bench_startup.py`
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from time import perf_counter

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.paired import compare

IMPORTS = "import lightning.pytorch.cli, torchmetrics, torchvision.transforms.v2, pyarrow, transformers.optimization"


def seconds(*arguments: str) -> Callable[[], float]:
    """A function that runs Python with these arguments and says how long it took."""

    def measure() -> float:
        start = perf_counter()
        subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
        return perf_counter() - start

    return measure


def main() -> None:
    fit_help = seconds("-m", "robusttune", "fit", "--help")
    compare("startup-fit-help", "s", {"fit --help": fit_help, "bare imports": seconds("-c", IMPORTS)}, rounds=5)
    bare = seconds("-c", "pass")
    for name, arguments in {
        "version": ("-m", "robusttune", "--version"),
        "help": ("-m", "robusttune", "--help"),
        "import": ("-c", "import robusttune"),
    }.items():
        compare(f"startup-{name}", "s", {" ".join(arguments): seconds(*arguments), "python": bare})


if __name__ == "__main__":
    main()
