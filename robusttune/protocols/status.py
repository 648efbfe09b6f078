"""The status of a protocol on the terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from robusttune.counting import counted
from robusttune.protocols.state import Progress, RunState
from robusttune.terminal import cell, print_line

LISTED = 40  # largest number of runs that are listed one by one


def show_status(states: Sequence[RunState], folder: Path) -> None:
    """Print a table of runs, or of the first axis if there are many, and why runs have failed or cannot run.

    Args:
        states: States of the runs.
        folder: Folder of the runs.
    """
    Console().print(_by_run(states) if len(states) <= LISTED else _by_first_axis(states))
    for state in states:
        note = state.fit.reason if state.fit.progress is Progress.NOT_STARTED else None
        for reason in [*state.reasons, *([note] if note else [])]:
            print_line(f"{state.run.slug}: {reason}")
    print_line(f"{summary(states)}; folder {folder}")


def summary(states: Sequence[RunState]) -> str:
    """Return the number of runs, and of those in each state."""
    counts = Counter(state.progress for state in states)
    return f"{counted(len(states), 'run')}: " + ", ".join(f"{counts[one]} {one}" for one in Progress if counts[one])


def _by_run(states: Sequence[RunState]) -> Table:
    table = Table()
    for title in ("run", "fit", "tests"):
        table.add_column(title)
    for state in states:
        counts = Counter(step.progress for step in state.tests)
        several = [f"{counts[one]} {one}" for one in Progress if counts[one]]
        table.add_row(
            cell(state.run.slug), state.fit.progress, next(iter(counts), "") if len(counts) < 2 else ", ".join(several)
        )
    return table


def _by_first_axis(states: Sequence[RunState]) -> Table:
    axis = next(iter(states[0].run.labels))
    table = Table()
    table.add_column(axis)
    for progress in Progress:
        table.add_column(progress, justify="right")
    for label in dict.fromkeys(state.run.labels[axis] for state in states):
        counts = Counter(state.progress for state in states if state.run.labels[axis] == label)
        table.add_row(cell(label), *(str(counts[progress] or "") for progress in Progress))
    return table
