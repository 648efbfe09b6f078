"""The command ``tune``: search for good values of some settings."""

from __future__ import annotations

from importlib.util import find_spec

from rich.console import Console
from rich.table import Table

from robusttune.commands.configs import prepare_arguments
from robusttune.commands.plain_parser import PlainParser
from robusttune.commands.resolving import resolving
from robusttune.errors import RobustTuneError
from robusttune.escaping import shell
from robusttune.paths import user_path
from robusttune.settings import as_flags
from robusttune.terminal import cell, print_line
from robusttune.tuning.search import FOLDER, Search, short
from robusttune.tuning.space import corners, read_space

SHOWN = 5  # trials in the table
# Trials are judged by validation data alone, and do not even check the test split.
WITHOUT_TEST = "--data.splits.check_test=false"
FIXED = ("run_root", "name", "resume", "ckpt_path")  # settings that every trial gets from the search


def run(args: list[str]) -> None:
    """Run the command.

    Args:
        args: Arguments of the command line after ``tune``.

    Raises:
        RobustTuneError: An argument is invalid, or no trial has finished.
    """
    given, rest = _parser().parse_known_args(args)
    if given.trials < 1 or given.parallel < 1:
        raise RobustTuneError("--trials and --parallel count trials: give at least 1")
    if find_spec("optuna") is None:
        raise RobustTuneError("robusttune tune needs optuna: pip install 'robusttune[tune]'")
    prepared = prepare_arguments(rest)
    space = read_space(user_path(given.space))
    for name in FIXED:
        if name in space:
            raise RobustTuneError(f"{name} is set by robusttune tune itself, see --out: leave it out")
    monitor = prepared.settings.get("monitor", [None])[-1]
    if not isinstance(monitor, str) or not monitor.startswith("val/"):
        raise RobustTuneError(
            f"monitor is {monitor!r:.100}, and trials are compared by it: give --monitor val/mean/accuracy, "
            "val/mean/f1_macro for samples with several labels, or val/mean/loss"
        )
    fit = [*prepared.args, WITHOUT_TEST]
    with resolving() as resolve:
        for values in corners(space):
            resolve("fit", [*fit, *as_flags(values)])  # raises the error that a setting does not exist
    search = Search(fit, space, monitor, user_path(given.out), str(prepared.settings), given.storage, given.seed)
    search.run(given.trials, given.parallel)
    _show(search)


def _parser() -> PlainParser:
    parser = PlainParser(
        prog="robusttune tune",
        usage="robusttune tune --config CONFIG --space SPACE [OPTIONS] [SETTINGS OF FIT]",
        description="Search for the values of settings with the best validation metric. Each trial is a fit.",
        allow_abbrev=False,
    )
    parser.add_argument("--space", required=True, help="YAML file with the settings to vary, and their values.")
    parser.add_argument("--trials", type=int, default=30, help="Number of trials, with those of earlier calls.")
    parser.add_argument("--parallel", type=int, default=1, help="Number of trials that run at once.")
    parser.add_argument("--out", default="runs/tune", help="Folder of the trials; the search in it is continued.")
    parser.add_argument("--storage", help="URL of a database, for searches that run on several machines.")
    parser.add_argument("--seed", type=int, default=0, help="Seed of the search.")
    return parser


def _show(search: Search) -> None:
    """Print the best trials, and how to go on.

    Raises:
        RobustTuneError: No trial has finished.
    """
    trials = search.trials()
    if not trials:
        raise RobustTuneError("no trial has finished: give more --trials")
    table = Table("trial", search.monitor)
    for name in search.space:
        table.add_column(cell(name))
    for trial in trials[:SHOWN]:
        table.add_row(
            str(trial.number), f"{trial.value:.4f}", *(cell(short(trial.params[name])) for name in search.space)
        )
    Console().print(table)
    print_line(f"Best values: {' '.join(map(shell, search.flags_of(trials[0])))}")
    print_line(f"Its model: {trials[0].user_attrs[FOLDER]}")
