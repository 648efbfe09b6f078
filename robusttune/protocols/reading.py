"""Reading the state of runs from their folders."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import yaml

from robusttune.plain_yaml import read_plain_yaml
from robusttune.protocols.command_lines import missing_data
from robusttune.protocols.identity import Identified, IdentifiedRun
from robusttune.protocols.locks import holder
from robusttune.protocols.matrix import PlannedTest
from robusttune.protocols.records import FIT, Records, StepRecord, name_of_test
from robusttune.protocols.state import Progress, RunState, Step
from robusttune.regular_files import read_regular_text
from robusttune.run_names import CONFIG, FINISHED, is_run_number


def read_states(runs: Sequence[IdentifiedRun], folder: Path, data_root: str | None) -> list[RunState]:
    """Read the states of runs.

    Args:
        runs: Runs of a protocol.
        folder: Folder of the runs of this protocol.
        data_root: Folder that replaces a leading ``data`` in paths of data, or None.
    """
    return [read_state(run, folder / run.name, data_root) for run in runs]


def read_state(run: IdentifiedRun, folder: Path, data_root: str | None, is_own: bool = False) -> RunState:
    """Read the state of a run.

    Args:
        run: The run.
        folder: Folder with the numbered folders of the run.
        data_root: Folder that replaces a leading ``data`` in paths of data, or None.
        is_own: True if this process holds the lock of the run.
    """
    records = Records.read(folder)
    numbered, is_finished, note = _find(folder)
    running = None if is_own else holder(folder)
    fit = _fit(run.fit, records, is_finished, note, running, data_root)
    tests = tuple(
        _test(test, one, records, numbered if is_finished else None, running, data_root)
        for test, one in zip(run.run.tests, run.tests, strict=True)
    )
    return RunState(run.run, run.fit.identity, numbered, fit, tests)


def _fit(
    fit: Identified, records: Records, is_finished: bool, note: str | None, running: str | None, data_root: str | None
) -> Step:
    record = records.steps.get(FIT)
    if is_finished:
        return Step(Progress.DONE, None, record.seconds if record else None)
    if running is not None:
        return Step(Progress.RUNNING, running)
    return _open(fit, record, data_root, note)


def _test(
    test: PlannedTest,
    identified: Identified,
    records: Records,
    folder: Path | None,
    running: str | None,
    data_root: str | None,
) -> Step:
    record = records.steps.get(name_of_test(test.report))
    if record is not None and (
        folder is None or (record.identity, record.folder) != (identified.identity, folder.name)
    ):
        record = None  # It is about another test, or another fit.
    if folder is not None and record is not None and has_report(folder, test.report):
        return Step(Progress.DONE, None, record.seconds)
    if record is not None and record.at is None and running is not None:
        return Step(Progress.RUNNING, running)
    return _open(identified, record, data_root)


def _open(identified: Identified, record: StepRecord | None, data_root: str | None, note: str | None = None) -> Step:
    """Return the state of a step that is neither done nor running."""
    missing = missing_data(identified.paths, data_root)
    if missing is not None:
        return Step(Progress.DATA_MISSING, missing)
    if record is not None and record.failed is not None:
        return Step(Progress.FAILED, record.failed, record.seconds)
    return Step(Progress.NOT_STARTED, note)


def has_report(folder: Path, report: str) -> bool:
    """Return whether the report of a test is complete; its JSON file is written last."""
    return all((folder / "report" / f"{report}.{suffix}").exists() for suffix in ("json", "parquet"))


def _find(folder: Path) -> tuple[Path | None, bool, str | None]:
    """Find the numbered folder of a run: the newest finished one, else the newest.

    Returns:
        The folder or None, whether its fit is finished, and a note about a fit that has begun or is damaged.
    """
    numbered = [path for path in folder.iterdir() if is_run_number(path.name)] if folder.is_dir() else []
    note = None
    for path in sorted(numbered, key=lambda path: -int(path.name)):
        if not (path / FINISHED).is_file():
            note = note or f"{path} was interrupted, and will be continued"
        elif _is_whole(path):
            return path, True, None
        else:
            note = f"{path} has a damaged {CONFIG} or {FINISHED}, and will be trained again in a folder beside it"
    return max(numbered, key=lambda path: int(path.name), default=None), False, note


def _is_whole(folder: Path) -> bool:
    """Return whether the records of a finished fit can be read."""
    try:
        settings = read_plain_yaml(read_regular_text(folder / CONFIG))
        json.loads(read_regular_text(folder / FINISHED))
    except (OSError, ValueError, yaml.YAMLError):
        return False
    return isinstance(settings, dict) and {"data", "model"} <= {*settings}
