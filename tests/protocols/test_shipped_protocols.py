"""The shipped protocols: published hyper-parameters, data sets, tests, and the smallest miniature from end to end."""

from __future__ import annotations

from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from robusttune.cli import main
from robusttune.commands.resolved import Resolver
from robusttune.packaged_configs import find_config
from robusttune.protocols.command_lines import arguments_of_fit, arguments_of_test
from robusttune.protocols.ledger import load, plain
from robusttune.protocols.matrix import PlannedRun
from robusttune.protocols.protocol_file import read_protocol

CONFIGS = Path(__file__).parents[2] / "configs"
NAMES = sorted(path.stem for path in (CONFIGS / "protocols").glob("*.yaml"))
MINIATURES = [name for name in NAMES if name.startswith("demo_")]
PAPERS = [name for name in NAMES if name not in MINIATURES]


class Published(NamedTuple):
    """Published hyper-parameters of a data set: MMRL's weight, MMRL++'s beta and weight, and the prompt."""

    reg_weight: float
    beta: float
    reg_weight_plus: float
    template: str = "a photo of a {}."


PUBLISHED = {
    "ImageNet": Published(0.5, 0.9, 0.2),
    "Caltech101": Published(0.5, 0.6, 3),
    "OxfordPets": Published(0.2, 0.7, 0.01, "a photo of a {}, a type of pet."),
    "StanfordCars": Published(7, 0.7, 6),
    "Flowers102": Published(4, 0.4, 7, "a photo of a {}, a type of flower."),
    "Food101": Published(5, 0.1, 1, "a photo of {}, a type of food."),
    "FGVCAircraft": Published(6, 0.9, 2, "a photo of a {}, a type of aircraft."),
    "SUN397": Published(6, 0.5, 3),
    "DTD": Published(6, 0.9, 7, "{} texture."),
    "EuroSAT": Published(0.01, 0.2, 0.01, "a centered satellite photo of {}."),
    "UCF101": Published(3, 0.9, 3, "a photo of a person doing {}."),
}


def laid_over(first: Any, second: Any) -> Any:
    """Return nested settings with others laid over them."""
    if not (isinstance(first, dict) and isinstance(second, dict)):
        return deepcopy(second)
    return first | {key: laid_over(first.get(key), value) for key, value in second.items()}


def settings(run: PlannedRun) -> dict[str, Any]:
    """Return the settings of a fit, without the defaults, as nested data without ``init_args``."""
    found: dict[str, Any] = {}
    for config in run.overlay.configs:
        found = laid_over(found, contents(config))
    for name, value in run.overlay.settings.items():
        for key in reversed(name.split(".")):
            value = {key: value}
        found = laid_over(found, value)
    return found


@cache
def contents(config: str) -> dict[str, Any]:
    """Return the settings of a configuration, which must not be changed."""
    read: dict[str, Any] = flat(yaml.safe_load(find_config(config).read_text(encoding="utf-8")))
    return read


def flat(value: Any) -> Any:
    """Return nested settings with the ``init_args`` of classes in the place of the classes."""
    if not isinstance(value, dict):
        return value
    inside = value.get("init_args") or {}
    return {key: flat(each) for key, each in (value | inside).items() if key != "init_args"}


def runs_of(name: str, **labels: str) -> list[PlannedRun]:
    return read_protocol(name).runs({axis: [label] for axis, label in labels.items()})


def test_there_is_a_miniature_of_each_protocol() -> None:
    assert {f"demo_{name}" for name in PAPERS} == {*MINIATURES}
    assert {*PAPERS} >= {
        "base_to_new",
        "few_shot",
        "cross_dataset",
        "domain_generalization",
        "missing_modality",
        "molt",
    }


@pytest.mark.parametrize("name", PAPERS)
def test_three_seeds(name: str) -> None:
    """Of initial weights and of the data, so that shots and masks differ, too."""
    runs = read_protocol(name).runs()
    assert {run.labels["seed"] for run in runs} == {"1", "2", "3"}
    for run in runs:
        found = settings(run)
        assert str(found["seed_everything"]) == str(found["data"]["seed"]) == run.labels["seed"]


@pytest.mark.parametrize("dataset", PUBLISHED)
@pytest.mark.parametrize("method", ["MMRL", "MMRL++"])
def test_base_to_new_and_few_shot_have_the_published_values(dataset: str, method: str) -> None:
    published = PUBLISHED[dataset]
    plus = method == "MMRL++"
    base_to_new = settings(runs_of("base_to_new", dataset=dataset, method=method)[0])
    few_shot = settings(runs_of("few_shot", dataset=dataset, method=method, shots="2")[0])
    for found in (base_to_new, few_shot):
        adapter = found["model"]["adapter"]
        assert found["model"]["reg_weight"] == (published.reg_weight_plus if plus else published.reg_weight)
        assert adapter["beta"] == (published.beta if plus else 1.0)
        assert [adapter["residual_rank"], adapter["projection_rank"]] == ([4, 64] if plus else [None, None])
        assert adapter["space_width"] == (2048 if dataset == "EuroSAT" else 512)
        assert found["model"]["templates"] == [published.template]
        assert found["model"]["optimizer"]["weight_decay"] == 5e-4
        assert found["data"]["training"]["augmentation"] == {"scale": [0.5, 1.0], "flip": 0.5}
    large = dataset == "ImageNet"
    assert recipe(base_to_new) == (16, "base", 32 if large else 4, 5 if large else 10, 1e-3, 1, 1e-5)
    assert recipe(few_shot) == (2, "all", 32, 100 if plus else 50, 2e-3 if plus else 1e-3, 1, 1e-5)


