"""Installed from its wheel, the package works without the clone."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a wheel's files, outside of the clone."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    with ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def run(installed: Path, cwd: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command line of the wheel, in a working folder of its own."""
    environment = os.environ | {"PYTHONPATH": str(installed), "XDG_CACHE_HOME": str(cwd / "cache")}
    command = [sys.executable, "-P", "-m", "robusttune", *arguments]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=True)


def test_the_wheel_has_every_configuration(installed: Path, tmp_path: Path) -> None:
    files = {path.relative_to(ROOT / "configs") for path in (ROOT / "configs").rglob("*") if path.is_file()}
    packaged = installed / "robusttune/configs"
    assert {path.relative_to(packaged) for path in packaged.rglob("*") if path.is_file()} == files
    assert sorted(path.name for path in installed.iterdir() if "dist-info" not in path.name) == ["robusttune"]
    listed = run(installed, tmp_path, "configs").stdout
    assert "  food101 " in listed
    assert "  conditions/full " in listed


def test_the_wheel_has_every_published_number(installed: Path) -> None:
    ledger = Path("robusttune/protocols/ledger")
    files = {path.name: path.read_bytes() for path in (ROOT / ledger).glob("*.csv")}
    assert files == {path.name: path.read_bytes() for path in (installed / ledger).iterdir()}


@pytest.mark.slow
def test_a_smoke_run_of_the_demo(installed: Path, tmp_path: Path) -> None:
    done = run(installed, tmp_path, "fit", "--config", "demo", "--config", "configs/trainer/smoke.yaml")
    assert f"--config demo: using {installed}/robusttune/configs/demo.yaml" in done.stderr
    folder = tmp_path / "runs/demo/0"
    assert (folder / "checkpoints/best.ckpt").is_file()
    saved = (folder / "config.yaml").read_text()
    assert "subset: 64" in saved
    assert str(installed) not in saved, "where the configuration was found is no setting"
