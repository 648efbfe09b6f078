"""`predict` in several processes, killed in the middle, and on a full disk."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from fakes import tiny_flags, write_table
from forked import run_command
from small_disk import small_disk

from robusttune.cli import main

CONFIG = Path(__file__).parents[2] / "configs" / "table.yaml"
TEXTS = "--data.source.image_column=null"
COUNT = 3000

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def run(text_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a fit to texts."""
    root = tmp_path_factory.mktemp("runs")
    rows = [{"text": f"{word} {number}", "label": word} for number in range(8) for word in ("soup", "pie")]
    flags = [*tiny_flags(Path("none"), text_folder), TEXTS, f"--run_root={root}"]
    flags.append(f"--data.source.train={write_table(root, 'train', rows)}")
    assert main(["fit", f"--config={CONFIG}", *flags]) == 0
    return root / "table/0"


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rows = [{"text": f"{'soup' if number % 3 else 'pie'} {number}"} for number in range(COUNT)]
    return write_table(tmp_path_factory.mktemp("data"), "new", rows)


def command(run: Path, table: Path, out: Path, *more: str) -> list[str]:
    flags = [TEXTS, "--data.loader.workers=0", "--trainer.accelerator=cpu", "--part_rows=100", *more]
    return ["predict", f"--ckpt_path={run}", f"--input={table}", f"--out={out}", *flags]


def started(arguments: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-m", "robusttune", *arguments], stderr=subprocess.PIPE, text=True)


def assert_all_rows_once(out: Path) -> None:
    found = pq.read_table(out / "parts")
    assert found["id"].to_pylist() == [str(number) for number in range(1, COUNT + 1)]


@pytest.fixture(scope="module")
def whole(run: Path, table: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The predictions of one process."""
    out = tmp_path_factory.mktemp("whole")
    assert main(command(run, table, out)) == 0
    assert_all_rows_once(out)
    return out


def test_a_process_that_is_killed_is_continued(run: Path, table: Path, whole: Path, tmp_path: Path) -> None:
    """Twice, and what was finished before is not touched."""
    out, finished = tmp_path / "out", dict[Path, int]()
    for wanted in (5, 12):
        process = started(command(run, table, out, "--data.batch_size=8"))
        while len(list(out.glob("parts/*.parquet"))) < wanted:
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        parts = {path: path.stat().st_mtime_ns for path in out.glob("parts/*.parquet")}
        assert finished.items() <= parts.items()
        assert wanted <= len(parts) < 30
        finished = parts
    assert main(command(run, table, out)) == 0
    assert {path: path.stat().st_mtime_ns for path in finished} == finished
    assert_all_rows_once(out)
    assert not [path for path in out.rglob("*") if path.suffix == ".partial"]
    predicted, expected = (pq.read_table(folder / "parts")["prediction"] for folder in (out, whole))
    assert predicted == expected


def test_two_processes_do_what_one_does(run: Path, table: Path, whole: Path, tmp_path: Path) -> None:
    """Also if one of them has no rows."""
    two = ["--trainer.devices=2", "--trainer.strategy=ddp"]
    process = started(command(run, table, tmp_path / "out", *two))
    error = process.communicate(timeout=180)[1]
    assert process.returncode == 0, error
    assert "(process 1 of 2)" in error
    assert pq.read_table(tmp_path / "out/parts") == pq.read_table(whole / "parts")
    run_command(*command(run, table, tmp_path / "one", *two, "--part_rows=5000"))
    assert_all_rows_once(tmp_path / "one")


@pytest.mark.exhaustive
def test_jobs_that_start_together_share_a_folder(run: Path, table: Path, whole: Path, tmp_path: Path) -> None:
    """As in a SLURM array."""
    jobs = [started(command(run, table, tmp_path / "out", f"--shard={number}/3")) for number in (1, 2, 3)]
    for job in jobs:
        error = job.communicate(timeout=180)[1]
        assert job.returncode == 0, error
    assert pq.read_table(tmp_path / "out/parts") == pq.read_table(whole / "parts")


def test_a_full_disk_is_one_sentence(
    run: Path, table: Path, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """After room has been made, the same command continues."""
    with small_disk(tmp_path / "disk", "1m") as disk:
        size = sum(path.stat().st_size for path in whole.rglob("*.parquet"))
        (disk / "filling").write_bytes(b"x" * (2**20 - size // 2 - 16_384))
        assert main(command(run, table, disk / "out")) == 1
        error = capsys.readouterr().err.splitlines()[-1]
        assert f"the predictions in {disk}/out cannot be written (No space left on device): make room, or give" in error
        done = len(list(disk.glob("out/parts/*.parquet")))
        assert 0 < done < 30
        assert not list(disk.glob("out/parts/.*.partial"))
        (disk / "filling").unlink()
        assert main(command(run, table, disk / "out")) == 0
        assert f"{COUNT - 100 * done:,} predictions written" in capsys.readouterr().out
        assert_all_rows_once(disk / "out")


@pytest.mark.exhaustive
def test_ctrl_c_leaves_whole_parts(run: Path, table: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    process = started(command(run, table, out, "--data.batch_size=8"))
    while len(list(out.glob("parts/*.parquet"))) < 3:
        assert process.poll() is None
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGINT)
    error = process.communicate(timeout=60)[1]
    assert process.returncode == 128 + signal.SIGINT
    assert "Ctrl-C has ended robusttune predict before it was finished: run it again" in error
    assert all(pq.read_metadata(path).num_rows == 100 for path in out.glob("parts/*.parquet"))
