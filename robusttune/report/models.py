"""Runs that are the same, and tested the same, but for their seeds are one model; what models are called."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass
from typing import Any

from robusttune.report.runs import Run, Tested

SEEDS = re.compile(r"seed_everything|data\.seed|data\.source\.init_args\.seed|data\.missing\.\w+\.seed")
# Where a run's files go, how its data are loaded and what it says while it runs.
IMMATERIAL = re.compile(
    r"(name|run_root|ckpt_path|weights_only|return_predictions|verbose|data\.(cache|facts|workers|prefetch)"
    r"|trainer\.(logger|enable_progress_bar|enable_model_summary|log_every_n_steps|default_root_dir|profiler))(\..*)?"
)
LONGEST = 60  # letters of a setting in a label


@dataclass(frozen=True)
class Model:
    """Finished runs of one configuration that were tested in one way.

    Attributes:
        label: that no other model has.
        runs: one a seed.
    """

    label: str
    runs: list[Run]

    @property
    def tests(self) -> list[Tested]:
        return [run.tested for run in self.runs if run.tested is not None]


def group(runs: list[Run]) -> tuple[list[Model], list[tuple[Run, Run]]]:
    """The models of tested runs, in the order of their first ones.

    Returns:
        The models, and runs that do not count, since they have all seeds of the later run that stands beside them.
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
    """The seeds of a run by their names, sorted."""
    return tuple(sorted((name, value) for name, value in run.settings.items() if SEEDS.fullmatch(name)))


def data_seeds(run: Run) -> tuple[Any, ...]:
    """The seeds on which it depends what a test of the run has seen."""
    return (run.settings.get("data.source.init_args.seed"), *(run.tested.seeds if run.tested is not None else ()))


def _identity(run: Run) -> str:
    return json.dumps(_material(run), sort_keys=True, default=str)


def _material(run: Run) -> dict[str, Any]:
    settings = {
        name: value
        for name, value in run.settings.items()
        if not SEEDS.fullmatch(name) and not IMMATERIAL.fullmatch(name)
    }
    return settings if run.tested is None else settings | run.tested.asked


def _labels(firsts: list[Run]) -> list[str]:
    """A label for the first run of each model: its name, and where others have it, too, what tells them apart."""
    labels = []
    for run in firsts:
        namesakes = [other for other in firsts if other.name == run.name]
        labels.append(run.name if len(namesakes) == 1 else f"{run.name}, {_apart(run, namesakes)}")
    counts = Counter(labels)
    return [
        label if counts[label] == 1 else f"{run.name}, {run.folder}" for label, run in zip(labels, firsts, strict=True)
    ]


def _apart(run: Run, namesakes: list[Run]) -> str:
    """The one or two settings in which namesakes differ; the folder where there are more, or they are long."""
    settings = [_material(other) for other in namesakes]
    names = sorted({name for of_one in settings for name in of_one})
    differ = [name for name in names if _variants(settings, [name]) > 1]
    # A test mostly asks for what the configuration says: it is told of where that does not tell all apart.
    configured = [name for name in differ if not name.startswith("tested.")]
    if _variants(settings, configured) == len(namesakes):
        differ = configured
    classes = [name.removesuffix("class_path") for name in differ if name.endswith("class_path")]
    # Another class has other arguments: that it is another says enough.
    differ = [name for name in differ if not name.startswith(tuple(f"{prefix}init_args." for prefix in classes))]
    told = [f"{_short(name)} {_said(_value(_material(run), name))}" for name in differ]
    if not 1 <= len(told) <= 2 or any(len(setting) > LONGEST for setting in told):
        return str(run.folder)
    return ", ".join(told)


def _variants(settings: list[dict[str, Any]], names: list[str]) -> int:
    """How many different values there are of these settings together."""
    return len({json.dumps([_value(of_one, name) for name in names], default=str) for of_one in settings})


def _value(settings: dict[str, Any], name: str) -> Any:
    return settings.get(name, "unset")


def _short(name: str) -> str:
    return name.replace(".init_args", "").removesuffix(".class_path")


def _said(value: Any) -> str:
    if isinstance(value, str):
        return value.rpartition(".")[2] if value.startswith(("robusttune.", "torch.")) else value
    return json.dumps(value, default=str)
