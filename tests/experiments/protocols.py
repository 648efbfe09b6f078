"""Run the miniatures of the protocols, and write what their tables need.

    make protocols                                  # all of them
    python -m experiments.protocols demo_molt       # one of them

The runs lie in `runs/protocols`, where `robusttune protocol status demo_molt --runs runs/protocols` finds them, too. A
run that is done is not repeated.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from datetime import date
from pathlib import Path

from experiments.records import ROOT, RUNS, Record, Results, versions

from robusttune.cli import main as robusttune
from robusttune.commands.resolved import Resolver
from robusttune.protocols.identity import identify
from robusttune.protocols.matrix import Labels
from robusttune.protocols.outcomes import Outcome, outcomes_of
from robusttune.protocols.protocol_file import read_protocol
from robusttune.protocols.reading import read_states
from robusttune.protocols.report import document_of
from robusttune.protocols.results import collect
from robusttune.protocols.state import RunState
from robusttune.report.tables import as_markdown

FOLDER = ROOT / "configs/protocols"
MINIATURES = sorted(path.stem for path in FOLDER.glob("demo_*.yaml"))
KEPT = ("accuracy", "base_accuracy", "new_accuracy", "harmonic_mean")


def run(path: Path, runs: Path, parallel: int, command: str) -> Results:
    """Run a protocol, and return the results of its tests.

    Args:
        path: File of the protocol.
        runs: Folder of the runs of all protocols.
        parallel: Number of runs at a time.
        command: Command of the study.

    Raises:
        RuntimeError: A run has failed.
    """
    if robusttune(["protocol", "run", str(path), f"--runs={runs}", f"--parallel={parallel}"]):
        raise RuntimeError(f"a run of {path.stem} has failed")
    states = states_of(path, runs)
    jobs: list[Record] = []
    seconds = {}
    for state in states:
        of_fit = (state.fit.seconds or 0.0) / len(state.tests)
        for test, step in zip(state.run.tests, state.tests, strict=True):
            seconds[_key(state.run.labels | test.labels)] = round(of_fit + (step.seconds or 0.0), 1)
    for outcome in outcomes_of(collect(states), states):
        labels = outcome.labels
        jobs.append({"labels": labels, "seconds": seconds[_key(labels)], "metrics": _metrics(outcome)})
    return Results(command, date.today().isoformat(), versions(), jobs)


def states_of(path: Path, runs: Path) -> list[RunState]:
    """Return the state of all runs of a protocol, given its file and the folder of the runs of all protocols."""
    protocol = read_protocol(str(path))
    return read_states(identify(protocol, protocol.runs(), Resolver(), print), runs / path.stem, None)


def tables(results: Results) -> str:
    """Return Markdown: the tables of the report on a miniature."""
    protocol = read_protocol(str(FOLDER / f"{results.command.split()[-1]}.yaml"))
    outcomes = [Outcome(job["labels"], headline=KEPT[0], values=job["metrics"]) for job in results.jobs]
    return "\n".join(as_markdown(table) for table in document_of(protocol, outcomes).tables).rstrip("\n")


def _key(labels: Labels) -> frozenset[tuple[str, str]]:
    return frozenset(labels.items())


def _metrics(outcome: Outcome) -> Record:
    return {
        condition: {metric: round(value, 6) for metric, value in values.items() if metric in KEPT and value is not None}
        for condition, values in outcome.values.items()
    }


def main(args: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="miniatures, by default all")
    parser.add_argument("--runs", type=Path, default=Path("runs/protocols"), help="folder of the runs")
    parser.add_argument("--parallel", type=int, default=os.cpu_count(), help="runs at a time, one core each")
    given = parser.parse_args(args)
    for name in given.names or MINIATURES:
        command = f"python -m experiments.protocols {name}"
        results = run(FOLDER / f"{name}.yaml", given.runs.resolve(), given.parallel, command)
        results.write(RUNS / f"protocol_{name}" / "results.json")
        print(f"{name}, {results.minutes:.1f} minutes in all\n{tables(results)}")


if __name__ == "__main__":
    main()
