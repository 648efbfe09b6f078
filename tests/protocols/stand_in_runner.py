"""A runner of stand-ins for fits and tests, as a process: ``python stand_in_runner.py FOLDER RUNS PARALLEL``."""

from __future__ import annotations

import sys
from pathlib import Path

from robusttune.protocols import processes
from robusttune.protocols.identity import Identified, IdentifiedRun
from robusttune.protocols.matrix import Overlay, PlannedRun, PlannedTest
from robusttune.protocols.runner import Options, Runner
from robusttune.protocols.stopping import Stopping

TESTS = ("near", "far")


def planned(count: int, *args: str) -> list[IdentifiedRun]:
    """Return runs with two tests each; ``args`` are further arguments of their fits."""
    tests = tuple(PlannedTest(report, "last", {"target": report}, Overlay()) for report in TESTS)
    return [
        IdentifiedRun(
            PlannedRun({"seed": str(seed)}, Overlay(), tests),
            Identified(f"{seed:08}", {}, (f"--seed={seed}", *args)),
            tuple(Identified(f"{seed:08}{report}", {}, ()) for report in TESTS),
        )
        for seed in range(count)
    ]


def run(folder: Path, count: int, parallel: int, *args: str) -> int:
    """Run stand-ins, and return 130 after a Ctrl-C."""
    sys.path.insert(0, str(Path(__file__).parent))
    processes.PROGRAM, processes.PRELOADED = "stand_in", []
    stopping = Stopping()
    with stopping.listening():
        Runner(planned(count, *args), Options(folder, None, parallel, [{}] * parallel), print, stopping).run()
    return 0 if stopping.signal is None else 128 + stopping.signal


if __name__ == "__main__":
    sys.exit(run(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), *sys.argv[4:]))
