"""Translation of errors from jsonargparse and Lightning to sentences for the author of a YAML file."""

from __future__ import annotations

import difflib
import re

from lightning.fabric.utilities.exceptions import MisconfigurationException

from robusttune.errors import RobustTuneError

KINDS = {
    "<class 'int'>": "a whole number",
    "<class 'float'>": "a number",
    "<class 'bool'>": "true or false",
    "<class 'str'>": "text",
    "<class 'list'>": "a list",
    "<class 'tuple'>": "a list",
    "<class 'dict'>": "a mapping",
}
VALUE = re.compile(
    r"(?:Got value|Given value|path string): (?!Namespace|NestedArg|\{)(.+?)(?:\. Got value|\.?$)", re.MULTILINE
)
# Lines of jsonargparse's messages that repeat what other lines say.
NOISE = (
    "Given value type",
    "Given value: Namespace",
    "Given value: {",
    "Subtypes:",
    "Errors:",
    "Does not validate",
    "- Expected a <class 'NoneType'>",
)


def argument_error(message: str, verb: str, known: set[str]) -> RobustTuneError:
    """Translate jsonargparse's message about a wrong argument.

    Args:
        message: Message of jsonargparse.
        verb: Name of the command.
        known: Names of all settings in the given configurations, to suggest one that is spelt alike.

    Example:
        >>> print(argument_error("unrecognized arguments: --stesp 3", "plan", {"steps", "json"}))
        stesp is no setting (did you mean steps?): correct the --config or the flags; robusttune plan --help lists ...
    """
    remedy = f"correct the --config or the flags; robusttune {verb} --help lists the settings"
    denied = re.search(r"Importing '([^']+)' is not allowed", message)
    if denied is not None:
        where = ".".join(_keys(message)) or "a setting"
        return RobustTuneError(
            f"{where} names {denied[1]:.100}, which a configuration may not run: give the import path of a class of "
            "its kind"
        )
    absent = _absent_setting(message)
    if absent is not None:
        return RobustTuneError(f"{absent}: {remedy}")
    unknown = _unknown_setting(message)
    if unknown is not None:
        return RobustTuneError(f"{unknown} is no setting{_suggestion(unknown, known)}: {remedy}")
    return RobustTuneError(f"{_wrong_value(message) or _one_line(message)}: {remedy}")


def trainer_error(error: Exception) -> RobustTuneError | None:
    """Translate an error that Lightning itself has raised; return None for an error from elsewhere."""
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    refusals = ValueError, TypeError, ImportError, RuntimeError, MisconfigurationException
    if (
        not isinstance(error, refusals)
        or frame is None
        or not frame.tb_frame.f_globals["__name__"].startswith(("lightning.", "lightning_utilities."))
    ):
        return None
    reason = " ".join(str(error).split()).rstrip(".")
    return RobustTuneError(f"{reason:.400}: correct the settings of the trainer")


def instantiation_error(error: Exception) -> RobustTuneError | None:
    """Translate an error in the instantiation of a class; return None for an error that the user cannot correct."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, RobustTuneError):
            return cause
        if isinstance(cause, OSError) and cause.filename is not None:
            return RobustTuneError(f"{cause.filename!s:.300}: {cause.strerror}: check the path, and who may use it")
        cause = cause.__cause__ or cause.__context__
    if "is not in bounds" in str(error):  # numpy's range of seeds
        return RobustTuneError(f"seed_everything {error}: give another number")
    found = re.search(r"Problem with given class_path '([^']+)':\s*(.+)", str(error))
    reason = re.search(r"Errors:\s*- (.+)", str(error))
    name = re.search(r"Namespace\(class_path='([^']+)'", str(error))
    if found is None and (reason is None or name is None):
        return None
    class_path, why = found.groups() if found else (name[1], reason[1])  # type: ignore[index]
    return RobustTuneError(
        f"{class_path} cannot be made ({why.rstrip('.')}): correct its arguments, or install what it needs"
    )


def _absent_setting(message: str) -> str | None:
    """Describe the setting that is null or missing, if the message is about one."""
    key = ".".join(dict.fromkeys(_keys(message)))
    if "'NoneType' object has no attribute 'keys'" in message:
        return f"{key}.init_args is null"
    if "argument of type 'NoneType' is not iterable" in message:
        return f"{key}.class_path is null"
    if re.search(r"Unable to load config ['\"]null['\"]|Expected a path but null ", message):
        return f"{key} is null"
    found = re.search(r"the following arguments are required: ([\w., ]+)", message)
    if found is None:
        return None
    names = [
        f"{key}.{name}" if key else re.sub(r"^(fit|validate|test|predict)\.", "", name) for name in found[1].split(", ")
    ]
    return f"{', '.join(names)} {'is' if len(names) == 1 else 'are'} null, or not given"


def _unknown_setting(message: str) -> str | None:
    """Return the name of an unknown setting, if the message is about one."""
    found = re.search(r"(?:does not accept option '|unrecognized arguments: (?:--)?)([^\s=']+)", message)
    if found:
        return found[1]
    option = re.search(r"Option '([\w.]+)' is not accepted", message)
    return ".".join([*_keys(message), option[1]]) if option else None


def _suggestion(unknown: str, known: set[str]) -> str:
    """Suggest a known setting of the same group that is spelt alike."""
    group, _, name = unknown.rpartition(".")
    siblings = [other.rpartition(".")[2] for other in known - {unknown} if other.rpartition(".")[0] == group]
    near = difflib.get_close_matches(name, sorted(siblings), n=1)
    return f" (did you mean {group}.{near[0]}?)".replace(" .", " ") if near else ""


def _keys(message: str) -> list[str]:
    """Return the parts of the setting's name that the message is about, from the outermost to the innermost."""
    return re.findall(r'Parser key "([^"]+)"', message)


def _wrong_value(message: str) -> str | None:
    """Describe a value of a wrong type, ``a.b is 'x', not a whole number``; None if the message has another form."""
    key = ".".join(_keys(message))
    tail = message[message.rfind("Parser key") :]
    value = VALUE.search(tail)
    expected = [f"one of {names}" for names in re.findall(r"Expected a typing\.Literal\[(.+?)\]", tail)]
    expected += [f"a list of {count}" for count in re.findall(r"Expected a tuple with (\d+) elements", tail)]
    expected += [kind for name, kind in KINDS.items() if f"Expected a {name}" in tail]
    if not key or value is None:
        return None
    given = value[1] if len(value[1]) <= 100 else f"{value[1]:.100}..."
    shown = "null" if given == "None" else repr(given)
    if "Expected a dot import path" in tail and not set(expected) & {"a number", "a whole number"}:
        return f"{key} is {shown}, not a class that is known (give its import path)"
    return f"{key} is {shown}, not {' or '.join(expected)}" if expected else None


def _one_line(message: str) -> str:
    lines = [line.strip() for line in message.splitlines()]
    line = " ".join(line.removeprefix("- ") for line in lines if line and not line.startswith(NOISE)).rstrip(": .")
    return re.sub(r"'([^']{80})[^']+'", r"'\1...'", line)  # Values can have any length.
