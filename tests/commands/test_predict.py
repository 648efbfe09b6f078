"""The command `predict`: columns, order, parts, resuming, shards, unreadable rows, and no code from a checkpoint."""

from __future__ import annotations

import csv
import datetime
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from fakes import tiny_flags, write_image, write_table

from robusttune.checkpoint_file import KEY, read_checkpoint, seal
from robusttune.cli import main

CONFIG = Path(__file__).parents[2] / "configs" / "table.yaml"
WORDS = {"red": "soup", "lime": "cake and pie", "blue": "tacos"}
COLUMNS = ["id", "prediction", "probability", "modalities", "unreadable", "p_blue", "p_lime", "p_red"]

Predict = Callable[..., pa.Table]


def samples(count: int) -> list[dict[str, Any]]:
    """Return labelled rows, some of which lack a modality."""
    names = [*WORDS]
    rows: list[dict[str, Any]] = []
    for number in range(count):
        label = names[number % 3]
        image, text = f"{names[(number // 3) % 3]}.png", f"{WORDS[label]} recipe {number}"
        shown = {"image": None if number % 5 == 0 else image, "text": None if number % 7 == 1 else text}
        rows.append({"key": f"row-{number}", **shown, "label": label})
    return rows


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of three photos and a table for each split."""
    folder = tmp_path_factory.mktemp("data")
    for colour in WORDS:
        write_image(folder / f"{colour}.png", colour=colour)
    for split, size in {"train": 30, "val": 12, "test": 25}.items():
        write_table(folder, split, samples(size))
    return folder


def fit(data: Path, text_folder: Path, root: Path, *more: str) -> Path:
    """Return the folder of a fit of one epoch."""
    flags = [*tiny_flags(Path("none"), text_folder), "--data.source.id_column=key", f"--run_root={root}"]
    flags.append("--data.cache.folder=null")  # whose bfloat16 predict does not have
    flags += [f"--data.source.{split}={data}/{split}.jsonl" for split in ("train", "val", "test")]
    assert main(["fit", f"--config={CONFIG}", *flags, "--trainer.precision=32-true", *more]) == 0
    return root / "table/0"


@pytest.fixture(scope="module")
def run(data: Path, text_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fit(data, text_folder, tmp_path_factory.mktemp("runs"))


def command(checkpoint: Path, table: Path, out: Path, *more: str) -> list[str]:
    flags = ["--data.loader.workers=0", "--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false", *more]
    return ["predict", f"--ckpt_path={checkpoint}", f"--input={table}", f"--out={out}", *flags]


@pytest.fixture
def predict(run: Path, data: Path, tmp_path: Path) -> Predict:
    """Predict a table, by default that of the test, and return the predictions."""

    def predicted(*more: str, table: Path = data / "test.jsonl", out: Path = tmp_path / "out") -> pa.Table:
        assert main(command(run, table, out, *more)) == 0
        return pq.read_table(out / "parts")

    return predicted


def test_probabilities_are_those_of_a_test(run: Path, predict: Predict) -> None:
    """Sample by sample, in float32. The test needs no more than the folder of the run."""
    assert main(["test", f"--ckpt_path={run}", "--trainer.precision=32-true"]) == 0
    tested = pq.read_table(run / "report/test.parquet", filters=[("condition", "=", "complete")]).sort_by("id")
    found = predict("--data.source.id_column=key", "--trainer.precision=32-true", "--data.batch_size=32").sort_by("id")
    assert found.column_names == COLUMNS
    for name in ("id", "prediction"):
        assert found[name].to_pylist() == tested[name].to_pylist()
    np.testing.assert_allclose(found["probability"], tested["confidence"], rtol=0, atol=1e-6)
    of_label = [found[f"p_{label}"][row].as_py() for row, label in enumerate(tested["label"].to_pylist())]
    np.testing.assert_allclose(of_label, tested["label_probability"], rtol=0, atol=1e-6)
    names = {(True, True): "both", (True, False): "image", (False, True): "text", (False, False): "none"}
    present = zip(tested["image_present"].to_pylist(), tested["text_present"].to_pylist(), strict=True)
    assert found["modalities"].to_pylist() == [names[pair] for pair in present]
    assert found["unreadable"].null_count == 25


def test_rows_keep_their_order_and_their_columns(predict: Predict, data: Path, tmp_path: Path) -> None:
    """In CSV, Parquet and JSON lines; Parquet keeps its types, also of values that no text format has."""
    when = datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC)
    rows = [row | {"price": number / 2, "tags": [number], "when": when} for number, row in enumerate(samples(25))]
    paths = {kind: data / f"new.{kind}" for kind in ("csv", "parquet", "jsonl")}
    with paths["csv"].open("w", newline="") as file:
        writer = csv.DictWriter(file, [*rows[0]])
        writer.writeheader()
        writer.writerows(rows)
    pq.write_table(pa.Table.from_pylist(rows), paths["parquet"])
    write_table(data, "new", [row | {"when": str(when)} for row in rows])
    found = {}
    for kind, path in paths.items():
        flags = ("--data.source.id_column=key", "--columns=all", "--part_rows=10")
        found[kind] = predict(*flags, table=path, out=tmp_path / kind)
        assert [file.name for file in sorted((tmp_path / kind / "parts").iterdir())] == [
            f"part-0000{number}.parquet" for number in range(3)
        ]
        assert found[kind]["id"].to_pylist() == [row["key"] for row in rows]
        assert found[kind]["label"].to_pylist() == [row["label"] for row in rows]
        assert found[kind].select(COLUMNS) == found["csv"].select(COLUMNS)
    assert found["csv"]["price"].to_pylist() == [str(row["price"]) for row in rows]
    assert found["jsonl"]["price"].to_pylist() == [row["price"] for row in rows]
    assert found["parquet"].select(["price", "tags", "when"]) == pq.read_table(paths["parquet"]).select(
        ["price", "tags", "when"]
    )


def test_types_that_json_mixes_become_texts(predict: Predict, data: Path) -> None:
    values = [1, "two", None, {"three": 3}, "\ud800"]
    write_table(data, "mixed", [{"text": "soup", "value": value, "other": 1} for value in values])
    more = ("--columns=value", "--data.source.image_column=null", "--data.loader.workers=0")
    found = predict(*more, table=data / "mixed.jsonl")
    assert found["value"].to_pylist() == ["1", "two", None, '{"three": 3}', "?"]
    assert found["id"].to_pylist() == ["1", "2", "3", "4", "5"]
    assert "other" not in found.column_names


def test_images_in_cells_are_read_and_not_copied(predict: Predict, data: Path, tmp_path: Path) -> None:
    rows = [{"image": (data / f"{name}.png").read_bytes(), "text": None, "n": n} for n, name in enumerate(WORDS)]
    pq.write_table(
        pa.Table.from_pylist(rows, pa.schema({"image": pa.binary(), "text": pa.string(), "n": pa.int8()})),
        tmp_path / "cells.parquet",
    )
    paths = write_table(data, "paths", [{"image": f"{name}.png", "text": None} for name in WORDS])
    found = predict("--columns=all", table=tmp_path / "cells.parquet", out=tmp_path / "a")
    assert found["n"].type == pa.int8()
    assert "image" not in found.column_names
    assert found.select(COLUMNS) == predict(table=paths, out=tmp_path / "b")


def test_what_cannot_be_read_is_named_and_predicted_from_the_rest(
    predict: Predict, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (data / "broken.png").write_bytes(b"no image")
    lines = [
        {"image": "broken.png", "text": "soup"},
        {"image": "absent.png", "text": None},
        "{no json",
        {"image": "red.png", "text": ["a", "list"]},
        {"image": "ftp://example.org/1.png", "text": "soup"},
        {"image": None, "text": "  "},
        {"image": "red.png", "text": "soup"},
    ]
    table = data / "bad.jsonl"
    table.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines))
    found = predict(table=table)
    assert found["id"].to_pylist() == ["1", "2", "3", "4", "5", "6", "7"]
    assert found["modalities"].to_pylist() == ["text", "none", "none", "image", "text", "none", "both"]
    reasons = found["unreadable"].to_pylist()
    assert "broken.png cannot be read as an image (its format is not known)" in reasons[0]
    assert "absent.png cannot be read as an image (No such file" in reasons[1]
    assert reasons[2].startswith("line 3, Expecting property name")
    assert reasons[2].endswith("is not JSON")
    assert reasons[3] == "line 4, ['a', 'list'], has no text in the column text"
    assert "ftp" in reasons[4]
    assert reasons[5:] == [None, None]
    prior = [found[name][5].as_py() for name in COLUMNS[-3:]]
    assert prior == pytest.approx([1 / 3] * 3)  # the classes are as frequent in training
    assert [found[name][2].as_py() for name in COLUMNS[-3:]] == prior
    error = capsys.readouterr().err
    assert "Traceback" not in error


def test_reasons_are_those_of_their_rows(predict: Predict, data: Path) -> None:
    """Also if a row has several images, and is predicted from those that can be read."""
    pairs = [("red.png", "gone1.png"), ("red.png", "blue.png"), ("gone3.png", "gone4.png"), (None, "gone5.png")]
    table = write_table(data, "pairs", [{"image": front, "back": back, "text": None} for front, back in pairs])
    found = predict("--data.source.image_column=[image,back]", "--data.source.several_images=mean", table=table)
    assert found["modalities"].to_pylist() == ["image", "image", "none", "none"]
    named = [[n for n in range(1, 6) if f"gone{n}.png" in (reason or "")] for reason in found["unreadable"].to_pylist()]
    assert named == [[1], [], [3, 4], [5]]


def test_a_finished_part_is_not_computed_again(
    predict: Predict, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = predict("--part_rows=4")
    assert "25 predictions written" in capsys.readouterr().out
    parts = sorted((tmp_path / "out/parts").iterdir())
    parts[2].unlink()
    parts[6].unlink()
    (parts[2].parent / f".{parts[2].name}.host.1.partial").write_bytes(b"left by a process that was killed")
    before = {path: path.stat().st_mtime_ns for path in parts if path.exists()}
    assert predict("--part_rows=4") == whole
    assert "5 predictions written" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert sorted((tmp_path / "out/parts").iterdir()) == parts
    assert predict("--part_rows=4") == whole
    assert "0 predictions written" in capsys.readouterr().out


def test_shards_together_are_the_whole(predict: Predict, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = predict("--part_rows=4", out=tmp_path / "whole")
    predict("--part_rows=4", "--shard=2/3")
    assert [file.name for file in sorted((tmp_path / "out/parts").iterdir())] == [
        "part-00001.parquet",
        "part-00004.parquet",
    ]
    predict("--part_rows=4", "--shard=1/3")
    assert "5 of 7 parts finished" in capsys.readouterr().out
    assert predict("--part_rows=4", "--shard=3/3") == whole
    manifest = json.loads((tmp_path / "out/manifest.json").read_text())
    assert [manifest["rows"], sum(part["rows"] for part in manifest["parts"])] == [25, 25]
    assert manifest["parts"][1] == {"file": "parts/part-00001.parquet", "first_row": 4, "rows": 4}


@pytest.mark.slow
def test_the_most_probable_classes_as_lists(predict: Predict, tmp_path: Path) -> None:
    whole, found = predict(out=tmp_path / "whole"), predict("--top_k=2")
    assert found.column_names == [*COLUMNS[:5], "top_classes", "top_probabilities"]
    for row, expected in zip(found.to_pylist(), whole.to_pylist(), strict=True):
        best = sorted(["blue", "lime", "red"], key=lambda name: -expected[f"p_{name}"])[:2]
        assert row["top_classes"] == best
        assert row["top_probabilities"] == [expected[f"p_{name}"] for name in best]
        assert row["prediction"] == best[0]


@pytest.mark.slow
def test_several_labels(data: Path, text_folder: Path, tmp_path: Path) -> None:
    """A prediction is the list of the classes whose probability is at least one half."""
    run = fit(data, text_folder, tmp_path, "--data.source.multilabel=true", "--model.threshold=0.5")
    assert main(command(run, data / "test.jsonl", tmp_path / "out")) == 0
    for row in pq.read_table(tmp_path / "out/parts").to_pylist():
        chosen = [name for name in ("blue", "lime", "red") if row[f"p_{name}"] >= 0.5]
        assert row["prediction"] == chosen
        assert row["probability"] == max(row[name] for name in COLUMNS[-3:])


@pytest.mark.slow
def test_a_data_set_in_its_own_layout(run: Path, data: Path, tmp_path: Path) -> None:
    """The samples of a folder of images, which is no table."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in WORDS:
        shutil.copy(data / f"{name}.png", folder)
    assert main(command(run, folder, tmp_path / "out", "--data.source=ImageFolder")) == 0
    assert pq.read_table(tmp_path / "out/parts")["id"].to_pylist() == ["blue.png", "lime.png", "red.png"]


