"""Standalone folders: they predict bit for bit the same without a network, and damage is told in one sentence."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from inference.models import MODELS, fusion, pairs, text_encoder, timm_encoder

from robusttune.encoders import TransformersImageEncoder
from robusttune.errors import RobustTuneError
from robusttune.inference import Predictor, load
from robusttune.inference.standalone import NAME
from robusttune.models import Experts

# Predict in a process that can open no connection, with an empty cache.
OFFLINE = """
import socket, sys
def refuse(*args, **kwargs):
    raise AssertionError("a connection was opened")
socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse
from robusttune.inference import load
print(load(sys.argv[1]).predict_proba(text="a large red circle").tobytes().hex())
assert "lightning" not in sys.modules
"""


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Predictor, Path]:
    """Return a model, and the folder that it was saved to."""
    model = Predictor([fusion(Experts())])
    return model, model.save_pretrained(tmp_path_factory.mktemp("standalone") / "model")


@pytest.fixture
def copied(saved: tuple[Predictor, Path], tmp_path: Path) -> Path:
    """Return a copy of the folder that a test may damage."""
    folder = tmp_path / "copy"
    subprocess.run(["cp", "-r", saved[1], folder], check=True)
    return folder


@pytest.mark.parametrize(
    "kind", [kind if kind == "MMRL" else pytest.param(kind, marks=pytest.mark.slow) for kind in MODELS]
)
def test_the_same_probabilities_bit_for_bit_wherever_it_is_moved(kind: str, tmp_path: Path) -> None:
    model = Predictor([MODELS[kind]()])
    moved = model.save_pretrained(tmp_path / "model").rename(tmp_path / "moved")
    other = load(moved)
    assert np.array_equal(other.predict_proba(**pairs()), model.predict_proba(**pairs()))
    assert (other.facts, other.classes) == (model.facts, model.classes)


@pytest.mark.slow
def test_encoders_of_some_depth_with_random_weights(tmp_path: Path) -> None:
    """Their weights depend on the depth. Both encoders name the same model, and each has a folder of its own."""
    image = TransformersImageEncoder(name="robusttune:demo_clip", weights="random", layers=1, depth=2)
    text = text_encoder(weights="random", layers=[1], depth=1)
    model = Predictor([fusion(Experts(), image, text)])
    folder = model.save_pretrained(tmp_path / "model")
    assert np.array_equal(load(folder).predict_proba(**pairs()), model.predict_proba(**pairs()))


@pytest.mark.slow
def test_a_timm_model_of_some_depth_and_size(tmp_path: Path) -> None:
    model = Predictor([fusion(Experts(), timm_encoder(depth=3, size=96))])
    folder = model.save_pretrained(tmp_path / "model")
    assert np.array_equal(load(folder).predict_proba(**pairs()), model.predict_proba(**pairs()))


@pytest.mark.slow
def test_other_classes_are_kept(tmp_path: Path) -> None:
    model = Predictor([MODELS["zero-shot"]()])
    model.set_classes(["yellow star", "blue square"])
    folder = model.save_pretrained(tmp_path / "model")
    assert load(folder).classes == ["yellow star", "blue square"]
    assert np.array_equal(load(folder).predict_proba(**pairs()), model.predict_proba(**pairs()))


@pytest.mark.slow
def test_nothing_is_fetched(saved: tuple[Predictor, Path], tmp_path: Path) -> None:
    model, folder = saved
    environment = {"HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1", "PYTHONPATH": ":".join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", OFFLINE, folder], env=environment, check=True, capture_output=True, text=True
    )
    assert np.array_equal(
        np.frombuffer(bytes.fromhex(done.stdout.strip()), np.float32), model.predict_proba(text="a large red circle")
    )


def test_a_saved_model_is_saved_again(saved: tuple[Predictor, Path], tmp_path: Path) -> None:
    again = load(saved[1]).save_pretrained(tmp_path / "again")
    first, second = (json.loads((folder / NAME).read_text()) for folder in (saved[1], again))
    assert first == second
    assert (again / "README.md").read_text() == (saved[1] / "README.md").read_text()


def _cut(name: str) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: len(content) // 2])

    return damage


def _set(key: str, value: object) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        content = json.loads((folder / NAME).read_text())
        *above, last = key.split(".")
        place = content
        for name in above:
            place = place[name]
        place[last] = value
        (folder / NAME).write_text(json.dumps(content))

    return damage


def _edit_config(folder: Path) -> None:
    path = folder / "text_encoder" / "config.json"
    path.write_text(path.read_text().replace("gelu", "relu"))


def _empty(folder: Path) -> None:
    (folder / NAME).write_text("[]")


DAMAGE: dict[str, tuple[Callable[[Path], None], str]] = {
    "weights truncated": (_cut("model.safetensors"), "model.safetensors is damaged .*: fetch or export"),
    "weights missing": (lambda folder: (folder / "model.safetensors").unlink(), "model.safetensors does not exist: "),
    "encoder truncated": (_cut("text_encoder/model.safetensors"), "text_encoder cannot be loaded .*: check that"),
    "image encoder truncated": (_cut("image_encoder/model.safetensors"), "cannot be loaded .*: check that it is whole"),
    "JSON truncated": (_cut(NAME), "robusttune.json is damaged .*: fetch or export the folder again"),
    "tokenizer truncated": (_cut("text_encoder/tokenizer.json"), "tokenizer.json is missing or was changed: fetch"),
    "configuration edited": (_edit_config, "text_encoder/config.json is missing or was changed: fetch"),
    "temperature of settings edited": (_set("settings.fusion.init_args.width", 7), "is not as it was written"),
    "no object": (_empty, "does not describe a model of this version"),
    "newer": (_set("format", 99), "has format 99, and this version reads format 1: update robusttune"),
    "another task": (_set("task", "os.system"), "does not describe a model of this version: export"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_damage_is_told_in_one_sentence(kind: str, copied: Path) -> None:
    damage, sentence = DAMAGE[kind]
    damage(copied)
    with pytest.raises(RobustTuneError, match=sentence) as raised:
        load(copied)
    assert "\n" not in str(raised.value)


def test_no_other_class_and_no_other_place_is_read(copied: Path) -> None:
    """Not even with a digest that fits: a stranger can compute it, too."""
    from safetensors.torch import load_file

    from robusttune.checkpoint_file import KEY, digest_of

    def resealed(key: str, value: object) -> None:
        _set(key, value)(copied)
        content = json.loads((copied / NAME).read_text())
        content["digest"] = digest_of({KEY: content, "state_dict": load_file(copied / "model.safetensors")})
        (copied / NAME).write_text(json.dumps(content))

    resealed("files", {"../outside": "0"})
    with pytest.raises(RobustTuneError, match="outside is missing or was changed"):
        load(copied)
    resealed("files", {})
    resealed("text_encoder.init_args.name", "/tmp")
    with pytest.raises(RobustTuneError, match="names the encoder /tmp, which is not part of it"):
        load(copied)
    resealed("text_encoder.init_args.name", "text_encoder")
    resealed("text_encoder.class_path", "subprocess.Popen")
    with pytest.raises(RobustTuneError, match="names subprocess.Popen, which this version does not have"):
        load(copied)


def test_a_folder_that_exists_is_kept(saved: tuple[Predictor, Path], tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    with pytest.raises(RobustTuneError, match="full exists: give the name of a new folder"):
        saved[0].save_pretrained(tmp_path / "full")
    assert (tmp_path / "full" / "mine.txt").read_text() == "mine"
    (tmp_path / "empty").mkdir()
    assert saved[0].save_pretrained(tmp_path / "empty").is_dir()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "full"]


def test_half_precision_and_several_models_are_not_saved(saved: tuple[Predictor, Path], tmp_path: Path) -> None:
    with pytest.raises(RobustTuneError, match="half precision: load it with dtype float32"):
        load(saved[1], dtype="bfloat16").save_pretrained(tmp_path / "model")
    with pytest.raises(RobustTuneError, match="several models are averaged"):
        load([saved[1], saved[1]]).save_pretrained(tmp_path / "model")
    assert not (tmp_path / "model").exists()
