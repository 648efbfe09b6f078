"""Draws of large tables that are kept in the cache folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from robusttune.data import kept_samples
from robusttune.data.class_indices import ClassIndices
from robusttune.data.kept_samples import kept_stratified_sample
from robusttune.data.stratification import stratified_sample

SINGLE = ClassIndices.of([[row % 7] for row in range(1003)])
SEVERAL = ClassIndices.of([[row % 7, 7 + row % 3] if row % 5 else [] for row in range(1003)])


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(kept_samples, "LARGE", 1000)
    return tmp_path / "robusttune/samples"


def test_a_kept_draw_is_read_and_equals_a_new_one(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for classes in (SINGLE, SEVERAL):
        expected = stratified_sample(classes, 100, 3).tolist()
        assert kept_stratified_sample(classes, 100, 3).tolist() == expected
        with monkeypatch.context() as patch:
            patch.setattr(kept_samples, "stratified_sample", lambda *_: pytest.fail("the draw was kept"))
            assert kept_stratified_sample(classes, 100, 3).tolist() == expected
    assert len([*folder.iterdir()]) == 2


def test_each_argument_has_a_draw_of_its_own(folder: Path) -> None:
    other = ClassIndices(np.flip(SINGLE.flat).copy())
    for classes, size, seed in ((SINGLE, 100, 3), (SINGLE, 101, 3), (SINGLE, 100, 4), (other, 100, 3)):
        assert kept_stratified_sample(classes, size, seed).tolist() == stratified_sample(classes, size, seed).tolist()
    assert len([*folder.iterdir()]) == 4


@pytest.mark.parametrize("content", [b"", b"\xff", b"\x00" * 126, b"\xff" * 126])
def test_a_damaged_file_is_drawn_again(folder: Path, content: bytes) -> None:
    expected = kept_stratified_sample(SINGLE, 100, 3).tolist()
    (file,) = folder.iterdir()
    whole = file.read_bytes()
    file.write_bytes(content)
    assert kept_stratified_sample(SINGLE, 100, 3).tolist() == expected
    assert file.read_bytes() == whole


def test_a_folder_that_cannot_be_written_is_no_obstacle(folder: Path) -> None:
    folder.parent.mkdir()
    folder.write_text("not a folder")
    assert kept_stratified_sample(SINGLE, 100, 3).tolist() == stratified_sample(SINGLE, 100, 3).tolist()


def test_small_tables_leave_no_files(folder: Path) -> None:
    kept_stratified_sample(ClassIndices.of([[0]] * 999), 100, 3)
    assert not folder.exists()
