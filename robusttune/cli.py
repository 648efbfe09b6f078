"""The command line: Trainer verbs go to LightningCLI; a project error is one line."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module

from robusttune import __version__
from robusttune.errors import RobustTuneError
from robusttune.escaping import escape_log_records, visible
from robusttune.interruption import listen_early

VERBS = {
    "fit": "train, validating under every condition",
    "validate": "evaluate a checkpoint on the validation split under every condition",
    "test": "evaluate a checkpoint on the test split under every condition",
    "predict": "write a checkpoint's predictions for samples without labels",
}
COMMANDS = {
    "plan": "tell what a fit will take, without it: parameters, operations, memory, disk, time",
    "import": "make a checkpoint of weights that the published MMRL or MMRL++ has written",
    "export": "write an MMRL checkpoint's weights as the published implementation reads them",
    "prefetch": "download all that a configuration needs, for nodes without a network",
    "data verify": "check a copy of a data set: counts, files, duplicates, texts",
    "data show": "draw samples of a data set, with texts, labels and noise",
    "report": "compare finished runs: tables, differences with intervals, plots",
}
MODULES = {
    "plan": "plan",
    "import": "import_weights",
    "export": "export_weights",
    "prefetch": "prefetch",
    "data verify": "data_verify",
    "data show": "data_show",
    "report": "report",
}
USAGE = f"""usage: robusttune COMMAND [OPTIONS]

{chr(10).join(f"  {name:<14}{text}" for name, text in {**VERBS, **COMMANDS}.items())}

robusttune COMMAND --help tells the options of a command. Start with: robusttune fit --config configs/food101.yaml"""


def main(args: Sequence[str] | None = None) -> int:
    """Run a command line; returns the exit status."""
    args = list(sys.argv[1:] if args is None else args)
    first = args[0] if args else "--help"
    if first in ("-h", "--help"):
        print(USAGE)  # noqa: T201
        return 0
    if first == "--version":
        print(f"robusttune {__version__}")  # noqa: T201
        return 0
    escape_log_records()
    try:
        _run(first, args[1:])
    except OSError as error:  # of the machine, such as a disk that is full
        if error.errno is None:
            raise
        what = f"{error.filename!s:.300}: {error.strerror}" if error.filename else error.strerror
        print(f"robusttune: error: {visible(what)}: check the path, who may use it, and the disk", file=sys.stderr)  # noqa: T201
        return 1
    except RobustTuneError as error:
        if error.told_elsewhere:  # and failing here would have the launcher end that process before it has told it
            return 0
        print(f"robusttune: error: {visible(error)}", file=sys.stderr)  # noqa: T201
        return 1
    return 0


def _run(command: str, args: list[str]) -> None:
    # Imported when it is run: torch takes seconds.
    if command in VERBS:
        if command == "fit":
            listen_early()
        import_module("robusttune.commands.trainer").run(command, args)
        return
    if command == "data" and args:
        command, args = f"data {args[0]}", args[1:]
    if command not in COMMANDS:
        raise RobustTuneError(f"there is no command {command!r}: choose from {', '.join([*VERBS, *COMMANDS])}")
    import_module(f"robusttune.commands.{MODULES[command]}").run(args)
