"""Translation of errors from jsonargparse and Lightning to sentences for the author of a YAML file.

jsonargparse raises texts only. A few anchors find the names of settings and types in them; values come from the files
and flags. A text without these anchors, such as one of a later version, is shown as it is.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from robusttune.errors import RobustTuneError, machine_error

KINDS = {
    "<class 'int'>": "a whole number",
    "<class 'float'>": "a number",
    "<class 'bool'>": "true or false",
    "<class 'str'>": "text",
    "<class 'list'>": "a list",
    "<class 'tuple'>": "a list",
    "<class 'dict'>": "a mapping",
}
KEY = re.compile(r'Parser key "([^"]+)"')
UNKNOWN = re.compile(r"(?:[Oo]ption '|unrecognized arguments: -*)([\w.]+)")
REQUIRED = re.compile(r"arguments are required: ([\w., ]+)")
DENIED = re.compile(r"'([^']+)' is not allowed")
EXPECTED = re.compile(r"Expected an? (.+?)(?:\. Got value.*)?$", re.MULTILINE)
CLASS_PATH = re.compile(r"class_path[ =]'([^']+)'")
# Lines of jsonargparse's messages that repeat what other lines say.
NOISE = ("Given value", "Subtypes:", "Errors:", "Does not validate", "- Expected a <class 'NoneType'>")


def argument_error(message: str, verb: str, given: Mapping[str, Sequence[Any]]) -> RobustTuneError:
    """Translate jsonargparse's message about a wrong argument.

    Args:
        message: Message of jsonargparse.
        verb: Name of the command.
        given: Values of each setting in the configurations and flags, to show one, and to suggest a name that is spelt
            alike.

    Example:
        >>> print(argument_error("unrecognized arguments: --stesp 3", "plan", {"steps": [2], "json": [None]}))
        stesp is no setting (did you mean steps?): correct the --config or the flags; robusttune plan --help lists ...
    """
    key = ".".join(dict.fromkeys(KEY.findall(message)))  # from the outermost group to the setting
    denied, required, unknown = (anchor.search(message) for anchor in (DENIED, REQUIRED, UNKNOWN))
    if denied:
        return RobustTuneError(
            f"{key or 'a setting'} names {denied[1]:.100}, which a configuration may not run: give the import path of "
            "a class of its kind"
        )
    if key in given and given[key][-1] is None:
        problem = f"{key} is null"
    elif required:
        names = [_join(key, re.sub(r"^(fit|validate|test|predict)\.", "", name)) for name in required[1].split(", ")]
        problem = f"{', '.join(names)} {'is' if len(names) == 1 else 'are'} null, or not given"
    elif unknown:
        name = _join(key, unknown[1])
        problem = f"{name} is no setting{_without_lora(name) or _suggestion(name, {*given})}"
    else:
        problem = _wrong_value(key, message, given) or _one_line(message)
    return RobustTuneError(f"{problem}: correct the --config or the flags; robusttune {verb} --help lists the settings")


def trainer_error(error: Exception) -> RobustTuneError | None:
    """Translate an error that Lightning itself has raised; return None for an error from elsewhere."""
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    refusals = ValueError, TypeError, ImportError, RuntimeError
    is_refusal = isinstance(error, refusals) or type(error).__name__ == "MisconfigurationException"
    if (
        not is_refusal  # The command may have no need to import Lightning.
        or frame is None
        or not frame.tb_frame.f_globals["__name__"].startswith(("lightning.", "lightning_utilities."))
    ):
        return None
    reason = " ".join(str(error).split()).rstrip(".")
    return RobustTuneError(f"{reason:.400}: correct the settings of the trainer")


def instantiation_error(error: Exception) -> RobustTuneError | None:
    """Translate an error in the instantiation of a class; return None for an error that the user cannot correct."""
    cause: BaseException | None = error
    first: BaseException = error
    while cause is not None:
        if isinstance(cause, RobustTuneError):
            return cause
        found = machine_error(cause) if isinstance(cause, OSError) and cause.filename is not None else None
        if found is not None:
            return found
        first, cause = cause, cause.__cause__ or cause.__context__
    if "is not in bounds" in str(error):  # numpy's range of seeds
        return RobustTuneError(f"seed_everything {error}: give another number")
    class_path = CLASS_PATH.search(str(error))
    if class_path is None:
        return None
    reason = " ".join(str(first).split()).rstrip(".")
    return RobustTuneError(
        f"{class_path[1]} cannot be made ({reason:.300}): correct its arguments, or install what it needs"
    )


def _join(group: str, name: str) -> str:
    return f"{group}.{name}" if group else name


def _without_lora(unknown: str) -> str:
    """Say which encoders have the setting ``lora``; empty for another setting."""
    if not re.match(r"(image|text)_encoder\.lora\b", unknown):
        return ""
    return " of this encoder, whose layers an adapter runs (TimmEncoder and Transformers...Encoder have it)"


def _suggestion(unknown: str, known: set[str]) -> str:
    """Suggest a known setting of the same group that is spelt alike."""
    group, _, name = unknown.rpartition(".")
    siblings = [other.rpartition(".")[2] for other in known - {unknown} if other.rpartition(".")[0] == group]
    near = difflib.get_close_matches(name, sorted(siblings), n=1)
    return f" (did you mean {group}.{near[0]}?)".replace(" .", " ") if near else ""


def _wrong_value(key: str, message: str, given: Mapping[str, Sequence[Any]]) -> str | None:
    """Describe a value of a wrong type, ``a.b is 'x', not a whole number``; None if the message names no type."""
    expected = EXPECTED.findall(message[message.rfind("Parser key") :])
    kinds = [kind for name in expected if (kind := _kind(name)) is not None]
    if not key or not expected:
        return None
    # A setting may be given several times. jsonargparse repeats the wrong value in its message.
    value = next((_shown(value) for value in reversed(given.get(key, ())) if str(value) in message), "of another type")
    if any("import path" in name for name in expected) and not {*kinds} & {"a number", "a whole number"}:
        return f"{key} is {value}, not a class that is known (give its import path)"
    return f"{key} is {value}, not {' or '.join(kinds)}" if kinds else None


def _kind(expected: str) -> str | None:
    """Return a type in plain words; None for one that a user does not give."""
    literal, elements = re.match(r"typing\.Literal\[(.+)\]", expected), re.match(r"tuple with (\d+) elements", expected)
    if literal or elements:
        return f"one of {literal[1]}" if literal else f"a list of {elements[1]}"  # type: ignore[index]
    return next((kind for name, kind in KINDS.items() if expected.startswith(name)), None)


def _shown(value: Any) -> str:
    """Return a value as messages show it: in quotes, and not longer than 100 characters."""
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return repr(text if len(text) <= 100 else f"{text:.100}...")


def _one_line(message: str) -> str:
    """Return a message of several lines as one line, without those that repeat others."""
    lines = [line.strip() for line in message.splitlines()]
    line = " ".join(line.removeprefix("- ") for line in lines if line and not line.startswith(NOISE)).rstrip(": .")
    return re.sub(r"'([^']{80})[^']+'", r"'\1...'", line)  # Values can have any length.
