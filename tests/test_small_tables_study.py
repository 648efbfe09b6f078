"""The suite of small tables: its files and features, the study of models on it, and its protocol."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from experiments import records
from experiments.encoding import encoded_batches
from experiments.records import Results
from experiments.small_tables import models, networks, steps
from experiments.small_tables.features import descriptions, encoders_of, features
from experiments.small_tables.networks import fit
from experiments.small_tables.protocol import PROTOCOL, protocol
from experiments.small_tables.rows import SmallTable
from experiments.small_tables.scenes import scene_rows
from experiments.small_tables.scores import METRICS, constant, paired_difference
from experiments.small_tables.splits import SPLITS
from experiments.small_tables.summary import dominance, results_table, suite_table
from experiments.small_tables.writing import write_table
from experiments.training import CONDITIONS
from sklearn.metrics import f1_score

from robusttune.data.sources import Table
from robusttune.data.sources.shapes import Shapes, World
from robusttune.models.base import FusionNetwork
from robusttune.models.fitted import TrainingFeatures
from robusttune.models.thresholds import Thresholds
from robusttune.types import View, Widths


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a suite with one table of 24 scenes, four of them without text."""
    root = tmp_path_factory.mktemp("suite")
    rows = list(scene_rows(Shapes(world=World(classes=2), train=24)))
    rows = [row._replace(text="") if number < 4 else row for number, row in enumerate(rows)]
    write_table(SmallTable("scenes", "scene, caption, shape", (), rows, encoders="demo_clip"), root)
    return root


def test_written_tables_are_read(suite: Path) -> None:
    folder = suite / "scenes"
    found = Table(train=str(folder / "1-train.jsonl"), test=str(folder / "1-test.jsonl"), id_column="id")
    train, test = (found.read(split) for split in ("train", "test"))
    assert train is not None
    assert test is not None
    assert train.num_rows + test.num_rows == 24
    (described,) = descriptions(suite)
    assert (described["rows"], described["classes"], described["task"]) == (24, 2, "multi-class")
    assert described["train_rows"] == train.num_rows
    assert described["without_text"] == pytest.approx(4 / 24, abs=1e-3)


def test_features_are_those_of_the_encoders(suite: Path) -> None:
    (described,) = descriptions(suite)
    data = features(suite, described)
    assert data.ids.tolist() == [f"{n:04}" for n in range(24)]
    assert (~data.present[:, 1]).nonzero()[0].tolist() == [0, 1, 2, 3]
    again = features(suite, described)  # from the file
    assert np.array_equal(data.image, again.image)
    samples = data.samples(np.arange(24))
    fitted = fit("linear", samples, data.widths, 2, seed=0)
    (expected,) = fitted.logits(samples, [View()])
    batches = encoded_batches(encoders_of(suite, "demo_clip"), suite / "scenes/all.jsonl", suite / "scenes")
    for batch, image, text in batches:
        found = fitted.network(image, text, batch.image_present, batch.text_present).logits
        places = torch.tensor([int(name) for name in batch.sample_id])
        torch.testing.assert_close(found, expected[places], atol=1e-4, rtol=1e-4)
        assert batch.label is not None
        assert torch.equal(batch.label, samples.label[places])


