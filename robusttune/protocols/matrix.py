"""The matrix of a protocol: its axes, and the runs and tests that they stand for. Nothing is imported or trained."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any, Literal

from robusttune.errors import RobustTuneError

Labels = dict[str, str]  # axis -> label of one of its values
LONGEST_SLUG = 120  # characters


@dataclass(frozen=True)
class Overlay:
    """Configurations and settings that are laid over those of other parts.

    Attributes:
        configs: Names or paths of configurations; later ones are laid over earlier ones.
        settings: Values of settings by their names on the command line; they win over the configurations.
    """

    configs: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)


Axes = Mapping[str, Mapping[str, Overlay]]  # axis -> label -> what the value sets


@dataclass(frozen=True)
class Combination:
    """An overlay for the runs with some labels.

    Attributes:
        where: Labels that match, by axis; a run must match all axes that are named.
        overlay: Configurations and settings of these runs.
    """

    where: Mapping[str, tuple[str, ...]]
    overlay: Overlay

    def matches(self, labels: Labels) -> bool:
        """Return whether a run with these labels gets the overlay."""
        return matches(labels, self.where)


@dataclass(frozen=True)
class ProtocolTest:
    """A test of every fit, or one test for every combination of the values of its own axes.

    Attributes:
        report: Name of the report; None for ``test``, or for the labels of a test with axes.
        checkpoint: Checkpoint to test: the best by validation, or the last.
        labels: Further labels of the test.
        axes: Axes of the test, empty for a single one.
        overlay: Configurations and settings of the test.
    """

    report: str | None = None
    checkpoint: Literal["best", "last"] = "best"
    labels: Labels = field(default_factory=dict)
    axes: Axes = field(default_factory=dict)
    overlay: Overlay = Overlay()


@dataclass(frozen=True)
class PlannedTest:
    """One test of a run.

    Attributes:
        report: Name of the report: the files are ``report/<name>.*`` in the folder of the run.
        checkpoint: Checkpoint to test.
        labels: Labels that the test adds to those of its run, such as the target of a transfer.
        overlay: Configurations and settings.
    """

    report: str
    checkpoint: Literal["best", "last"]
    labels: Labels
    overlay: Overlay


@dataclass(frozen=True)
class PlannedRun:
    """One fit with its tests.

    Attributes:
        labels: Label of each axis.
        overlay: Configurations and settings of the fit.
        tests: Tests of the fit.

    Example:
        >>> PlannedRun({"dataset": "DTD", "method": "MMRL++", "seed": "1"}, Overlay(), ()).slug
        'DTD-MMRL++-seed1'
    """

    labels: Labels
    overlay: Overlay
    tests: tuple[PlannedTest, ...]

    @property
    def slug(self) -> str:
        """Return the labels as part of a folder's name."""
        return slug(self.labels)


@dataclass(frozen=True)
class Protocol:
    """A protocol, as its file describes it.

    Attributes:
        name: Name of the file without its ending.
        path: Path of the file.
        title: Title of its tables.
        summary: Kind of summary, such as ``base_to_new``.
        axes: Axes of the matrix.
        overlay: Configurations and settings of every fit, laid over those of the axes.
        combinations: Overlays for the runs with some labels, laid over all others.
        exclude: Labels of runs that are left out.
        tests: Tests of every fit.
        composed: Methods in tables that are composed of others: by their label, the method for each target.
    """

    name: str
    path: Path
    title: str
    summary: str
    axes: Axes
    overlay: Overlay = Overlay()
    combinations: tuple[Combination, ...] = ()
    exclude: tuple[Mapping[str, tuple[str, ...]], ...] = ()
    tests: tuple[ProtocolTest, ...] = (ProtocolTest(),)
    composed: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    def runs(
        self, only: Mapping[str, Sequence[str]] | None = None, settings: Mapping[str, Any] | None = None
    ) -> list[PlannedRun]:
        """Return the runs of the matrix, in the order of its axes; the last axis varies fastest.

        Args:
            only: Labels of the runs and tests to return, by axis; all by default.
            settings: Settings of every fit, which win over all others.

        Raises:
            RobustTuneError: An axis or a label of ``only`` does not exist, or no run is left.
        """
        only = only or {}
        of_tests = [test.axes for test in self.tests]
        known = {**{axis: {**values} for axis, values in self.axes.items()}}
        for axes in of_tests:
            for axis, values in axes.items():
                known[axis] = known.get(axis, {}) | dict(values)
        for test in self.tests:
            for axis, label in test.labels.items():
                known[axis] = known.get(axis, {}) | {label: Overlay()}
        refuse_unknown(only, known, "--only")
        found = [
            run
            for labels in _combinations(self.axes)
            if not any(matches(labels, left_out) for left_out in self.exclude)
            and (run := self._run(labels, settings or {}, only)) is not None
        ]
        if not found:
            raise RobustTuneError(f"{self.path} has no run of these labels: correct --only, or exclude less")
        return found

    def _run(self, labels: Labels, settings: Mapping[str, Any], only: Mapping[str, Sequence[str]]) -> PlannedRun | None:
        """Return the run with these labels; None if ``only`` leaves it or all of its tests out."""
        if not matches(labels, {axis: wanted for axis, wanted in only.items() if axis in labels}):
            return None
        parts = [self.axes[axis][label] for axis, label in labels.items()]
        parts += [self.overlay, *(c.overlay for c in self.combinations if c.matches(labels)), Overlay((), settings)]
        tests = [planned for test in self.tests for planned in _tests(test)]
        own = {axis: wanted for axis, wanted in only.items() if axis not in labels}
        kept = tuple(test for test in tests if matches(test.labels, own))
        return None if tests and not kept else PlannedRun(labels, joined(parts), kept)


