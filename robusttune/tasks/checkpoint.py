"""The identity of a checkpoint: what it stores of its task, and which task it may be loaded into."""

from __future__ import annotations

from collections.abc import Callable
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import torch
from torch import Tensor

from robusttune.checkpoint_file import KEY, checkpoint_path, read_checkpoint, seal
from robusttune.encoders import ImageEncoder, TextEncoder
from robusttune.encoders.low_rank import is_update
from robusttune.errors import RobustTuneError
from robusttune.models.classifier import ENCODERS
from robusttune.settings import argument_to_plain, arguments_from_plain, differences, from_plain, plain, to_plain
from robusttune.types import Facts

if TYPE_CHECKING:
    from robusttune.tasks.base import RobustTask

T = TypeVar("T", bound="RobustTask")
KINDS: tuple[type, type] = (ImageEncoder, TextEncoder)
FROZEN = tuple(f"classifier.{name}." for name in ENCODERS)  # prefixes of the encoders' weights
# Constructor arguments that are not among a checkpoint's settings. The encoders and facts are stored on their own;
# a loaded task is not trained further, so it needs no optimiser and schedule; and the last two change no result.
UNSTORED = frozenset({"image_encoder", "text_encoder", "facts", "optimizer", "decay_biases", "schedule"})
UNSTORED |= {"compile", "checkpoint_activations"}


def without_encoders(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the part of a task's state dict that is stored in checkpoints, with the encoders' updates (`LoRA`) alone.

    Args:
        state: State dict of a task.
    """
    return {key: value for key, value in state.items() if not is_frozen(key)}


def is_frozen(key: str) -> bool:
    """Return whether a key of a task's state dict is that of a frozen encoder's weight."""
    return key.startswith(FROZEN) and not is_update(key)


def settings_of(task: RobustTask) -> dict[str, Any]:
    """Return the constructor arguments of a task as plain data, without those in `UNSTORED`.

    The names come from the signature of the constructor. The classifier has those that its own constructor takes, the
    task has the others, each as an attribute of the same name.

    Args:
        task: Task of any kind.
    """
    of_classifier = signature(type(task.classifier)).parameters
    names = [name for name in signature(type(task)).parameters if name not in UNSTORED]
    holders = {name: task.classifier if name in of_classifier else task for name in names}
    return {name: argument_to_plain(getattr(holder, name)) for name, holder in holders.items()}


def metadata_of(task: RobustTask) -> dict[str, Any]:
    """Return the metadata of a task in its checkpoints, as plain data.

    Args:
        task: Task of any kind.
    """
    classifier = task.classifier
    return {
        "task": type(task).__name__,
        "settings": settings_of(task),
        "facts": task.facts._asdict(),
        **{name: to_plain(classifier.encoder_settings[name]) for name in ENCODERS},
        "inputs": {name: classifier.encoder_settings[name].inputs() for name in ENCODERS},
        "sha256": {name: classifier.encoder(name).sha256 for name in ENCODERS},
    }


def complete_saved(checkpoint: dict[str, Any], metadata: dict[str, Any]) -> None:
    """Remove the encoders' weights from a checkpoint, add metadata, and add a digest of everything, in place.

    Args:
        checkpoint: Checkpoint that Lightning has collected.
        metadata: Metadata of the task, see `metadata_of`.
    """
    checkpoint["state_dict"] = without_encoders(checkpoint["state_dict"])
    checkpoint[KEY] = metadata
    seal(checkpoint)


def complete_loaded(
    checkpoint: dict[str, Any], metadata: dict[str, Any], free: tuple[str, ...], state: dict[str, Tensor]
) -> None:
    """Check that a checkpoint fits the task that is to load it, and add the encoders' weights, in place.

    Args:
        checkpoint: Checkpoint without encoders.
        metadata: Metadata of the task, see `metadata_of`.
        free: Names of the settings that may differ.
        state: State dict of the task.

    Raises:
        RobustTuneError: The checkpoint has another task, other encoders, settings or weights.
    """
    if KEY not in checkpoint:
        raise RobustTuneError("this is no checkpoint of robusttune: give one that `robusttune fit` wrote")
    refuse_another_task(metadata, checkpoint[KEY], free)
    shapes = {key: value.shape for key, value in without_encoders(state).items()}
    if {key: value.shape for key, value in checkpoint["state_dict"].items()} != shapes:
        raise RobustTuneError("the checkpoint lacks weights, or has others: give one of this version")
    checkpoint["state_dict"] |= {key: value for key, value in state.items() if key not in shapes}


def refuse_another_task(own: dict[str, Any], found: dict[str, Any], free: tuple[str, ...]) -> None:
    """Check that a checkpoint was written by the task that is to load it.

    Args:
        own: Metadata of the task, see `metadata_of`.
        found: Metadata in the checkpoint.
        free: Names of the settings that may differ.

    Raises:
        RobustTuneError: The checkpoint has another task, other encoders, settings, weights of encoders or classes. The
            message names all differences.
    """
    lines = differences(_comparable(own, free), _comparable(found, free))
    lines += [
        f"the weights of {name} are not those it was trained with"
        for name in ENCODERS
        if own["sha256"][name] != found["sha256"][name] and not any(line.startswith(name) for line in lines)
    ]
    if own["facts"]["class_names"] != found["facts"]["class_names"]:
        lines.append("the classes are not those it was trained with, or in another order")
    if lines:
        raise RobustTuneError(
            f"the checkpoint contradicts the settings ({'; '.join(lines)}): "
            "use the config.yaml of its run, without contradicting flags"
        )


def load_task(cls: type[T], path: str | Path, device: str | torch.device) -> T:
    """Load a trained task from its checkpoint, see `RobustTask.load_from_checkpoint`."""
    return task_from(cls, read_checkpoint(checkpoint_path(path))).to(device)


def task_from(cls: type[T], checkpoint: dict[str, Any]) -> T:
    """Construct a task of a class from a checkpoint, as `read_checkpoint` returns it, in evaluation mode."""
    metadata = checkpoint[KEY]
    encoders = {name: from_plain(metadata[name], kind) for name, kind in zip(ENCODERS, KINDS, strict=True)}
    settings = arguments_from_plain(metadata["settings"], cls, UNSTORED)
    facts, constructor = Facts(**metadata["facts"]), cast("Callable[..., T]", cls)  # Each task has its own arguments.
    task = constructor(**encoders, facts=facts, **settings)
    task.on_load_checkpoint(checkpoint)
    task.load_state_dict(checkpoint["state_dict"])
    return task.eval()


def _comparable(metadata: dict[str, Any], free: tuple[str, ...]) -> dict[str, Any]:
    """Return the part of a checkpoint's metadata that must be the same in the task that loads it.

    The origin of the encoders' weights is left out: a folder may move, and the hashes of weights are compared.
    """
    encoders = {name: {**metadata[name], "init_args": dict(metadata[name]["init_args"])} for name in ENCODERS}
    for encoder in encoders.values():
        for origin in ("name", "weights", "revision"):
            del encoder["init_args"][origin]
    model = {name: value for name, value in metadata["settings"].items() if name not in free}
    return {"task": metadata["task"], "model": model, "inputs": plain(metadata["inputs"]), **encoders}
