"""The command line: run a command, and report an error of the project as one line."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from importlib import import_module

from robusttune import __version__
from robusttune.errors import RobustTuneError, machine_error
from robusttune.escaping import escape_log_records
from robusttune.garbage import uncollected
from robusttune.interruption import Stopped, leaving_at_once, listen_early, stopping_at_once
from robusttune.streams import lenient_output, print_error, problem_with

VERBS = {
    "fit": "train, validating under every condition",
    "validate": "evaluate a checkpoint on the validation split under every condition",
    "test": "evaluate a checkpoint on the test split under every condition",
    "predict": "predict the samples of a table with a checkpoint",
}
COMMANDS = {
    "plan": "estimate what a fit takes without running it: parameters, operations, memory, disk, time",
    "tune": "search for good values of some settings, by validation metrics",
    "import": "convert weights of the published MMRL or MMRL++ to a checkpoint",
    "export": "write a tuned model as ONNX, as a folder that is loaded offline, or as published weights",
    "prefetch": "download what a configuration needs, for nodes without a network",
    "data verify": "check a copy of a data set: counts, files, duplicates, texts",
    "data show": "draw samples of a data set, with texts, labels and noise",
    "report": "compare finished runs: tables, differences with intervals, plots",
    "protocol": "run a matrix of fits and tests, such as the tables of a paper, and report its results",
    "demo": "serve a web page to try a checkpoint",
    "configs": "list the configurations that come with robusttune, and copy one to edit",
}
MODULES = {
    "predict": "predict",
    "plan": "plan",
    "tune": "tune",
    "import": "import_weights",
    "export": "export_model",
    "prefetch": "prefetch",
    "data verify": "data_verify",
    "data show": "data_show",
    "report": "report",
    "protocol": "protocol",
    "demo": "demo",
    "configs": "list_configs",
}
LEAVES_FILES = {
    *VERBS,
    "tune",
    "import",
    "export",
    "report",
    "data show",
}  # commands whose result is not what they print


def main(args: Sequence[str] | None = None) -> int:
    """Run a command line and return the exit status.

    Args:
        args: Arguments after ``robusttune``; by default those of the process.
    """
    args = list(sys.argv[1:] if args is None else args)
    with stopping_at_once(), lenient_output() as output:
        status = _status(args)
        problem = problem_with(output)
        if problem is not None:
            print_error(f"standard output cannot be written ({problem}): the output is lost")
            if _name(args)[0] not in LEAVES_FILES:
                return status or 1
    return status


def _status(args: list[str]) -> int:
    """Run a command and return the exit status."""
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
    except OSError as error:  # the machine fails, such as a full disk
        explained = machine_error(error)
        if explained is None:
            raise
        print_error(str(explained))
        return 1
    except RobustTuneError as error:
        if error.reported_elsewhere:  # or the launcher ends the other process before it prints the error
            return 0
        print_error(str(error))
        return 1
    except Stopped as stopped:
        return _stopped(command, stopped.signal)
    except KeyboardInterrupt:
        return _stopped(command, signal.SIGINT)
    except SystemExit as ended:
        if isinstance(ended.__context__, KeyboardInterrupt):  # Lightning has caught it
            return _stopped(command, signal.SIGINT)
        raise
    return 0


def usage(prefix: str = "") -> str:
    """Return the usage text: the commands whose names start with a prefix, one per line with a description."""
    named = {name: text for name, text in {**VERBS, **COMMANDS}.items() if name.startswith(prefix)}
    lines = "\n".join(f"  {name:<14}{text}" for name, text in named.items())
    return f"usage: robusttune {prefix}COMMAND [OPTIONS]\n\n{lines}"


USAGE = f"""{usage()}

robusttune COMMAND --help lists the options of a command. Start with: robusttune fit --config demo"""


def _stopped(command: str, number: signal.Signals) -> int:
    """Print on the first process of a machine that a signal has ended the command, and return the exit status."""
    if os.environ.get("LOCAL_RANK", "0") == "0":
        name = "Ctrl-C" if number == signal.SIGINT else number.name
        print_error(f"{name} has ended robusttune {command} before it was finished: run it again")
    return 128 + number


def _name(args: list[str]) -> tuple[str, list[str]]:
    """Split off the command, which may have two words, and return it with its arguments."""
    if args[:1] == ["data"] and len(args) > 1:
        return f"data {args[1]}", args[2:]
    return (args[0] if args else ""), args[1:]


def _run(command: str, args: list[str]) -> None:
    if command not in VERBS and command not in COMMANDS:
        raise RobustTuneError(f"there is no command {command!r}: choose from {', '.join([*VERBS, *COMMANDS])}")
    if command == "fit":
        listen_early()
    name = f"robusttune.commands.{MODULES.get(command, 'trainer')}"
    if name not in sys.modules:  # imported late, since torch takes seconds
        with leaving_at_once(), uncollected():
            import_module(name)
    sys.modules[name].run(*([] if command in MODULES else [command]), args)
