"""Where weights come from, and what is said when they are not to be had."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from robusttune.encoders.hub import PREFETCH, offline
from robusttune.errors import RobustTuneError
from robusttune.paths import user_path
from robusttune.regular_files import what_is_at

PACKAGED = "robusttune:"  # begins the name of an encoder that ships with the package
_looking: list[set[str]] = []  # who wants to know what is looked up


def model_folder(name: str) -> Path:
    """The folder that a model's name stands for, whether or not it exists.

    ``robusttune:demo_clip`` is the package's own, wherever that is installed.
    """
    if name.startswith(PACKAGED):
        return Path(__file__).parents[1] / Path(name.removeprefix(PACKAGED)).name
    return user_path(name)


def local_weights(path: str) -> Path:
    """The path of local weights.

    Raises:
        RobustTuneError: nothing is there.
    """
    found = user_path(path)
    if not found.exists():
        raise RobustTuneError(f"weights {path} do not exist: give a file, a folder, 'pretrained' or 'random'")
    what = None if found.is_dir() else what_is_at(found)
    if what is not None:
        raise RobustTuneError(f"weights: {path} {what}: give a file, a folder, 'pretrained' or 'random'")
    return found


def refuse_code(path: Path) -> None:
    """Check that a weights file holds nothing that is executed when it is read; older timm would read it all the same.

    Raises:
        RobustTuneError: it holds more than tensors.
    """
    if path.suffix == ".safetensors":
        return
    try:
        torch.load(path, map_location="meta", weights_only=True)
    except pickle.UnpicklingError:
        raise RobustTuneError(f"{path} holds more than tensors, and is not loaded: give a .safetensors file") from None


@contextmanager
def seeded(seed: int = 0) -> Iterator[None]:
    """Random weights are not stored in checkpoints, so they must come out the same every time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


@contextmanager
def looked_up() -> Iterator[set[str]]:
    """Names of the published repositories that encoders look up within."""
    names: set[str] = set()
    _looking.append(names)
    try:
        yield names
    finally:
        _looking.pop()


@contextmanager
def fetching(repository: str, weights: str) -> Iterator[None]:
    """Turn a failed look-up of published or local files into one sentence.

    The hub's clients raise many kinds of errors for one fact, among them OSError, ValueError and RuntimeError.
    """
    place = repository if weights in ("pretrained", "random") else weights
    local = model_folder(place).exists()
    for names in _looking if not local else ():
        names.add(repository)
    try:
        yield
    except RobustTuneError:
        raise
    except Exception as error:
        if "trust_remote_code" in str(error):
            raise code_error(place) from error
        reason = str(error).strip().split("\n")[0][:200].rstrip(".:") or type(error).__name__
        if local:
            raise RobustTuneError(
                f"{place} cannot be loaded ({reason}): check that it is whole, and fits the model"
            ) from error
        if weights == "random" and isinstance(error, TypeError):
            raise RobustTuneError(f"{repository} cannot be made ({reason}): correct model_args") from error
        remedy = (
            PREFETCH if offline() else f"check its name and revision, and the network (if there is none, {PREFETCH})"
        )
        raise RobustTuneError(
            f"{repository} cannot be loaded ({reason}): {remedy}, or set weights to a local file or folder"
        ) from error


def code_error(place: str) -> RobustTuneError:
    """Return the error for a model that brings Python code of its own."""
    return RobustTuneError(f"{place!r} needs code of its own, which is not run: choose another model")


@contextmanager
def refusing_gaps() -> Iterator[None]:
    """Within it a state dict that lacks a key of its module is an error, whatever ``strict`` says.

    timm loads a model without a classifier non-strictly, and then leaves at random whatever a file lacks.
    """
    original = nn.Module.load_state_dict

    def checked(module: nn.Module, state_dict: Any, *args: Any, **kwargs: Any) -> Any:
        result = original(module, state_dict, *args, **kwargs)
        if result.missing_keys:
            raise ValueError(f"{len(result.missing_keys)} weights are missing, first {result.missing_keys[0]}")
        return result

    nn.Module.load_state_dict = checked  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        nn.Module.load_state_dict = original  # type: ignore[method-assign]
