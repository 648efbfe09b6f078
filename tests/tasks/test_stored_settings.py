"""A checkpoint brings back every constructor argument of every task."""

from __future__ import annotations

from inspect import signature
from pathlib import Path
from typing import Any

import pytest
import torch
from fakes import tiny_image_encoder, tiny_text_encoder
from torch.optim import SGD

from robusttune.checkpoint_file import KEY, seal
from robusttune.encoders import CLIPImageEncoder, CLIPTextEncoder, ImageEncoder, TextEncoder
from robusttune.errors import RobustTuneError
from robusttune.models import MMRL, Balance, Experts
from robusttune.tasks import FusionTask, MMRLTask, RobustTask, Schedule, ZeroShotTask
from robusttune.tasks.checkpoint import UNSTORED, settings_of
from robusttune.types import Facts

FACTS = Facts(["soup", "apple pie"], [0.25, 0.75], False)
NOT_IN_CHECKPOINTS = {"optimizer", "decay_biases", "schedule", "compile", "checkpoint_activations"}
TRAINING = {"optimizer": lambda parameters: SGD(parameters, 0.5), "schedule": Schedule("linear"), "calibrate": True}
RUNNING = {"compile": True, "checkpoint_activations": True}
ARGUMENTS: dict[type[RobustTask], dict[str, Any]] = {
    FusionTask: {
        "fusion": Experts(width=24, dropout=0.25),
        "alpha": 0.5,
        "beta": 0.0,
        "correlation_momentum": 0.5,
        "every_pattern": True,
        "label_smoothing": 0.25,
        "balance": Balance("inverse", focal=0.5),
        "threshold": 0.25,
        "decay_biases": False,
        **TRAINING,
        **RUNNING,
    },
    MMRLTask: {
        "adapter": MMRL(space_tokens=2, space_width=8, beta=0.5, residual_rank=2, projection_rank=3),
        "templates": ["a photo of {}", "{} photo"],
        "alpha": 0.25,
        "reg_weight": 2.0,
        "text_weight": 0.5,
        "inference": "fused",
        "combination_smoothing": 0.125,
        "balance": Balance(focal=2.0, post_hoc=0.75),
        **TRAINING,
        **RUNNING,
    },
    ZeroShotTask: {
        "templates": ["soup of {}", "{} a"],
        "combination_smoothing": 0.25,
        "balance": Balance(post_hoc=0.5),
        "calibrate": True,
    },
}


def encoders(kind: type[RobustTask], text_folder: Path, clip_folder: Path) -> dict[str, Any]:
    """Encoders with settings that are not the defaults."""
    if kind is FusionTask:
        image, text = tiny_image_encoder(mean=(0.4, 0.5, 0.6)), tiny_text_encoder(text_folder, max_length=9)
        return {"image_encoder": image, "text_encoder": text}
    clip: dict[str, Any] = {"name": str(clip_folder), "first_layer": 3}
    return {"image_encoder": CLIPImageEncoder(**clip), "text_encoder": CLIPTextEncoder(**clip, max_length=9)}


def saved(task: RobustTask, path: Path) -> Path:
    checkpoint: dict[str, Any] = {"state_dict": dict(task.state_dict())}
    task.on_save_checkpoint(checkpoint)
    torch.save(checkpoint, path)
    return path


def argument(task: RobustTask, name: str) -> Any:
    """Return what a task has for a constructor argument."""
    if name.endswith("_encoder"):
        return task.classifier.encoder_settings[name]
    in_task = name in vars(task)
    return getattr(task if in_task else task.classifier, name)


@pytest.mark.parametrize("kind", ARGUMENTS)
def test_every_argument_comes_back(
    kind: type[RobustTask], text_folder: Path, clip_folder: Path, tmp_path: Path
) -> None:
    given = {**encoders(kind, text_folder, clip_folder), "facts": FACTS, **ARGUMENTS[kind]}
    parameters = signature(kind).parameters
    assert given.keys() == parameters.keys()  # whoever adds an argument adds it here
    assert [name for name, value in given.items() if value == parameters[name].default] == []
    loaded = kind.load_from_checkpoint(saved(kind(**given), tmp_path / "task.ckpt"))
    for name in given.keys() - NOT_IN_CHECKPOINTS:
        assert argument(loaded, name) == given[name], name
    assert NOT_IN_CHECKPOINTS | {"image_encoder", "text_encoder", "facts"} == UNSTORED


def test_what_follows_from_the_arguments_comes_back_too(text_folder: Path, clip_folder: Path, tmp_path: Path) -> None:
    made = FusionTask(**encoders(FusionTask, text_folder, clip_folder), facts=FACTS, **ARGUMENTS[FusionTask])
    loaded = FusionTask.load_from_checkpoint(saved(made, tmp_path / "task.ckpt"))
    assert loaded.correlation.momentum == 0.5
    assert made.classifier.network.run.compile
    assert not loaded.classifier.network.run.compile  # whoever loads a task chooses how it runs
    assert not loaded.training


class Forgetful(ZeroShotTask):
    """A task that does not keep an argument."""

    def __init__(
        self, image_encoder: ImageEncoder, text_encoder: TextEncoder, facts: Facts, sharpness: float = 1.0
    ) -> None:
        super().__init__(image_encoder, text_encoder, facts)


def test_an_argument_that_a_task_does_not_keep_is_noticed(text_folder: Path, clip_folder: Path) -> None:
    task: Any = Forgetful(**encoders(Forgetful, text_folder, clip_folder), facts=FACTS)
    with pytest.raises(AttributeError, match="sharpness"):
        settings_of(task)


@pytest.mark.parametrize("name", ["sharpness", "facts", "compile"])
def test_settings_that_are_none_are_refused(name: str, text_folder: Path, clip_folder: Path, tmp_path: Path) -> None:
    task = ZeroShotTask(**encoders(ZeroShotTask, text_folder, clip_folder), facts=FACTS)
    checkpoint = torch.load(saved(task, tmp_path / "task.ckpt"), weights_only=True)
    checkpoint[KEY]["settings"][name] = 1.0
    seal(checkpoint)
    torch.save(checkpoint, tmp_path / "task.ckpt")
    with pytest.raises(RobustTuneError, match=f"gives ZeroShotTask {name}, which this version does not have"):
        ZeroShotTask.load_from_checkpoint(tmp_path / "task.ckpt")
