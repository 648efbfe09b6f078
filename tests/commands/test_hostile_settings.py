"""What a configuration, a flag or a checkpoint names is not run, unless it is a class of the kind that is asked for."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from fakes import tiny_flags, write_table

from robusttune.checkpoint_file import seal
from robusttune.cli import main
from robusttune.commands.resume import seed_of, unfinished
from robusttune.encoders import ImageEncoder, TimmEncoder
from robusttune.errors import RobustTuneError
from robusttune.models import MMRL, FusionModel
from robusttune.settings import from_plain, to_plain
from robusttune.tasks import FusionTask

CONFIGS = Path(__file__).parents[2] / "configs"
WRITER = """
from pathlib import Path

Path(__file__).with_name("imported").touch()


class Writer:
    def __init__(self, *given, **named):
        Path(__file__).with_name("run").touch()
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder whose module ``stranger`` leaves a file when it is imported, and another when it is run."""
    (tmp_path / "stranger.py").write_text(WRITER)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    sys.modules.pop("stranger", None)
    assert not (tmp_path / "run").exists()


def flags(folder: Path, text_folder: Path) -> list[str]:
    rows = [{"text": "soup", "label": "ab"[i % 2]} for i in range(20)]
    tiny = [flag for flag in tiny_flags(Path("none"), text_folder) if "source.root" not in flag]
    source = ["--data.source.image_column=null", f"--data.source.train={write_table(folder, 'train', rows)}"]
    return [f"--config={CONFIGS}/table.yaml", *tiny, *source, f"--run_root={folder}/runs"]


def settings(name: str, value: Any) -> dict[str, Any]:
    """The settings in which a value stands under a name with dots."""
    for part in reversed(name.split(".")):
        value = {part: value}
    return dict(value)


STDLIB = {"class_path": "subprocess.Popen", "init_args": {"args": ["touch", "run"]}}
STRANGER = {"class_path": "stranger.Writer"}
PLACES = [
    *("data.source", "model", "model.init_args.optimizer", "image_encoder", "text_encoder", "trainer.strategy"),
    *("trainer.profiler", "trainer.logger", "trainer.plugins", "trainer.callbacks"),
]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("what", [STDLIB, STRANGER], ids=["standard library", "stranger"])
def test_a_class_of_another_kind_is_not_run(
    what: dict[str, Any],
    place: str,
    folder: Path,
    text_folder: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(folder)
    value = [what] if place.endswith("callbacks") else what
    (folder / "more.yaml").write_text(json.dumps(settings(place, value)))
    assert main(["fit", *flags(folder, text_folder), f"--config={folder}/more.yaml"]) == 1
    last = capfd.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("robusttune: error: ")
    if what is STDLIB:
        name = place.replace("init_args.", "")
        assert last.endswith(
            f"{name} names subprocess.Popen, which a configuration may not run: give the import path "
            "of a class of its kind"
        )


@pytest.mark.parametrize("path", ["os.system", "antigravity.geohash", "functools.partial", "builtins.print"])
def test_functions_of_the_standard_library_are_not_imported(
    path: str, folder: Path, text_folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["fit", *flags(folder, text_folder), f"--model.optimizer={path}"]) == 1
    assert f"model.optimizer names {path}, which a configuration may not run" in capfd.readouterr().err
    assert "antigravity" not in sys.modules
    callback = {"class_path": "lightning.pytorch.callbacks.LambdaCallback", "init_args": {"on_fit_start": path}}
    assert main(["fit", *flags(folder, text_folder), f"--trainer.callbacks={json.dumps([callback])}"]) == 1
    assert f"trainer.callbacks.on_fit_start names {path}, which" in capfd.readouterr().err


def test_where_any_value_is_taken_a_class_is_none(folder: Path, text_folder: Path) -> None:
    for value in (STRANGER, {"depth": STRANGER}):
        assert main(["fit", *flags(folder, text_folder), f"--image_encoder.model_args={json.dumps(value)}"]) == 1
    only = [flag for flag in flags(folder, text_folder) if not flag.startswith(("--model", "--trainer"))]
    for name in ("name", "monitor", "trainer", "model"):
        main(["data", "verify", *only, f"--{name}={json.dumps({'x': STRANGER})}"])


def test_hyperparameters_in_a_checkpoint_name_nothing_to_import(folder: Path, text_folder: Path) -> None:
    """Lightning would lay them over the configuration."""
    given = flags(folder, text_folder)
    assert main(["fit", *given]) == 0
    path = folder / "runs/table/0/checkpoints/best.ckpt"
    checkpoint = torch.load(path)
    checkpoint["hyper_parameters"] = {"_class_path": "stranger.Writer", "x": 1}
    seal(checkpoint)
    torch.save(checkpoint, path)
    assert main(["validate", f"--config={folder}/runs/table/0/config.yaml", f"--ckpt_path={path}"]) == 0
    assert FusionTask.load_from_checkpoint(path).classifier.class_names == ["a", "b"]
    assert not (folder / "imported").exists()


@pytest.mark.parametrize(
    "path",
    [
        *(
            "os.system",
            "subprocess.Popen",
            "stranger.Writer",
            "robusttune.commands.prefetch.subprocess.run",
            "",
            None,
            7,
        ),
        *("robusttune.encoders.import_module", "robusttune.encoders.transformers_common.Path", "robusttune.cli.main"),
        *("robusttune.models.MoLT", "robusttune.encoders.ImageEncoder", "robusttune.encoders.Tokenizer"),
        *("robusttune.encoders.timm_image.TimmEncoder", "robusttune.encoders.__getattr__", ["robusttune.encoders"]),
    ],
)
def test_a_checkpoint_names_settings_of_encoders_alone(path: Any, folder: Path) -> None:
    with pytest.raises(RobustTuneError, match="the checkpoint names .*, which this version does not have"):
        from_plain({"class_path": path, "init_args": {}}, ImageEncoder)
    assert not (folder / "imported").exists()


@pytest.mark.parametrize(
    ("stored", "kind", "message"),
    [
        (None, ImageEncoder, "the checkpoint names None, which"),
        (
            {"class_path": "robusttune.encoders.TimmEncoder"},
            ImageEncoder,
            "gives .*TimmEncoder arguments that are none",
        ),
        (
            {"class_path": "robusttune.models.MoLT", "init_args": {"x": 1}},
            FusionModel,
            "gives robusttune.models.MoLT x,",
        ),
        ({"class_path": "robusttune.models.MMRL", "init_args": {"dropout": {}}}, MMRL, "(do not work|gives)"),
    ],
)
def test_settings_that_do_not_fit_are_one_sentence(stored: Any, kind: type, message: str) -> None:
    with pytest.raises(RobustTuneError, match=message):
        from_plain(stored, kind)


def test_settings_of_a_checkpoint_come_back() -> None:
    encoder = TimmEncoder(name="test_vit", weights="random", layers=2, grid=2, size=32)
    assert from_plain(to_plain(encoder), ImageEncoder) == encoder


BOMB = "\n".join(["a0: &a0 [0]", *(f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 11))])


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (BOMB, "config.yaml is not YAML (its aliases stand for more than 100,000 values"),
        ("data: &data [*data]", "config.yaml is not YAML (an alias contains itself"),
        (
            "name: !!python/object/apply:stranger.Writer []",
            "config.yaml is not YAML (could not determine a constructor",
        ),
        (None, "config.yaml: it is a pipe: check the path"),
    ],
)
def test_the_configuration_in_the_folder_of_a_run_is_data(
    content: str | None, message: str, folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Where it is read without being asked for."""
    run = folder / "runs/table/0"
    run.mkdir(parents=True)
    if content is None:
        os.mkfifo(run / "config.yaml")
    else:
        (run / "config.yaml").write_text(content)
    assert main(["report", str(folder / "runs")]) == 1
    error = capfd.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert unfinished({"name": "table"}, run.parent) is None
    assert seed_of(run) is None
    assert not (folder / "imported").exists()
