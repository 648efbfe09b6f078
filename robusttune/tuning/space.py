"""The search space: the settings to vary, and the values that each may take."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from robusttune.errors import RobustTuneError
from robusttune.yaml_files import read_yaml_file

RANGE_KEYS = {"low", "high", "log", "step"}
FORMS = "give {choices: [...]} or {low: ..., high: ...}, with log: true or a step if wanted"


@dataclass(frozen=True)
class Choices:
    """A setting with some values to choose from.

    Attributes:
        texts: Values as they stand on a command line.
    """

    texts: tuple[str, ...]


@dataclass(frozen=True)
class Range:
    """A setting with a range of numbers, which are integers if both ends are.

    Attributes:
        low: Least value.
        high: Greatest value.
        log: Flag for a search on the logarithmic scale.
        step: Distance of the values, or None.
    """

    low: float
    high: float
    log: bool
    step: float | None

    @property
    def is_integer(self) -> bool:
        """Return whether the values are integers."""
        return isinstance(self.low, int) and isinstance(self.high, int)


Space = dict[str, Choices | Range]


def read_space(path: Path) -> Space:
    """Read a search space from a YAML file.

    Args:
        path: File with one entry a setting: its name on the command line, and its values.

    Raises:
        RobustTuneError: The file cannot be read, or an entry has another form.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     file = Path(folder, "space.yaml")
        ...     _ = file.write_text("{model.lr: {low: 1e-4, high: 0.1, log: true}, model.beta: {choices: [0, 1]}}")
        ...     read_space(file)
        {'model.lr': Range(low=0.0001, high=0.1, log=True, step=None), 'model.beta': Choices(texts=('0', '1'))}
    """
    content = read_yaml_file(path, "search space")
    if not isinstance(content, dict) or not content:
        raise RobustTuneError(
            f"the search space {path} has no settings: give lines such as 'model.lr: ...', and {FORMS}"
        )
    return {str(name): _values(f"{path}: {name}", entry) for name, entry in content.items()}


def corners(space: Space) -> list[dict[str, Any]]:
    """Return the first value of each setting, and the last value of each.

    Example:
        >>> corners({"model.lr": Range(0.0001, 0.1, log=True, step=None), "model.beta": Choices(("0", "1"))})
        [{'model.lr': 0.0001, 'model.beta': '0'}, {'model.lr': 0.1, 'model.beta': '1'}]
    """
    both = {n: (v.texts[0], v.texts[-1]) if isinstance(v, Choices) else (v.low, v.high) for n, v in space.items()}
    return [{name: ends[end] for name, ends in both.items()} for end in (0, 1)]


def _values(where: str, entry: Any) -> Choices | Range:
    if not isinstance(entry, Mapping):
        raise RobustTuneError(f"{where} is {entry!r:.100}: {FORMS}")
    if {*entry} == {"choices"} and isinstance(entry["choices"], list) and entry["choices"]:
        texts = tuple(choice if isinstance(choice, str) else json.dumps(choice) for choice in entry["choices"])
        if len({*texts}) < len(texts):
            raise RobustTuneError(f"{where} has a choice twice: leave one of them out")
        return Choices(texts)
    if not {"low", "high"} <= {*entry} <= RANGE_KEYS:
        raise RobustTuneError(f"{where} has the keys {', '.join(map(str, entry))}: {FORMS}")
    return _range(where, entry)


def _range(where: str, entry: Mapping[str, Any]) -> Range:
    low, high = _number(where, entry["low"]), _number(where, entry["high"])
    step, log = entry.get("step"), entry.get("log", False)
    step = None if step is None else _number(where, step)
    if not isinstance(log, bool):
        raise RobustTuneError(f"{where}.log is {log!r:.100}: give true or false")
    if low >= high:
        raise RobustTuneError(f"{where} has low {low} and high {high}: give a high that is greater")
    if log and (low <= 0 or step is not None):
        raise RobustTuneError(f"{where} has log: true, which needs a low above 0 and no step: correct it")
    if step is not None and step <= 0:
        raise RobustTuneError(f"{where}.step is {step}: give a number above 0")
    if isinstance(step, float) and isinstance(low, int) and isinstance(high, int):
        low, high = float(low), float(high)
    return Range(low, high, log, step)


def _number(where: str, value: Any) -> int | float:
    """Return a number. YAML takes 1e-4 for a text."""
    try:
        number = float(value) if isinstance(value, str) else value
    except ValueError:
        number = None
    if isinstance(number, bool) or not isinstance(number, int | float) or not abs(number) < float("inf"):
        raise RobustTuneError(f"{where} has {value!r:.100} where a number is needed: correct it")
    return number
