"""Sources of encoder weights, and clear errors if weights cannot be loaded."""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from robusttune.encoders.hub import PREFETCH, offline
from robusttune.errors import RobustTuneError
from robusttune.paths import user_path
from robusttune.regular_files import describe_path

PACKAGED = "robusttune:"  # prefix of the names of encoders that ship with the package
_recorders: list[set[str]] = []  # sets of the active `record_repositories` contexts


def model_folder(name: str) -> Path:
    """Return the local folder that a model's name may refer to, even if the folder does not exist.

    Args:
        name: Path of a folder, or ``robusttune:demo_clip`` for a model that ships with this package.

    Example:
        >>> model_folder("robusttune:demo_clip").is_dir()
        True
    """
    if name.startswith(PACKAGED):
        return Path(__file__).parents[1] / Path(name.removeprefix(PACKAGED)).name
    return user_path(name)


def named_folder(name: str) -> Path | None:
    """Return the local folder that a model's name refers to, or None if it is a published name.

    Raises:
        RobustTuneError: The name is a path, and there is no such folder.
    """
    folder = model_folder(name)
    if folder.is_dir():
        return folder
    if name.startswith(("/", "./", "../", "~", PACKAGED)):
        raise RobustTuneError(f"the encoder folder {name} does not exist: check the name")
    return None


def local_weights(path: str) -> Path:
    """Return the path of local weights.

    Raises:
        RobustTuneError: The path does not exist, or is neither a regular file nor a folder.
    """
    found = user_path(path)
    if not found.exists():
        raise RobustTuneError(f"weights {path} do not exist: give a file, a folder, 'pretrained' or 'random'")
    problem = None if found.is_dir() else describe_path(found)
    if problem is not None:
        raise RobustTuneError(f"weights: {path} {problem}: give a file, a folder, 'pretrained' or 'random'")
    return found


def refuse_code(path: Path) -> None:
    """Check that reading a weights file executes no code. Older versions of timm would read the file regardless.

    Raises:
        RobustTuneError: The file holds more than tensors.
    """
    if path.suffix == ".safetensors":
        return
    try:
        torch.load(path, map_location="meta", weights_only=True)
    except pickle.UnpicklingError:
        raise RobustTuneError(f"{path} holds more than tensors, and is not loaded: give a .safetensors file") from None


def replace_weights(module: nn.Module, updated: Mapping[str, Tensor] | None) -> None:
    """Replace some weights of a module.

    Args:
        module: Module, which is changed in place.
        updated: Weights by their keys in the module's state dict; None for none.
    """
    unknown = module.load_state_dict(updated or {}, strict=False).unexpected_keys
    assert not unknown, f"the model has no {unknown[0]}"


@contextmanager
def seeded(seed: int = 0) -> Iterator[None]:
    """Seed torch's random numbers within the context, and restore their state after it.

    Random weights are not stored in checkpoints, so they must be the same every time.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


@contextmanager
def record_repositories() -> Iterator[set[str]]:
    """Yield a set that collects the names of the published repositories that encoders request within the context."""
    names: set[str] = set()
    _recorders.append(names)
    try:
        yield names
    finally:
        _recorders.pop()


@contextmanager
def fetching(repository: str, weights: str) -> Iterator[None]:
    """Turn a failed request for published or local files into one clear sentence.

    The hub's clients raise many types of errors for the same cause, among them OSError, ValueError and RuntimeError.

    Args:
        repository: Name of the published repository.
        weights: Setting ``weights`` of the encoder: ``pretrained``, ``random``, or a local path.

    Raises:
        RobustTuneError: An error occurred within the context.
    """
    place = repository if weights in ("pretrained", "random") else weights
    local = model_folder(place).exists()
    for names in _recorders if not local else ():
        names.add(repository)
    try:
        yield
    except RobustTuneError:
        raise
    except Exception as error:
        if "trust_remote_code" in str(error):
            raise code_error(place) from error
        reason = str(error).strip().split("\n")[0][:200].rstrip(".:") or type(error).__name__
        if isinstance(error, TypeError) and (weights == "random" or "keyword argument" in reason):
            raise RobustTuneError(f"{repository} cannot be made ({reason}): correct model_args") from error
        if local:
            raise RobustTuneError(
                f"{place} cannot be loaded ({reason}): check that it is whole, and fits the model"
            ) from error
        remedy = (
            PREFETCH if offline() else f"check its name and revision, and the network (if there is none, {PREFETCH})"
        )
        raise RobustTuneError(
            f"{repository} cannot be loaded ({reason}): {remedy}, or set weights to a local file or folder"
        ) from error


def code_error(place: str) -> RobustTuneError:
    """Return the error for a model that needs its own Python code."""
    return RobustTuneError(f"{place!r} needs code of its own, which is not run: choose another model")


@contextmanager
def strict_loading() -> Iterator[None]:
    """Raise an error within the context if a state dict lacks a weight of its module, regardless of ``strict``.

    timm loads a model without a classifier non-strictly, and leaves weights that the file lacks at random values.

    Raises:
        ValueError: A weight is missing.
    """
    original = nn.Module.load_state_dict

    def checked(module: nn.Module, state_dict: Any, *args: Any, **kwargs: Any) -> Any:
        """Load a state dict and raise a ValueError if a weight is missing."""
        result = original(module, state_dict, *args, **kwargs)
        if result.missing_keys:
            raise ValueError(f"{len(result.missing_keys)} weights are missing, first {result.missing_keys[0]}")
        return result

    nn.Module.load_state_dict = checked  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        nn.Module.load_state_dict = original  # type: ignore[method-assign]
