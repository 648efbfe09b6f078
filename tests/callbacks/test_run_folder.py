"""Folders of runs: a new one each time, and the way back from a checkpoint."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from robusttune.callbacks.run_folder import next_folder, run_folder_of


def test_numbers_go_on_after_the_highest(tmp_path: Path) -> None:
    assert next_folder(tmp_path / "name").name == "0"
    assert next_folder(tmp_path / "name").name == "1"
    (tmp_path / "name/7").mkdir()
    (tmp_path / "name/notes").mkdir()
    assert next_folder(tmp_path / "name").name == "8"


def test_runs_that_start_together_get_folders_of_their_own(tmp_path: Path) -> None:
    with ThreadPoolExecutor(16) as pool:
        folders = list(pool.map(lambda _: next_folder(tmp_path), range(64)))
    assert len(set(folders)) == 64


def test_reports_go_beside_the_checkpoint() -> None:
    assert run_folder_of("runs/food101/3/checkpoints/best.ckpt") == Path("runs/food101/3")
    assert run_folder_of("/downloads/model.ckpt") == Path("/downloads")
