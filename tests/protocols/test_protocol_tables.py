"""What a protocol file says of its tables: the kind of summary, and methods that are composed of others."""

from __future__ import annotations

from pathlib import Path

import pytest

from robusttune.errors import RobustTuneError
from robusttune.protocols.protocol_file import read_protocol

FILE = """
title: Transfer
summary: transfer
axes:
  dataset: {ImageNet: {}}
  method: {beta 0.9: {}, beta 0.3: {}}
tests:
  - {}
  - axes: {target: {DTD: {}, EuroSAT: {}}}
composed:
  beta per target: {ImageNet: beta 0.9, DTD: beta 0.9, EuroSAT: beta 0.3}
"""


def write(folder: Path, old: str = "", new: str = "") -> str:
    path = folder / "transfer.yaml"
    path.write_text(FILE.replace(old, new))
    return str(path)


def test_composed_methods_are_read(tmp_path: Path) -> None:
    protocol = read_protocol(write(tmp_path))
    targets = {"ImageNet": "beta 0.9", "DTD": "beta 0.9", "EuroSAT": "beta 0.3"}
    assert protocol.composed == {"beta per target": targets}
    assert {run.labels["method"] for run in protocol.runs()} == {"beta 0.9", "beta 0.3"}  # nothing more to run


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("EuroSAT: beta 0.3}", "EuroSAT: beta 0.5}", "composed.beta per target names 'beta 0.5', which method does"),
        ("DTD: beta 0.9", "DDT: beta 0.9", "composed.beta per target names 'DDT', which data set does not have"),
        ("beta per target", "beta 0.3", "composed.beta 0.3 has the label of a method: give it another label"),
        (
            "summary: transfer",
            "summary: transfers",
            r"has no summary 'transfers' \(did you mean transfer\?\): give one",
        ),
    ],
)
def test_mistakes_are_found_before_anything_is_run(tmp_path: Path, old: str, new: str, message: str) -> None:
    with pytest.raises(RobustTuneError, match=message):
        read_protocol(write(tmp_path, old, new))
