"""Tables whose images are bytes or links, one or several a row: the commands give what they give for files."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fakes import method_flags, mmrl_flags, tiny_flags, write_table
from layouts import picture
from PIL import Image

from robusttune.cli import main

CONFIGS = Path(__file__).parents[2] / "configs"
COLUMNS = "--data.source.image_column=[front, back]"
LABELS = ["soup", "pie"]


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Be quiet."""


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for number in range(24):
        picture(folder / f"{number}.png", number)
    return folder


@pytest.fixture(scope="module")
def server(photos: Path) -> Iterator[str]:
    """The URL of a server that has the photos."""
    site = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(photos)))
    threading.Thread(target=site.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    yield f"http://127.0.0.1:{site.server_port}"
    site.shutdown()
    site.server_close()


def table(folder: Path, split: str, cell: Callable[[str], Any]) -> Path:
    """Write a table of 12 rows, most with two photos; ``cell`` returns what stands for a photo of this name."""
    rows = [
        {
            "front": cell(f"{2 * number}.png"),
            "back": None if number % 4 == 3 else cell(f"{2 * number + 1}.png"),
            "text": f"a {LABELS[number % 2]}" if number % 3 else None,
            "label": LABELS[number % 2],
        }
        for number in range(12)
    ]
    if not isinstance(rows[0]["front"], bytes):
        return write_table(folder, split, rows)
    path = folder / f"{split}.parquet"
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


@pytest.fixture(scope="module")
def flags(photos: Path, text_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Of a table of files, with the mean over both images."""
    path = table(tmp_path_factory.mktemp("files"), "train", lambda name: str(photos / name))
    tiny = [*tiny_flags(Path("none"), text_folder), COLUMNS, "--data.source.several_images=mean"]
    return [f"--config={CONFIGS}/table.yaml", *tiny, *(f"--data.source.{split}={path}" for split in ("train", "val"))]


@pytest.fixture(scope="module")
def run(flags: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("runs")
    assert main(["fit", *flags, f"--run_root={root}", "--data.batch_size=6"]) == 0
    return root / "table" / "0"


def results(run: Path, test: Path, folder: Path) -> tuple[dict[str, Any], pa.Table]:
    """Return the metrics of a table and its predictions."""
    kept = shutil.copytree(run, folder)
    assert main(["test", f"--ckpt_path={kept}", f"--data.source.test={test}"]) == 0
    predict = ["predict", f"--ckpt_path={kept}", f"--input={test}", f"--out={kept}/predictions", COLUMNS]
    assert main([*predict, "--data.source.several_images=mean", "--data.loader.workers=0"]) == 0
    report = kept / "report"
    with Image.open(report / "test.png") as drawn:
        assert drawn.width > 1000
    return json.loads((report / "test.json").read_text())["conditions"], pq.read_table(kept / "predictions/parts")


@pytest.mark.slow
def test_bytes_and_links_give_what_files_give(run: Path, photos: Path, server: str, tmp_path: Path) -> None:
    cells: dict[str, Callable[[str], Any]] = {
        "files": lambda name: str(photos / name),
        "bytes": lambda name: (photos / name).read_bytes(),
        "links": lambda name: f"{server}/{name}",
    }
    found = {}
    for kind, cell in cells.items():
        (tmp_path / kind).mkdir()
        found[kind] = results(run, table(tmp_path / kind, "test", cell), tmp_path / kind / "run")
    assert len(found["files"][1]) == 12
    assert found["bytes"] == found["files"]
    assert found["links"] == found["files"]


@pytest.mark.slow
def test_the_second_image_matters(run: Path, photos: Path, tmp_path: Path) -> None:
    """The mean of two equal images is one image; another second image gives other predictions."""
    rows = [
        {"front": str(photos / "0.png"), "back": second and str(photos / second), "text": "a pie", "label": "pie"}
        for second in (None, "0.png", "9.png")
    ]
    predictions = results(run, write_table(tmp_path, "test", rows), tmp_path / "run")[1]
    probabilities = predictions.drop_columns(["id", "prediction", "probability", "modalities", "unreadable"])
    alone, equal, other = ([*row.values()] for row in probabilities.to_pylist())
    assert equal == pytest.approx(alone, rel=1e-3)
    assert other != pytest.approx(alone, rel=1e-3)


def test_verify_and_show(flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = [flag for flag in flags if "data.source" in flag or "encoder" in flag or "--config" in flag]
    flags = [flag for flag in flags if "source.val" not in flag]
    assert main(["data", "verify", *flags]) == 0
    assert "21 distinct" in capsys.readouterr().out
    assert main(["data", "show", *flags, "--samples=2", f"--out={tmp_path}/mean.png"]) == 0
    first = [flag.replace("images=mean", "images=first") for flag in flags]
    assert main(["data", "show", *first, "--samples=2", f"--out={tmp_path}/first.png"]) == 0
    with Image.open(tmp_path / "mean.png") as mean, Image.open(tmp_path / "first.png") as alone:
        assert mean.size == alone.size
        assert mean.tobytes() != alone.tobytes()


def test_mmrl_refuses_the_mean(
    flags: list[str], clip_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = [flag for flag in flags if "data.source" in flag]
    mmrl = [f"--config={CONFIGS}/food101_mmrl.yaml", *mmrl_flags(Path("none"), clip_folder), f"--run_root={tmp_path}"]
    assert main(["fit", *mmrl, "--data.source=robusttune.data.sources.Table", *source]) == 1
    message = "MMRL adapts the image encoder itself, and cannot average features of several images: set data.source"
    assert message in capsys.readouterr().err


def test_dcp_refuses_the_mean(
    flags: list[str], clip_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its prompts change the layers that the images run through."""
    source = [flag for flag in flags if "data.source" in flag]
    dcp = [f"--config={CONFIGS}/{name}.yaml" for name in ("food101", "methods/dcp")]
    dcp += [*method_flags(Path("none"), clip_folder, "dcp"), f"--run_root={tmp_path}"]
    assert main(["fit", *dcp, "--data.source=robusttune.data.sources.Table", *source]) == 1
    message = "DCP adapts the image encoder itself, and cannot average features of several images: set data.source"
    assert message in capsys.readouterr().err
