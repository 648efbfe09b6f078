"""Reading of protocol files: plain YAML, with errors that name the file, the place and the remedy."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from robusttune.errors import RobustTuneError
from robusttune.packaged_configs import find_config
from robusttune.protocols.kinds import AXES
from robusttune.protocols.matrix import (
    Axes,
    Combination,
    Overlay,
    PlannedTest,
    Protocol,
    ProtocolTest,
    refuse_unknown,
    slug,
)
from robusttune.run_names import check_report_name
from robusttune.yaml_files import read_yaml_file

KEYS = ("title", "summary", "configs", "settings", "axes", "combinations", "exclude", "tests", "composed")
TEST_KEYS = ("report", "checkpoint", "labels", "axes", "configs", "settings")
OVERLAY = ("configs", "settings")
CONFIGURATION = ("data", "model", "trainer")  # groups of a configuration
CHECKPOINTS = ("best", "last")


def read_protocol(given: str) -> Protocol:
    """Read a protocol file.

    Args:
        given: Path of a file, or the name of one that comes with robusttune, such as ``base_to_new``.

    Raises:
        RobustTuneError: The file does not exist, is not YAML, or is no protocol.
    """
    path = _find(given)
    content = read_yaml_file(path, "protocol")
    if isinstance(content, dict) and {*CONFIGURATION} & {*content}:
        raise RobustTuneError(
            f"{path} is the configuration of one run, and no protocol: run it by robusttune fit --config, or give a "
            "file with axes"
        )
    found = _Part(path, "", content)
    found.check(KEYS)
    axes = _axes(found.part("axes"))
    if not axes:
        raise RobustTuneError(f"{path} has no axes: give at least one, such as seed")
    combinations = tuple(
        Combination(_where(part.part("where"), axes), _overlay(part))
        for part in found.parts("combinations", ("where", *OVERLAY))
    )
    summary = found.text("summary") or "conditions"
    if summary not in AXES:
        near = difflib.get_close_matches(summary, AXES, n=1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise RobustTuneError(f"{path} has no summary {summary!r:.100}{hint}: give one of {', '.join(AXES)}")
    tests = _tests(found, axes)
    return Protocol(
        name=path.stem,
        path=path,
        title=found.text("title") or path.stem,
        summary=summary,
        axes=axes,
        overlay=_overlay(found),
        combinations=combinations,
        exclude=tuple(_where(part, axes) for part in found.parts("exclude", tuple(axes))),
        tests=tests,
        composed=_composed(found.part("composed"), axes, tests),
    )


class _Part:
    """A mapping in a protocol file, with its place for error messages."""

    def __init__(self, path: Path, place: str, value: Any) -> None:
        self.path, self.place = path, place
        if not isinstance(value, dict):
            raise self.error(f"{value!r:.100}, not a mapping")
        self.value: dict[str, Any] = {str(key): each for key, each in value.items()}

    def error(self, problem: str) -> RobustTuneError:
        """Return an error about this part."""
        return RobustTuneError(f"{self.path}: {self.place or 'the file'} is {problem}: correct it")

    def check(self, known: Collection[str]) -> None:
        """Refuse other keys than these."""
        for key in self.value:
            if key not in known:
                near = difflib.get_close_matches(key, known, n=1)
                hint = f" (did you mean {near[0]}?)" if near else ""
                place = f"{self.place} " if self.place else ""
                raise RobustTuneError(
                    f"{self.path}: {place}has the key {key!r:.100}, which does not exist{hint}: "
                    f"give {', '.join(known)} only"
                )

    def part(self, key: str) -> _Part:
        """Return the mapping under a key, empty if there is none."""
        return _Part(self.path, f"{self.place}.{key}".removeprefix("."), self.value.get(key) or {})

    def parts(self, key: str, known: Collection[str]) -> list[_Part]:
        """Return the mappings in a list under a key, with these keys only."""
        value = self.value.get(key) or []
        if not isinstance(value, list):
            raise RobustTuneError(f"{self.path}: {key} is {value!r:.100}, not a list: correct it")
        found = [_Part(self.path, f"{key}[{number}]", each) for number, each in enumerate(value)]
        for part in found:
            part.check(known)
        return found

    def text(self, key: str) -> str | None:
        """Return the text under a key, or None."""
        value = self.value.get(key)
        if value is not None and not isinstance(value, str):
            raise RobustTuneError(f"{self.path}: {key} is {value!r:.100}, not a text: correct it")
        return value


def _find(given: str) -> Path:
    """Return the file: a local one, one in ``configs/protocols``, or one that comes with robusttune."""
    try:
        return find_config(given)
    except RobustTuneError:
        if "/" in given or not given.strip():
            raise
        try:
            return find_config(f"protocols/{given}")
        except RobustTuneError as error:
            raise RobustTuneError(str(error).replace("the configuration protocols/", "the protocol ")) from None


def _axes(part: _Part) -> Axes:
    axes: dict[str, Mapping[str, Overlay]] = {}
    for axis in part.value:
        values = part.part(axis)
        if not values.value:
            raise RobustTuneError(f"{part.path}: {values.place} has no values: give at least one")
        axes[axis] = {}
        for label in values.value:
            if "," in label or label != label.strip() or not label:
                raise RobustTuneError(
                    f"{part.path}: {values.place} has the label {label!r:.100}, and --only takes lists with commas: "
                    "give a label without commas, and without blanks at its ends"
                )
            value = values.part(label)
            value.check(OVERLAY)
            axes[axis] = {**axes[axis], label: _overlay(value)}
    return axes


def _overlay(part: _Part) -> Overlay:
    configs = part.value.get("configs") or []
    if not isinstance(configs, list) or not all(isinstance(config, str) for config in configs):
        raise RobustTuneError(f"{part.path}: {part.place} configs is {configs!r:.100}, not a list of names: correct it")
    return Overlay(tuple(configs), part.part("settings").value)


def _where(part: _Part, axes: Axes) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    if not part.value:
        raise RobustTuneError(
            f"{part.path}: {part.place} has no labels: give some, such as {{{next(iter(axes))}: ...}}"
        )
    for axis, labels in part.value.items():
        found[axis] = tuple(map(str, labels)) if isinstance(labels, list) else (str(labels),)
    refuse_unknown(found, axes, f"{part.path}: {part.place}")
    return found


def _composed(part: _Part, axes: Axes, tests: tuple[ProtocolTest, ...]) -> dict[str, dict[str, str]]:
    """Return the composed methods: by their label, the method for each data set or target."""
    methods = axes.get("method", {})
    datasets = {*axes.get("dataset", {})}
    for test in tests:
        datasets |= {*test.axes.get("target", {}), *([test.labels["target"]] if "target" in test.labels else [])}
    found = {}
    for label in part.value:
        row = part.part(label)
        found[label] = {dataset: str(method) for dataset, method in row.value.items()}
        if label in methods:
            raise RobustTuneError(f"{part.path}: {row.place} has the label of a method: give it another label")
        known = {"data set": dict.fromkeys(sorted(datasets)), "method": methods}
        given = {"data set": [*found[label]], "method": [*found[label].values()]}
        refuse_unknown(given, known, f"{part.path}: {row.place}")
    return found


def _tests(part: _Part, axes: Axes) -> tuple[ProtocolTest, ...]:
    if part.value.get("tests") == []:
        return ()
    found = tuple(_test(each, axes) for each in part.parts("tests", TEST_KEYS)) or (ProtocolTest(),)
    planned = Protocol("", part.path, "", "", {"run": {"": Overlay()}}, tests=found).runs()[0].tests
    by_report: dict[str, PlannedTest] = {}
    by_labels: dict[frozenset[tuple[str, str]], PlannedTest] = {}
    for test in planned:
        if by_report.setdefault(test.report, test) is not test:
            raise RobustTuneError(f"{part.path}: two tests have the report {test.report}: give each another report")
        other = by_labels.setdefault(frozenset(test.labels.items()), test)
        if other is not test:
            raise RobustTuneError(
                f"{part.path}: the tests {other.report} and {test.report} have the same labels: give them labels, such "
                "as {target: ...}, so that tables can tell them apart"
            )
        try:
            check_report_name(test.report)
        except RobustTuneError as error:
            raise RobustTuneError(f"{part.path}: {error}") from None
    return found


def _test(part: _Part, axes: Axes) -> ProtocolTest:
    report, checkpoint = part.value.get("report"), part.value.get("checkpoint", "best")
    if checkpoint not in CHECKPOINTS:
        raise RobustTuneError(f"{part.path}: {part.place} has the checkpoint {checkpoint!r:.100}: give best or last")
    if report is not None and (not isinstance(report, str) or slug({"": report}) != report):
        raise RobustTuneError(
            f"{part.path}: {part.place} has the report {report!r:.100}, which is no plain file name: give another"
        )
    labels = {axis: str(label) for axis, label in part.part("labels").value.items()}
    own = _axes(part.part("axes"))
    for axis in (*labels, *own):
        if axis in axes or (axis in labels and axis in own):
            raise RobustTuneError(f"{part.path}: {part.place} has the axis {axis} a second time: give it another name")
    return ProtocolTest(report, checkpoint, labels, own, _overlay(part))