def test_a_study_of_the_suite(
    suite: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(records, "ProcessPoolExecutor", lambda *_: ThreadPoolExecutor(1))
    monkeypatch.setattr(steps, "STEPS", 3)
    monkeypatch.setattr(
        "sys.argv", ["models.py", str(suite), "--root", str(tmp_path), "--experts-splits", "2", "--molt-tables"]
    )
    models.main()
    results = Results.read(tmp_path / "results.json")
    assert [(job["model"], job["split"]) for job in results.jobs] == [
        *((model, split) for split in SPLITS for model in ("linear", "stacking")),
        *[("stacking", 1)] * 2,  # with further seeds
        *(("Experts", split) for split in (1, 2)),
    ]
    with np.load(tmp_path / "predictions/scenes-stacking-2-2.npz") as kept:
        values = results.metrics(model="stacking", split=2)[0]
        assert values["no_text"]["accuracy"] == pytest.approx((kept["no_text"] == kept["label"]).mean())
        assert len(kept["ids"]) == 8
    (summarised,) = results.summary
    assert summarised["splits"] == {"linear": [1, 2, 3], "stacking": [1, 2, 3], "Experts": [1, 2], "MoLT": []}
    linear = [metrics["complete"]["accuracy"] for metrics in results.metrics(model="linear")]
    assert summarised["metrics"]["accuracy"]["linear"]["complete"] == pytest.approx(np.mean(linear), abs=1e-4)
    assert summarised["metrics"]["accuracy"]["spread"].keys() == {*CONDITIONS}
    assert "| scenes |" in capsys.readouterr().out


WIDTHS = Widths((4,), 4)


def many_labels() -> TrainingFeatures:
    """Return 60 samples, a fifth without text. The image shows the first of two labels, the text the second."""
    generator = torch.Generator().manual_seed(0)
    label = (torch.rand(60, 2, generator=generator) < 0.4).long()
    image, text = (torch.randn(60, 8, generator=generator) * 0.3 for _ in range(2))
    image[:, ::2] += label[:, :1]
    text[:, ::2] += label[:, 1:]
    present = torch.stack([torch.ones(60, dtype=torch.bool), torch.arange(60) % 5 > 0], 1)
    return TrainingFeatures(image, text, present, label, [f"{n:02}" for n in range(60)])


def test_experts_learn_and_their_thresholds_are_fitted_to_a_tenth(monkeypatch: pytest.MonkeyPatch) -> None:
    trained: list[TrainingFeatures] = []

    def train(network: FusionNetwork, samples: TrainingFeatures, *rest: Any) -> None:
        trained.append(samples)
        steps.train(network, samples, *rest)

    monkeypatch.setattr(networks, "train", train)
    monkeypatch.setattr(steps, "STEPS", 60)
    samples, widths = many_labels(), (WIDTHS, WIDTHS)
    found = fit("Experts", samples, widths, 2, seed=0)
    assert len(trained[0].label) == 54
    assert found.thresholds is not None
    assert not torch.equal(found.thresholds.values, Thresholds(2).values)
    predicted = found.predict(samples, View())
    assert (predicted == samples.label).float().mean() > 0.75
    single = samples._replace(label=samples.label[:, 0])
    found = fit("Experts", single, widths, 2, seed=0)
    assert len(trained[1].label) == 60, "nothing is held out without thresholds"
    assert (found.predict(single, View(text=None)) == single.label).float().mean() > 0.75


def test_thresholds_are_those_of_the_modalities_that_are_present() -> None:
    samples = many_labels()
    found = fit("linear", samples, (WIDTHS, WIDTHS), 2, seed=0)
    assert found.thresholds is not None
    found.thresholds.values[:] = torch.tensor([1.0, 0.0, 1.0, 1.0]).unsqueeze(1)  # 0 for the image alone
    predicted = found.predict(samples, View())
    assert torch.equal(predicted.bool(), ~samples.present[:, 1:].expand(-1, 2))


@pytest.mark.parametrize("average", ["micro", "macro"])
def test_f1_of_draws_is_that_of_scikit_learn(average: str) -> None:
    generator = np.random.default_rng(0)
    label, predicted = generator.integers(0, 2, (2, 20, 3))
    draws = generator.integers(0, 3, (4, 20)).astype(float)
    expected = [f1_score(label, predicted, average=average, sample_weight=draw) for draw in draws]
    assert METRICS[f"f1_{average}"](predicted, label, draws) == pytest.approx(expected)


def test_paired_differences() -> None:
    label = np.zeros(400, dtype=int)
    worse = np.arange(400) % 4 // 3  # a quarter is wrong
    better = np.where(np.arange(400) % 8 == 3, 0, worse)  # half of it is right
    difference, low, high = paired_difference("accuracy", better, worse, label)
    assert difference == pytest.approx(0.125)
    assert (low, high) == pytest.approx((0.125 - 0.0324, 0.125 + 0.0324), abs=0.005)  # 1.96 standard errors
    assert paired_difference("accuracy", better, better, label) == (0, 0, 0)


def test_constant_answers() -> None:
    label = np.array([[1, 0], [1, 0], [1, 1], [0, 0]])
    found = constant(label, label)
    assert found["f1_micro"] == pytest.approx(6 / 8)  # the first class alone
    assert found["f1_macro"] == pytest.approx((6 / 7 + 2 / 5) / 2)
    assert constant(np.array([0, 1, 1]), np.array([1, 0])) == {"accuracy": 0.5}


def test_tables_of_the_page_mark_clear_differences_and_have_means() -> None:
    same = {condition: [0.0, -0.1, 0.1] for condition in CONDITIONS}
    stacking = {**same, "complete": [0.1, 0.05, 0.15], "no_image": [-0.2, -0.3, -0.1]}
    linear = dict.fromkeys(CONDITIONS, 0.5)
    accuracy = {"constant": 0.2, "linear": linear, "stacking": stacking}
    described = {"content": "c", "rows": 1200, "train_rows": 800, "classes": 3, "imbalance": 1.0, "depends_on": "text"}
    several = {"f1_macro": {**accuracy, "stacking": same}, "f1_micro": {**accuracy, "stacking": same}}
    summary = [
        {"name": "one", **described, "metrics": {"accuracy": accuracy}},
        {"name": "more", **described, "metrics": several},
    ]
    results = Results("", "", {}, [], summary)
    lines = results_table(results).splitlines()
    assert lines[2].startswith("| one | 0.200 | 0.500 | 0.500 | 0.500 | **+0.100 (+0.050 to +0.150)** | *-0.200 (")
    assert lines[4].startswith("| more, F1 micro | 0.200 ")
    assert lines[5] == "| rows better, worse | | | | | 1, 0 | 0, 1 | 0, 0 |"
    assert lines[6] == "| mean over the tables | | 0.500 | 0.500 | 0.500 | +0.050 | -0.100 | +0.000 |"
    assert {line.count("|") for line in lines} == {9}
    assert suite_table(results).splitlines()[2] == "| one | c | 1,200 | 800 | 3 | 1 | text |"


@pytest.mark.parametrize(
    ("complete", "no_image", "no_text", "found"),
    [
        (0.86, 0.83, 0.75, "complementary"),
        (0.9, 0.89, 0.6, "text"),
        (0.9, 0.5, 0.89, "image"),
        (0.9, 0.89, 0.88, "either"),
    ],
)
def test_dominance(complete: float, no_image: float, no_text: float, found: str) -> None:
    assert dominance(complete, no_image, no_text) == found


def test_the_protocol_is_the_one_that_is_written() -> None:
    content = yaml.safe_load(PROTOCOL.read_text(encoding="utf-8"))
    tables = content["axes"]["dataset"]
    assert len(tables) >= 12
    described = [
        {
            "name": name,
            "encoders": Path(table["configs"][1]).stem,
            "task": "multi-label" if "settings" in table else "multi-class",
        }
        for name, table in tables.items()
    ]
    assert PROTOCOL.read_text(encoding="utf-8") == protocol(described)
    combined = {(one["where"]["dataset"], one["where"]["seed"]) for one in content["combinations"]}
    assert combined == {(name, split) for name in tables for split in SPLITS}