OTHER = {
    "settings": (["--top_k=1"], "has the predictions of other settings (top_k 1, not None): give another --out"),
    "columns": (["--columns=label"], "has the predictions of other settings (columns ['label'], not []): give"),
    "options": (["--data.source.blank=[soup]"], "other settings (source.blank ['soup'], not None): give another --out"),
}


@pytest.mark.slow
def test_a_folder_of_other_predictions_is_refused(
    run: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Those of other settings, of another checkpoint, or of an input that has changed since."""
    table = Path(shutil.copy(data / "test.jsonl", tmp_path / "test.jsonl"))
    flags = [f"--data.source.image_root={data}"]
    assert main(command(run, table, tmp_path / "out", *flags)) == 0
    for other, message in OTHER.values():
        assert main(command(run, table, tmp_path / "out", *flags, *other)) == 1
        assert message in capsys.readouterr().err
    last = run / "checkpoints/last.ckpt"
    assert main(command(last, table, tmp_path / "out", *flags)) == 1
    assert "has the predictions of another checkpoint (digest " in capsys.readouterr().err
    with table.open("a") as file:
        file.write('{"text": "soup", "image": null}\n')
    assert main(command(run, table, tmp_path / "out", *flags)) == 1
    assert "has the predictions of another input (rows 26, not 25; state " in capsys.readouterr().err
    assert main(command(run, table, tmp_path / "new", *flags)) == 0


def hostile(checkpoint: dict[str, Any], where: str, path: str) -> None:
    """Name a class of another package in the metadata of a checkpoint."""
    about = checkpoint[KEY]
    if where == "task":
        about["task"] = path
    elif where == "fusion":
        about["settings"]["fusion"]["class_path"] = path
    else:
        about[where] = {"class_path": path, "init_args": {"args": ["touch", "hacked"]}}


@pytest.mark.parametrize(
    ("where", "path"),
    [
        ("task", "stranger.Touch"),
        ("image_encoder", "subprocess.Popen"),
        ("text_encoder", "robusttune.encoders.hub.sys"),
        ("fusion", "stranger.Touch"),
    ],
)
def test_a_checkpoint_cannot_name_other_classes(
    where: str,
    path: str,
    run: Path,
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Even if its digest is right."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "stranger.py").write_text("open('hacked', 'w').close()\nclass Touch:\n    pass\n")
    checkpoint = read_checkpoint(run / "checkpoints/best.ckpt")
    hostile(checkpoint, where, path)
    seal(checkpoint)
    torch.save(checkpoint, tmp_path / "stranger.ckpt")
    assert main(command(tmp_path / "stranger.ckpt", data / "test.jsonl", tmp_path / "out")) == 1
    error = capsys.readouterr().err
    assert f"{path}" in error
    assert "which this version does not have" in error
    assert not (tmp_path / "hacked").exists()


def test_the_configuration_of_a_run_is_not_read(
    run: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is code: a test reads it, a prediction does not."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "stranger.py").write_text("open('hacked', 'w').close()\n")
    folder = shutil.copytree(run, tmp_path / "run")
    (folder / "config.yaml").write_text("data:\n  source:\n    class_path: stranger.Touch\n")
    assert main(command(folder, data / "test.jsonl", tmp_path / "out")) == 0
    assert not (tmp_path / "hacked").exists()
    (folder / "config.yaml").unlink()
    assert main(command(folder, data / "test.jsonl", tmp_path / "again")) == 0
