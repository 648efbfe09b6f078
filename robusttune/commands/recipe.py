"""The setting ``recipe: auto``: values for the settings that the user leaves out, chosen from the training data.

They are inserted into the command line as a configuration below the user's own, so that a value of the user wins, and
the setting itself becomes null: from there on, and in the ``config.yaml`` of the run, the run is like any other. The
values depend on the data and the command line alone. So all processes of a run, and a fit that is resumed, have the
same.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from lightning.pytorch.utilities import rank_zero_info

from robusttune.checkpoint_file import KEY, checkpoint_path, read_checkpoint
from robusttune.commands.configs import Arguments
from robusttune.commands.data_config import read_data
from robusttune.commands.flags import with_flags
from robusttune.commands.links import ENCODERS
from robusttune.commands.recipe_rules import OPTIMIZER, Recipe, Situation, choose
from robusttune.data import ImageTextDataModule
from robusttune.errors import RobustTuneError
from robusttune.models import FusionModel, MoLT
from robusttune.packaged_configs import find_packaged
from robusttune.plain_yaml import read_plain_yaml
from robusttune.settings import from_plain, to_plain
from robusttune.tasks import FusionTask
from robusttune.yaml_files import read_yaml_file

Settings = Mapping[str, Sequence[Any]]  # values of each setting, see `prepare_arguments`
AUTO = "auto"
TESTS = ("validate", "test")  # commands whose model is that of a checkpoint
OF_STEPS = ("model.optimizer", "model.schedule")  # settings of training by gradient steps
OF_LOSSES = (  # likewise, unless they are 0 or null
    *("model.label_smoothing", "model.balance.weights", "model.balance.focal", "model.balance.logit_adjustment"),
)
# Settings of a model that may be chosen, and that a checkpoint must have in common with it.
OF_THE_MODEL = ("fusion", "beta", "every_pattern", "label_smoothing", "calibrate")


def apply_recipe(verb: str, prepared: Arguments) -> list[str]:
    """Return a command line with the values that its recipe chooses, if it has one.

    Args:
        verb: Name of the command.
        prepared: Command line, whose configurations are found and checked.

    Raises:
        RobustTuneError: The data settings are invalid, or the training data cannot be read; or, for a test, the
            checkpoint cannot be read.
    """
    args, given = prepared
    if last(given, "recipe") != AUTO or {"-h", "--help"}.intersection(args):
        return args
    return [*_above(_values(verb, args, given), verb, args), "--recipe=null"]


def without_recipe(verb: str, prepared: Arguments) -> list[str]:
    """Return a command line whose settings can be checked without the data: its recipe stays as it is.

    Args:
        verb: Name of the command.
        prepared: Command line, whose configurations are found and checked.
    """
    args, given = prepared
    if last(given, "recipe") != AUTO or _class_name(given, "model") != FusionTask.__name__:
        return args
    return _above(_not_given({"model.optimizer": OPTIMIZER}, given), verb, args)


def _above(values: Mapping[str, Any], verb: str, args: list[str]) -> list[str]:
    """Return a command line laid over values by the names of their settings."""
    first = 1 if args[:1] == [verb] else 0
    overlay = [f"--config={json.dumps(_nested(values))}"] if values else []
    return [*args[:first], *overlay, *args[first:]]


def last(given: Settings, name: str) -> Any:
    """Return the value of a setting that counts, the last one, as plain data; None if it is not given.

    Example:
        >>> last({"trainer.max_epochs": [10, "3"]}, "trainer.max_epochs")
        3
    """
    value = given.get(name, [None])[-1]
    with suppress(Exception):  # The text of a flag may be no YAML. The parser refuses what is wrong.
        return read_plain_yaml(value) if isinstance(value, str) else value
    return value


def _values(verb: str, args: list[str], given: Settings) -> dict[str, Any]:
    """Return the values to insert by the names of their settings, and log what they are chosen for."""
    task = _class_name(given, "model")
    if task is None:  # The parser says that there is no model.
        return {}
    if task != FusionTask.__name__:
        rank_zero_info(f"recipe: auto chooses settings of FusionTask, and none of {task}")
        return {}
    if verb in TESTS:
        stored = _of_checkpoint(given.get("ckpt_path", [None])[-1])
        return _not_given({"model.optimizer": OPTIMIZER, **stored}, given)
    with _unlogged():  # The command itself reads the data again.
        _, data = read_data(verb, "", with_flags(args, ("config", "data", *ENCODERS)), lambda parser: None)
        train = data.rows("train")
        if data.source.training_stream is not None:
            raise RobustTuneError(
                "recipe is auto, which counts the training samples, and data.source.stream reads them while training: "
                "set recipe to null, and trainer.max_steps and model.fusion to what you want"
            )
        if train is None:  # The check of the data says so.
            return {}
        recipe = choose(_situation(data, len(train), given))
    chosen = _settings_of(recipe)
    values = _not_given(chosen, given)
    kept = sorted(chosen.keys() - values.keys())
    rank_zero_info(f"recipe: {recipe.summary}{'; as given: ' * bool(kept)}{', '.join(kept)}")
    return values


def _situation(data: ImageTextDataModule, rows: int, given: Settings) -> Situation:
    training, noise = data.training, data.noise.train
    dropout = training.modality_dropout
    numbers = {name: last(given, f"trainer.{name}") for name in ("max_epochs", "max_steps")}
    random = training.augmentation is not None or noise.image is not None or noise.text is not None
    set_here = {"data.training.augmentation or data.noise.train": random, "data.training.balance": training.balance}
    set_here |= {name: _is_given(name, given) for name in OF_STEPS}
    set_here |= {f"{encoder}.lora": getattr(data, encoder).is_adapted for encoder in ENCODERS}
    set_here |= {name: last(given, name) for name in OF_LOSSES}
    fusion = _class_name(given, "model.fusion")
    if fusion is None and any(name.startswith("model.fusion.") for name in given):
        fusion = MoLT.__name__  # the task's own, of which the user sets an argument
    return Situation(
        rows=rows,
        classes=len(data.facts.class_names),
        fusion=fusion,
        needs_steps=next((name for name, value in set_here.items() if value), None),
        random_inputs=random,
        drops_modalities=_is_given("data.training.modality_dropout", given)
        and max(dropout.image_dropout, dropout.text_dropout) > 0,
        batch_size=data.batch_size if _is_given("data.batch_size", given) else None,
        **{name: value if isinstance(value, int) and value > 0 else None for name, value in numbers.items()},
    )


def _settings_of(recipe: Recipe) -> dict[str, Any]:
    """Return all values of a recipe, by the names of their settings."""
    if recipe.overlay is None:
        return recipe.settings
    overlay = read_yaml_file(find_packaged(recipe.overlay), "configuration")
    del overlay["name"]  # The run keeps the name that it has.
    return {**_flat(overlay), **recipe.settings}


def _of_checkpoint(given: Any) -> dict[str, Any]:
    """Return the values that a recipe has chosen for the model of a checkpoint; none if there is no such model."""
    if not isinstance(given, str):  # The command says that it needs a checkpoint.
        return {}
    stored = read_checkpoint(checkpoint_path(given))[KEY]
    if stored["task"] != FusionTask.__name__:
        return {}
    settings = {name: stored["settings"][name] for name in OF_THE_MODEL if name in stored["settings"]}
    settings["fusion"] = to_plain(from_plain(settings["fusion"], FusionModel))  # which accepts known classes only
    return {f"model.{name}": value for name, value in settings.items()}


def explicit_names(given: Settings) -> list[str]:
    """Return the names of given settings that a recipe leaves as they are. They identify a recipe on the same data."""
    return sorted(name for name in given if name.startswith(("model.", "trainer.", "data.")))


def _not_given(values: Mapping[str, Any], given: Settings) -> dict[str, Any]:
    """Return the values that are not given. A class stays if only arguments for it are given, which then win."""
    interval = "trainer.check_val_every_n_epoch"
    own = {
        name
        for name, value in values.items()
        if (_class_name(given, name) if isinstance(value, dict) else _is_given(name, given))
    }
    own |= {interval} if _is_given("trainer.val_check_interval", given) else set()
    return {name: value for name, value in values.items() if name not in own}


def _is_given(name: str, given: Settings) -> bool:
    """Return whether a setting, or one inside it, is given, or a group around it that is no mapping."""
    around = (name[:end] for end, letter in enumerate(name) if letter == ".")
    return (
        name in given
        or any(other.startswith(f"{name}.") for other in given)
        or any(group in given and not isinstance(given[group][-1], dict) for group in around if group != "model")
    )


def _class_name(given: Settings, name: str) -> str | None:
    """Return the name of the class that a setting has, without its package."""
    texts = [value for value in given.get(name, []) if isinstance(value, str)]
    paths = texts or [value for value in given.get(f"{name}.class_path", []) if isinstance(value, str)]
    return paths[-1].rpartition(".")[2] if paths else None


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the settings of an overlay by their names on the command line; a class stays a mapping."""
    found: dict[str, Any] = {}
    for key, value in settings.items():
        name = prefix if key == "init_args" else f"{prefix}.{key}".removeprefix(".")
        found |= _flat(value, name) if isinstance(value, dict) and "class_path" not in value else {name: value}
    return found


def _nested(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return values by the names of their settings as a configuration."""
    nested: dict[str, Any] = {}
    for name, value in values.items():
        *groups, key = name.split(".")
        inner = nested
        for group in groups:
            inner = inner.setdefault(group, {})
        inner[key] = value
    if "model" in nested:
        task = f"{FusionTask.__module__.rpartition('.')[0]}.{FusionTask.__name__}"
        nested["model"] = {"class_path": task, "init_args": nested["model"]}
    return nested


@contextmanager
def _unlogged() -> Iterator[None]:
    """Hold back log messages up to warnings."""
    before = logging.root.manager.disable
    logging.disable(max(before, logging.WARNING))
    try:
        yield
    finally:
        logging.disable(before)