def recipe(found: dict[str, Any]) -> tuple[Any, ...]:
    """Return shots, classes, batch size, epochs, learning rate, and number and rate of the epochs of the warm-up."""
    model, schedule, epochs = found["model"], found["model"]["schedule"], found["trainer"]["max_epochs"]
    splits, rate = found["data"]["splits"], model["optimizer"]["lr"]
    warm_up = round(schedule["warmup"] * epochs, 6), round(schedule["warmup_rate"] * rate, 12)
    return (splits["shots"], splits["classes"], found["data"]["batch_size"], epochs, rate, *warm_up)


@pytest.mark.parametrize("name", ["cross_dataset", "domain_generalization"])
def test_transfer_trains_as_published(name: str) -> None:
    for method, reg_weight, beta in (("MMRL", 0.2, 1.0), ("MMRL++", 0.1, 0.9)):
        found = settings(runs_of(name, method=method)[0])
        model = found["model"]
        assert (model["reg_weight"], model["adapter"]["beta"], model["schedule"]["warmup"]) == (reg_weight, beta, 0)
        assert (found["data"]["batch_size"], found["trainer"]["max_epochs"]) == (32, 1)
        assert found["data"]["splits"] == {"shots": 16, "classes": "all"}


def test_beta_by_target_is_that_of_the_authors() -> None:
    published = {"Caltech101": 0.6, "OxfordPets": 0.6, "StanfordCars": 0.3, "Flowers102": 0.4, "Food101": 0.3}
    published |= {"FGVCAircraft": 0.9, "SUN397": 0.7, "DTD": 0.5, "EuroSAT": 0.3, "UCF101": 0.9, "ImageNet": 0.9}
    published |= {"ImageNetV2": 0.9, "ImageNet-Sketch": 0.7, "ImageNet-A": 0.8, "ImageNet-R": 0.9}
    found = {}
    for name in ("cross_dataset", "domain_generalization"):
        for target, method in read_protocol(name).composed["MMRL++ beta by target"].items():
            found[target] = settings(runs_of(name, method=method)[0])["model"]["adapter"]["beta"]
    assert found == published


@pytest.mark.parametrize("name", ["base_to_new", "few_shot", "cross_dataset", "domain_generalization"])
def test_the_last_weights_are_tested_as_published(name: str) -> None:
    assert {test.checkpoint for run in read_protocol(name).runs() for test in run.tests} == {"last"}


@pytest.mark.parametrize("name", PAPERS)
def test_published_numbers_find_their_data_set(name: str) -> None:
    """A data set with published numbers has the same name in the protocols and in the ledger."""
    protocol = read_protocol(name)
    ours = {plain(dataset) for dataset in protocol.axes["dataset"]}
    ours |= {plain(target) for test in protocol.tests for target in test.axes.get("target", {})}
    published = {plain(entry.dataset) for entry in load(protocol.summary)} - {"average"}
    if protocol.summary in ("base_to_new", "missing_rates"):
        assert ours == published
    if protocol.summary == "transfer":
        assert ours <= published


def test_masks_of_missing_modalities() -> None:
    """70 % of both types: 35 % of the training samples lack the image and 35 % the text, in validation, too."""
    [run] = runs_of("missing_modality", dataset="Food-101", method="MoLT", type="both", rate="70", seed="2")
    found = settings(run)["data"]["missing"]
    assert found["train"] == found["val"] == {"rate": 0.7, "type": "both", "seed": 2}
    assert found["test"] is None if "test" in found else True
    conditions = yaml.safe_load((CONFIGS / "conditions/missing.yaml").read_text())["data"]["evaluation"]["conditions"]
    assert run.tests[0].overlay.configs == ("conditions/missing",)
    assert {"complete", "missing_image_70", "missing_text_70", "missing_both_70"} <= {*conditions}


@pytest.fixture(scope="module")
def resolve() -> Resolver:
    """Return a parser of command lines."""
    return Resolver()


@pytest.mark.parametrize(
    "name", [name if name == "demo_cross_dataset" else pytest.param(name, marks=pytest.mark.slow) for name in NAMES]
)
def test_settings_exist(name: str, resolve: Resolver) -> None:
    """The parser of the command line accepts one fit of each method, and its tests."""
    seen = set()
    for run in read_protocol(name).runs():
        if (method := run.labels["method"]) in seen or (name in PAPERS and method.startswith("MMRL++ beta")):
            continue
        seen.add(method)
        resolve("fit", arguments_of_fit(run))
        for test in run.tests[:3]:
            resolve("test", arguments_of_test(run, test))


@pytest.mark.slow
def test_the_smallest_miniature(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It runs, a second run has nothing to do, and the report has a value for each condition."""
    where = [f"--runs={tmp_path}", "--only", "seed=1"]
    assert main(["protocol", "run", "demo_molt", *where]) == 0
    assert "1 of 1" in capsys.readouterr().out
    assert main(["protocol", "run", "demo_molt", *where]) == 0
    assert "1 run: 1 done" in capsys.readouterr().out
    assert main(["protocol", "report", "demo_molt", *where, f"--out={tmp_path}/report"]) == 0
    table = (tmp_path / "report/report.md").read_text(encoding="utf-8")
    assert r"no\_image" in table
