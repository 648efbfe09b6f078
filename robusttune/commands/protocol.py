"""The command ``protocol``: run a matrix of fits and tests, show its state, and report its results."""

from __future__ import annotations

import signal
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

from robusttune.commands.plain_parser import PlainParser
from robusttune.commands.resolving import resolving
from robusttune.counting import counted
from robusttune.errors import RobustTuneError
from robusttune.interruption import Stopped, slurm_job
from robusttune.paths import user_path
from robusttune.plain_yaml import read_plain_yaml
from robusttune.protocols.identity import IdentifiedRun, identify
from robusttune.protocols.matrix import Protocol
from robusttune.protocols.places import environments
from robusttune.protocols.protocol_file import read_protocol
from robusttune.protocols.reading import read_states
from robusttune.protocols.runner import Options, Runner, has_work
from robusttune.protocols.slurm import submit
from robusttune.protocols.state import Progress
from robusttune.protocols.status import show_status, summary
from robusttune.protocols.stopping import Stopping
from robusttune.terminal import print_line


def run(args: list[str]) -> None:
    """Run the command.

    Args:
        args: Arguments of the command line after ``protocol``.

    Raises:
        RobustTuneError: An argument, the protocol or a setting in it is invalid, or a run has failed.
    """
    given = _parser().parse_args(args)
    protocol = read_protocol(given.file)
    planned = protocol.runs(_only(given.only), _settings(given.set))
    with resolving() as resolve:
        runs = identify(protocol, planned, resolve, print_line)
    folder = user_path(given.runs) / protocol.name
    if any(path.exists() and not path.is_dir() for path in (folder.parent, folder)):
        raise RobustTuneError(f"--runs {given.runs} is no folder, or {folder} is none: give another path")
    {"run": _run, "status": _status, "report": _report}[given.action](protocol, runs, folder, given)


def _run(protocol: Protocol, runs: list[IdentifiedRun], folder: Path, given: Namespace) -> None:
    if given.parallel is not None and given.parallel < 1:
        raise RobustTuneError(f"--parallel is {given.parallel}: give at least 1")
    print_line(f"{summary(read_states(runs, folder, given.data_root))}; folder {folder}")
    if given.slurm is not None:
        _submit(runs, folder, given)
        return
    parallel, stopping = given.parallel or 1, Stopping()
    is_job = slurm_job() is not None  # A job must not hold a GPU while it waits for another one.
    with stopping.listening():
        options = Options(folder, given.data_root, parallel, environments(parallel), waits=not is_job)
        Runner(runs, options, print_line, stopping).run()
    if stopping.signal == signal.SIGINT:
        raise KeyboardInterrupt
    if stopping.signal is not None:
        raise Stopped(stopping.signal)
    states = read_states(runs, folder, given.data_root)
    show_status(states, folder)
    problems = [state for state in states if state.progress in (Progress.FAILED, Progress.DATA_MISSING)]
    if problems:
        raise RobustTuneError(
            f"{len(problems)} of {counted(len(states), 'run')} failed or lack their data, see above: correct that, and "
            "run the protocol again, which repeats no finished run"
        )


def _submit(runs: list[IdentifiedRun], folder: Path, given: Namespace) -> None:
    states = read_states(runs, folder, given.data_root)
    left = [state.run for state in states if has_work(state) and state.progress is not Progress.RUNNING]
    if not left:
        print_line("nothing to submit")
        return
    shared = [given.file, f"--runs={given.runs}"]
    shared += [f"--data-root={given.data_root}"] if given.data_root is not None else []
    shared += ["--set", *given.set] if given.set else []
    job = submit(left, folder, given.slurm, given.parallel, shared)
    print_line(f"SLURM job {job}: an array of {counted(len(left), 'run')}, whose output is in {folder / 'slurm'}")


def _status(protocol: Protocol, runs: list[IdentifiedRun], folder: Path, given: Namespace) -> None:
    show_status(read_states(runs, folder, given.data_root), folder)


def _report(protocol: Protocol, runs: list[IdentifiedRun], folder: Path, given: Namespace) -> None:
    from robusttune.protocols.report import report_on  # Tables and plots take a second to import.
    from robusttune.protocols.results import collect
    from robusttune.report import write
    from robusttune.report.tables import as_rich

    out = user_path(given.out or Path("report", protocol.name))
    if out.exists() and not out.is_dir():
        raise RobustTuneError(f"--out {given.out} is no folder: give another path")
    states = read_states(runs, folder, given.data_root)
    document = report_on(protocol, collect(states), states, given.baseline)
    write(document, out)
    console = Console(highlight=False)
    for table in document.tables:
        console.print(as_rich(table, console.width))
    for left_out in document.left_out:
        print_line(f"{left_out.folder}: {left_out.reason}")
    print_line(document.finding)
    print_line(f"Written to {out}: report.html, report.md, report.csv, report.tex, plots")


def _parser() -> PlainParser:
    parser = PlainParser(prog="robusttune protocol", description="Run, inspect or report a matrix of fits and tests.")
    actions = parser.add_subparsers(dest="action", metavar="run|status|report", required=True)
    for name, about in {
        "run": "run what is not done",
        "status": "list what is done, failed, running and not started",
        "report": "tables and plots of the results",
    }.items():
        action = actions.add_parser(name, help=about, description=about.capitalize() + ".")
        action.add_argument("file", help="Protocol: a YAML file, or the name of one of configs/protocols.")
        action.add_argument(
            "--runs", default="runs", help="Folder of all runs; those of a protocol are in <runs>/<its name>."
        )
        action.add_argument(
            "--data-root", help="Folder that replaces a leading data in relative paths of configurations."
        )
        action.add_argument(
            "--only",
            nargs="+",
            action="extend",
            default=[],
            metavar="AXIS=LABEL,...",
            help="Runs with these labels only.",
        )
        action.add_argument(
            "--set", nargs="+", action="extend", default=[], metavar="NAME=VALUE", help="Settings of every fit."
        )
        if name == "run":
            action.add_argument("--parallel", type=int, help="Number of runs at a time; by default 1, in SLURM all.")
            action.add_argument(
                "--slurm",
                nargs="?",
                const="",
                metavar="OPTIONS",
                help="Submit the runs as a SLURM job array, with these options of sbatch: --slurm='--partition=gpu'.",
            )
        if name == "report":
            action.add_argument("--out", help="Folder of the report; by default report/<name of the protocol>.")
            action.add_argument("--baseline", help="Method to compare the others with; by default the first one.")
    return parser


def _only(given: Sequence[str]) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for axis, labels in (_pair(each, "--only") for each in given):
        found[axis] = (*found.get(axis, ()), *labels.split(","))
    return found


def _settings(given: Sequence[str]) -> dict[str, Any]:
    found = {}
    for name, text in (_pair(each, "--set") for each in given):
        try:
            found[name] = read_plain_yaml(text)
        except (yaml.YAMLError, ValueError, RecursionError):
            found[name] = text
    return found


def _pair(given: str, option: str) -> tuple[str, str]:
    name, equals, value = given.partition("=")
    if not equals or not name:
        raise RobustTuneError(f"{option} {given!r:.100} has no =: give {option} NAME=VALUE")
    return name, value
