"""Loading of checkpoints: what is imported, where they lie, and which are refused."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from fakes import tiny_image_encoder, tiny_text_encoder

import robusttune
from robusttune.checkpoint_file import FORMAT, KEY, read_checkpoint, seal
from robusttune.errors import RobustTuneError
from robusttune.inference import Predictor
from robusttune.inference.construction import load_classifier
from robusttune.models import Concatenation
from robusttune.tasks import FusionTask
from robusttune.tasks.checkpoint import metadata_of, without_encoders
from robusttune.types import Facts

FACTS = Facts(["cat", "dog", "fish"], [0.5, 0.3, 0.2], multilabel=False)
HEAVY = ("lightning", "torchmetrics", "matplotlib", "jsonargparse", "sklearn")


def write_run(folder: Path, text_folder: Path, facts: Facts = FACTS) -> Path:
    """Write the best checkpoint of a run, and return the run's folder."""
    task = FusionTask(tiny_image_encoder(), tiny_text_encoder(text_folder), facts, Concatenation(width=4), beta=0.0)
    checkpoint = {"state_dict": without_encoders(task.state_dict()), KEY: metadata_of(task)}
    seal(checkpoint)
    (folder / "checkpoints").mkdir(parents=True)
    torch.save(checkpoint, folder / "checkpoints" / "best.ckpt")
    return folder


@pytest.fixture(scope="module")
def run(text_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("runs") / "food" / "0", text_folder)


@pytest.fixture(scope="module")
def model(run: Path) -> Predictor:
    return robusttune.load(run)


def test_a_run_is_its_best_checkpoint(run: Path, model: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(run)
    assert model.classes == FACTS.class_names
    for path in (run / "checkpoints/best.ckpt", "checkpoints/best.ckpt", "."):
        assert robusttune.load(path).predict(text="soup") == model.predict(text="soup")
    assert FusionTask.load_from_checkpoint(run).facts == FACTS


def test_encoders_are_shared_by_the_models_of_a_list(run: Path, model: Predictor) -> None:
    several = robusttune.load([run, run])
    first, second = several.classifiers
    assert first.image_encoder is second.image_encoder
    assert several.predict(text="soup").probabilities == pytest.approx(model.predict(text="soup").probabilities)


@pytest.mark.slow
def test_a_prediction_imports_no_trainer(run: Path) -> None:
    """In a process of its own, which has not imported anything yet."""
    script = f"""
import json, sys
import robusttune
model = robusttune.load({str(run)!r})
label = model.predict(text="soup").label
print(json.dumps([label, [name for name in {HEAVY!r} if name in sys.modules]]))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    label, imported = json.loads(done.stdout.splitlines()[-1])
    assert label in FACTS.class_names
    assert imported == []


def test_half_precision(run: Path, model: Predictor) -> None:
    half = robusttune.load(run, dtype="bfloat16")
    exact = model.predict(text="soup").probabilities
    assert half.predict(text="soup").probabilities == pytest.approx(exact, abs=0.02)
    assert {weights.dtype for weights in half.classifiers[0].parameters()} == {torch.bfloat16}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda run: robusttune.load(run / "none"), "none does not exist"),
        (lambda run: robusttune.load(run.parent), "give the folder of one run, such as .*food/0"),
        (lambda run: robusttune.load(run / "checkpoints"), "has no checkpoints/best.ckpt"),
        (lambda run: robusttune.load([]), "no checkpoint was given"),
        (lambda run: robusttune.load(run, dtype="int8"), "dtype is int8: give float32"),
    ],
    ids=["missing", "folder of runs", "other folder", "nothing", "dtype"],
)
def test_wrong_arguments(run: Path, call: Callable[[Path], Any], message: str) -> None:
    with pytest.raises(RobustTuneError, match=message):
        call(run)


def changed(run: Path, folder: Path, change: Callable[[dict[str, Any]], Any]) -> Path:
    """Write a checkpoint with other content, sealed anew."""
    checkpoint = read_checkpoint(run / "checkpoints/best.ckpt")
    change(checkpoint)
    if checkpoint[KEY].get("format") == FORMAT:
        seal(checkpoint)
    torch.save(checkpoint, folder / "changed.ckpt")
    return folder / "changed.ckpt"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c[KEY].update(format=FORMAT + 1), "update robusttune"),
        (lambda c: c[KEY].update(task="OtherTask"), "task OtherTask, which this version does not have"),
        (lambda c: c[KEY]["image_encoder"].update(class_path="os.system"), "names os.system, which this version"),
        (lambda c: c[KEY]["settings"]["fusion"].update(class_path="builtins.eval"), "names builtins.eval"),
        (lambda c: c[KEY]["settings"]["fusion"]["init_args"].update(more=1), "more, which this version does not have"),
        (lambda c: c[KEY]["sha256"].update(image_encoder="0" * 64), "weights of 'test_vit' are not those"),
        (lambda c: c[KEY]["inputs"]["text_encoder"].update(tokenizer="0"), "is not that of training"),
        (lambda c: c["state_dict"].pop("classifier.temperatures.values"), "lacks weights, or has others"),
    ],
    ids=["newer", "task", "encoder class", "network class", "argument", "weights", "tokenizer", "lost weights"],
)
def test_wrong_checkpoints(run: Path, tmp_path: Path, change: Callable[[dict[str, Any]], Any], message: str) -> None:
    with pytest.raises(RobustTuneError, match=message):
        load_classifier(changed(run, tmp_path, change))


def test_code_in_a_checkpoint_is_not_run(tmp_path: Path) -> None:
    class Hostile:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (tmp_path / "touched",)

    torch.save({"state_dict": {}, KEY: Hostile()}, tmp_path / "hostile.ckpt")
    with pytest.raises(RobustTuneError, match="more than tensors and plain data"):
        robusttune.load(tmp_path / "hostile.ckpt")
    assert not (tmp_path / "touched").exists()


def test_models_of_other_classes_are_not_averaged(run: Path, text_folder: Path, tmp_path: Path) -> None:
    other = write_run(tmp_path / "other", text_folder, FACTS._replace(class_names=["cat", "dog", "bird"]))
    with pytest.raises(RobustTuneError, match="predict different classes"):
        robusttune.load([run, other])