def matches(labels: Labels, where: Mapping[str, Sequence[str]]) -> bool:
    """Return whether labels are among the given ones, on every axis that is given.

    Example:
        >>> matches({"dataset": "DTD", "seed": "1"}, {"dataset": ["DTD", "EuroSAT"]})
        True
    """
    return all(labels.get(axis) in wanted for axis, wanted in where.items())


def joined(parts: Sequence[Overlay]) -> Overlay:
    """Lay overlays over each other: all configurations in their order, and of each setting the last value.

    Example:
        >>> joined([Overlay(("demo",), {"data.seed": 1}), Overlay((), {"data.seed": 2})])
        Overlay(configs=('demo',), settings={'data.seed': 2})
    """
    settings: dict[str, Any] = {}
    for part in parts:
        for name, value in part.settings.items():
            settings.pop(name, None)  # A later value of a whole group must come after earlier values inside it.
            settings[name] = value
    return Overlay(tuple(config for part in parts for config in part.configs), settings)


def slug(labels: Labels) -> str:
    """Return labels as part of a file's name. A label that is a number gets the name of its axis.

    Example:
        >>> slug({"dataset": "Stanford Cars", "shots": "16"})
        'Stanford_Cars-shots16'
    """
    words = [f"{axis}{label}" if re.fullmatch(r"[\d.]+", label) else label for axis, label in labels.items()]
    return "-".join(re.sub(r"[^\w.+]+", "_", word).strip("_.") or "_" for word in words)[:LONGEST_SLUG]


def refuse_unknown(given: Mapping[str, Sequence[str]], axes: Mapping[str, Mapping[str, Any]], where: str) -> None:
    """Refuse labels that no axis has.

    Args:
        given: Labels by axis.
        axes: Axes with their labels.
        where: Place of the labels, for the error message.

    Raises:
        RobustTuneError: An axis or a label does not exist.
    """
    for axis, labels in given.items():
        if axis not in axes:
            raise RobustTuneError(f"{where} names the axis {axis!r:.100}: give one of {', '.join(axes)}")
        for label in labels:
            if label not in axes[axis]:
                known = ", ".join(axes[axis])
                raise RobustTuneError(f"{where} names {label!r:.100}, which {axis} does not have: give one of {known}")


def _combinations(axes: Axes) -> Iterator[Labels]:
    for labels in product(*axes.values()):
        yield dict(zip(axes, labels, strict=True))


def _tests(test: ProtocolTest) -> Iterator[PlannedTest]:
    """Yield a test for every combination of the values of its axes."""
    for labels in _combinations(test.axes):
        overlay = joined([*(test.axes[axis][label] for axis, label in labels.items()), test.overlay])
        parts = [part for part in (test.report, slug(labels) if labels else None) if part is not None]
        report = "_".join(parts) or slug(test.labels) or "test"
        yield PlannedTest(report, test.checkpoint, test.labels | labels, overlay)
