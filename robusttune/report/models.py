"""Grouping of runs into models, i.e. runs that differ in nothing but their seeds, and labels for the models."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass
from typing import Any

from robusttune.report.runs import Run, TestResults

SEEDS = re.compile(r"seed_everything|data\.seed|data\.source\.init_args\.seed|data\.missing\.\w+\.seed")
# Settings that do not change the results: where files go, how data are loaded, and what a run prints.
SETTINGS_WITHOUT_EFFECT = re.compile(
    r"(name|run_root|ckpt_path|weights_only|return_predictions|verbose|data\.(cache\.folder|facts|loader)"
    r"|trainer\.(logger|enable_progress_bar|enable_model_summary|log_every_n_steps|default_root_dir|profiler))(\..*)?"
)
LONGEST = 60  # most letters of a setting in a label


@dataclass(frozen=True)
class Model:
    """The finished runs of one configuration that were tested in the same way.

    Attributes:
        label: Unique label of the model.
        runs: Runs with different seeds.

    Example:
        >>> from pathlib import Path
        >>> model = Model("molt", [Run(Path("runs/molt/0"), {"name": "molt"}, finished=True, tested=None)])
        >>> model.tests
        []
    """

    label: str
    runs: list[Run]

    @property
    def tests(self) -> list[TestResults]:
        """Return the test results of all runs that have been tested."""
        return [run.tested for run in self.runs if run.tested is not None]


def group(runs: list[Run]) -> tuple[list[Model], list[tuple[Run, Run]]]:
    """Group tested runs into models.

    Runs belong to the same model if their settings and test settings are equal except for seeds and settings without
    influence on the results. A run without a fixed ``seed_everything`` is never a repeat of another.

    Args:
        runs: Tested runs.

    Returns:
        The models in the order of their first runs, and the repeats: pairs of a run that is left out and the later
        run that has the same seeds and replaces it.
    """
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(_identity(run), []).append(run)
    repeats = []
    for key, group_runs in groups.items():
        kept: dict[Any, Run] = {}
        for run in group_runs:
            seed = run.settings.get("seed_everything")
            seeds = run.folder if seed is None or seed is False else seeds_of(run)
            if seeds in kept:
                repeats.append((kept.pop(seeds), run))
            kept[seeds] = run
        groups[key] = [*kept.values()]
    labels = _labels([members[0] for members in groups.values()])
    return [Model(label, members) for label, members in zip(labels, groups.values(), strict=True)], repeats


def seeds_of(run: Run) -> tuple[tuple[str, Any], ...]:
    """Return the seeds of a run as (setting, value), sorted by the setting's name."""
    return tuple(sorted((name, value) for name, value in run.settings.items() if SEEDS.fullmatch(name)))


def data_seeds(run: Run) -> tuple[Any, ...]:
    """Return the seeds that decide which samples, noise and missing modalities the run was tested on."""
    return (run.settings.get("data.source.init_args.seed"), *(run.tested.seeds if run.tested is not None else ()))


def _identity(run: Run) -> str:
    """Return a text that is equal for runs of the same model."""
    return json.dumps(_material(run), sort_keys=True, default=str)


def _material(run: Run) -> dict[str, Any]:
    """Return the settings and test settings that influence the results, without seeds."""
    settings = {
        name: value
        for name, value in run.settings.items()
        if not SEEDS.fullmatch(name) and not SETTINGS_WITHOUT_EFFECT.fullmatch(name)
    }
    return settings if run.tested is None else settings | run.tested.test_settings


def _labels(firsts: list[Run]) -> list[str]:
    """Return unique labels for the first runs of the models.

    A label is the run's name. If several models have the same name, the settings that distinguish them are added.
    """
    labels = []
    for run in firsts:
        namesakes = [other for other in firsts if other.name == run.name]
        labels.append(run.name if len(namesakes) == 1 else f"{run.name}, {_distinction(run, namesakes)}")
    counts = Counter(labels)
    return [
        label if counts[label] == 1 else f"{run.name}, {run.folder}" for label, run in zip(labels, firsts, strict=True)
    ]


def _distinction(run: Run, namesakes: list[Run]) -> str:
    """Return the one or two settings that distinguish a run from others of the same name.

    Return the run's folder instead if more settings differ or a setting is too long.
    """
    settings = [_material(other) for other in namesakes]
    names = sorted({name for run_settings in settings for name in run_settings})
    differ = [name for name in names if _variants(settings, [name]) > 1]
    # Test settings mostly repeat the configuration, so they are only named if the configuration is not enough.
    configured = [name for name in differ if not name.startswith("tested.")]
    if _variants(settings, configured) == len(namesakes):
        differ = configured
    classes = [name.removesuffix("class_path") for name in differ if name.endswith("class_path")]
    # Different classes have different arguments, so the name of the class is enough.
    differ = [name for name in differ if not name.startswith(tuple(f"{prefix}init_args." for prefix in classes))]
    parts = [f"{_short(name)} {_text_of(_value(_material(run), name))}" for name in differ]
    if not 1 <= len(parts) <= 2 or any(len(part) > LONGEST for part in parts):
        return str(run.folder)
    return ", ".join(parts)


def _variants(settings: list[dict[str, Any]], names: list[str]) -> int:
    """Return the number of different combinations of values that the named settings have."""
    combinations = ([_value(run_settings, name) for name in names] for run_settings in settings)
    return len({json.dumps(combination, default=str) for combination in combinations})


def _value(settings: dict[str, Any], name: str) -> Any:
    return settings.get(name, "unset")


def _short(name: str) -> str:
    return name.replace(".init_args", "").removesuffix(".class_path")


def _text_of(value: Any) -> str:
    """Return a setting's value as text; a class of robusttune or torch without its module."""
    if isinstance(value, str):
        return value.rpartition(".")[2] if value.startswith(("robusttune.", "torch.")) else value
    return json.dumps(value, default=str)
