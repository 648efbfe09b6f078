"""The command line: Trainer verbs go to LightningCLI; a project error is one line."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from importlib import import_module

from robusttune import __version__
from robusttune.errors import RobustTuneError
from robusttune.escaping import escape_log_records, visible
from robusttune.interruption import Stopped, leaving_at_once, listen_early, stopping_at_once
from robusttune.streams import lenient_output, problem_with

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
    "configs": "list the configurations that come with robusttune, and copy one to edit",
}
MODULES = {
    "plan": "plan",
    "import": "import_weights",
    "export": "export_weights",
    "prefetch": "prefetch",
    "data verify": "data_verify",
    "data show": "data_show",
    "report": "report",
    "configs": "list_configs",
}
LEAVES_FILES = {*VERBS, "import", "export", "report", "data show"}  # by whom the terminal is not needed


def main(args: Sequence[str] | None = None) -> int:
    """Run a command line; returns the exit status."""
    args = list(sys.argv[1:] if args is None else args)
    with stopping_at_once(), lenient_output() as output:
        status = _status(args)
        problem = problem_with(output)
        if problem is not None:
            _tell(f"standard output cannot be written ({problem}): what was to be shown is lost")
            if _name(args)[0] not in LEAVES_FILES:
                return status or 1
    return status


def _status(args: list[str]) -> int:
    """Run a command; returns the exit status."""
    first = args[0] if args else "--help"
    if first in ("-h", "--help"):
        print(USAGE)  # noqa: T201
        return 0
    if first == "--version":
        print(f"robusttune {__version__}")  # noqa: T201
        return 0
    if first == "data" and (len(args) == 1 or args[1] in ("-h", "--help")):
        print(usage("data "))  # noqa: T201
        return 0
    command, rest = _name(args)
    escape_log_records()
    try:
        _run(command, rest)
    except OSError as error:  # of the machine, such as a disk that is full
        if error.errno is None:
            raise
        what = f"{error.filename!s:.300}: {error.strerror}" if error.filename else error.strerror
        _tell(f"{what}: check the path, who may use it, and the disk")
        return 1
    except RobustTuneError as error:
        if error.reported_elsewhere:  # and failing here would have the launcher end that process before it has told it
            return 0
        _tell(str(error))
        return 1
    except Stopped as stopped:
        return _stopped(command, stopped.signal)
    except KeyboardInterrupt:
        return _stopped(command, signal.SIGINT)
    except SystemExit as ended:
        if isinstance(ended.__context__, KeyboardInterrupt):  # which Lightning has caught
            return _stopped(command, signal.SIGINT)
        raise
    return 0


def usage(prefix: str = "") -> str:
    """Return the commands whose names begin with a prefix, with what they do."""
    named = {name: text for name, text in {**VERBS, **COMMANDS}.items() if name.startswith(prefix)}
    lines = "\n".join(f"  {name:<14}{text}" for name, text in named.items())
    return f"usage: robusttune {prefix}COMMAND [OPTIONS]\n\n{lines}"


USAGE = f"""{usage()}

robusttune COMMAND --help tells the options of a command. Start with: robusttune fit --config demo"""


def _tell(sentence: str) -> None:
    print(f"robusttune: error: {visible(sentence)}", file=sys.stderr)  # noqa: T201


def _stopped(command: str, number: signal.Signals) -> int:
    """Say, on the first process of a machine, that a signal has ended the command; returns the exit status."""
    if os.environ.get("LOCAL_RANK", "0") == "0":
        name = "Ctrl-C" if number == signal.SIGINT else number.name
        _tell(f"{name} has ended robusttune {command} before it was finished: run it again")
    return 128 + number


def _name(args: list[str]) -> tuple[str, list[str]]:
    """Return the command, which may be of two words, and its arguments."""
    if args[:1] == ["data"] and len(args) > 1:
        return f"data {args[1]}", args[2:]
    return (args[0] if args else ""), args[1:]


def _run(command: str, args: list[str]) -> None:
    if command not in VERBS and command not in COMMANDS:
        raise RobustTuneError(f"there is no command {command!r}: choose from {', '.join([*VERBS, *COMMANDS])}")
    if command == "fit":
        listen_early()
    with leaving_at_once():  # imported when it is run: torch takes seconds
        module = import_module(f"robusttune.commands.{MODULES.get(command, 'trainer')}")
    module.run(*([command] if command in VERBS else []), args)
