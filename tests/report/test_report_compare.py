"""Means, deviations and paired differences, against plain ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from report.made_up import shares, write_multilabel_run, write_run
from sklearn.metrics import f1_score

from robusttune.errors import RobustTuneError
from robusttune.report.compare import Comparison, compare
from robusttune.report.conditions import by_group
from robusttune.report.contents import robustness_table
from robusttune.report.models import group
from robusttune.report.predictions import read_predictions
from robusttune.report.resample import resampled
from robusttune.report.robustness import areas, effective_robustness, mean_relative
from robusttune.report.runs import find_runs
from robusttune.report.sentences import caveat, finding

Predictions = dict[str, NDArray[np.bool_]]


def right(samples: int, **count: int) -> Predictions:
    """By condition, the first so many of the samples."""
    return {name: np.arange(samples) < number for name, number in count.items()}


def compared(root: Path, **options: Any) -> Comparison:
    return compare(group([run for run in find_runs([str(root)]) if run.tested])[0], **options)


def test_means_and_deviations_over_seeds(tmp_path: Path) -> None:
    for seed, counts in enumerate([(90, 60), (80, 70), (85, 50)]):
        write_run(tmp_path / f"a{seed}", "a", right(100, complete=counts[0], no_text=counts[1]), seed=seed)
    write_run(tmp_path / "b", "b", right(100, complete=95, no_text=40), {"model.x": 1})
    found = compared(tmp_path)
    a, b = found.models
    assert found.estimate(a, "complete") == pytest.approx((0.85, 0.05, 3, None, None), nan_ok=True)
    assert found.estimate(a, "mean") == pytest.approx((0.725, np.std([0.75, 0.75, 0.675], ddof=1), 3, None, None))
    assert found.estimate(b, "complete") == pytest.approx((0.95, None, 1, 0.94, 0.96))
    assert found.best("complete") == [b]
    assert found.best("mean") == [a]
    assert found.best("complete", "loss") == [b]
    assert found.best("mean", "loss") == [a]


def test_means_are_over_what_all_models_have(tmp_path: Path) -> None:
    write_run(tmp_path / "0", "a", right(10, complete=9, no_text=5, noisy_text_ocr_5=1))
    write_run(tmp_path / "1", "b", right(10, complete=8, no_text=4, no_image=3), {"model.x": 1})
    found = compared(tmp_path)
    a, b = found.models
    assert found.conditions == ["complete", "no_image", "no_text", "noisy_text_ocr_5"]
    assert found.shared == ["complete", "no_text"]
    assert found.estimate(a, "mean") == pytest.approx((0.7, None, 1, None, None))  # test.json's interval is of another
    assert found.estimate(b, "noisy_text_ocr_5") is None
    assert {*found.differences["b"]} == {"complete", "no_text", "mean"}


def plain_bootstrap(pairs: list[tuple[NDArray[Any], NDArray[Any]]], alike: bool) -> tuple[float, float]:
    """Of the mean over pairs of (N,) predictions; the same draws for all pairs, or others for each."""
    rng, differences = np.random.default_rng(7), []
    for _ in range(4000):
        rows = rng.integers(0, len(pairs[0][0]), len(pairs[0][0]))
        of_pairs = []
        for mine, theirs in pairs:
            if not alike:
                rows = rng.integers(0, len(mine), len(mine))
            of_pairs.append(mine[rows].mean() - theirs[rows].mean())
        differences.append(np.mean(of_pairs))
    low, high = np.percentile(differences, [2.5, 97.5])
    return float(low), float(high)


@pytest.mark.parametrize("alike", [True, False])
def test_paired_intervals_are_those_of_a_plain_bootstrap(alike: bool, tmp_path: Path) -> None:
    """Two seeds; the models differ in 12 known samples of 200, the same ones in both seeds."""
    theirs = shares(200, 0, complete=0.6)["complete"]
    mine = theirs.copy()
    mine[np.flatnonzero(~theirs)[:12]] = True
    for seed in (1, 0):  # other runs stand in another order
        ids = [f"{'' if alike else seed}-{row}" for row in range(200)]
        write_run(tmp_path / f"base{seed}", "base", {"complete": theirs}, seed=seed, ids=ids)
        write_run(tmp_path / f"mine{1 - seed}", "mine", {"complete": mine}, {"model.x": 1}, seed=seed, ids=ids)
    difference = compared(tmp_path).differences["mine"]["complete"]
    assert difference.mean == pytest.approx(0.06)
    assert difference.pairs == 2
    low, high = plain_bootstrap([(mine, theirs)] * 2, alike)
    assert difference.low == pytest.approx(low, abs=0.004)
    assert difference.high == pytest.approx(high, abs=0.004)
    assert difference.clear


def test_other_samples_are_not_paired(tmp_path: Path) -> None:
    write_run(tmp_path / "0", "a", right(10, complete=9))
    write_run(tmp_path / "1", "b", right(10, complete=8), {"model.x": 1}, ids=[f"other{n}" for n in range(10)])
    write_run(tmp_path / "2", "c", right(10, complete=7), {"model.x": 2}, labels=[0] * 10)
    assert not compared(tmp_path).same_samples
    found = compared(tmp_path)
    reason = "it was tested on other samples, or with other labels, than a"
    assert (found.differences, found.unpaired) == ({}, {"b": reason, "c": reason})
    assert finding(found).endswith(f"the next, b, is -0.100 against a (no paired interval: {reason}).")


def test_runs_with_other_seeds_of_the_data_are_not_paired(tmp_path: Path) -> None:
    """Their noise and missing modalities are others, on whatever samples."""
    write_run(tmp_path / "0", "a", right(10, complete=9), seed=1)
    write_run(tmp_path / "1", "b", right(10, complete=8), {"model.x": 1}, seed=2)
    of_mask = {"data": {"seed": 1, "missing": {"rate": 0.5, "seed": 8}}}
    write_run(tmp_path / "2", "c", right(10, complete=8), {"model.x": 2}, seed=1, more=of_mask)
    found = compared(tmp_path)
    reason = "it was tested with other data seeds than a"
    assert (found.differences, found.unpaired) == ({}, {"b": reason, "c": reason})
    assert found.same_samples


def test_runs_with_the_seeds_of_the_data_are_paired_each_once_by_their_start_if_they_can(tmp_path: Path) -> None:
    same = {"data.seed": 5, "data.source.init_args.seed": 5}
    tested = {"data": {"seed": 5}}
    for seed, count in ((0, 9), (1, 5)):
        write_run(tmp_path / f"a{seed}", "a", right(10, complete=count), same, seed, more=tested)
    # A protocol of training has a seed that the other model lacks.
    other = same | {"data.missing.train": {"rate": 0.7, "seed": 3}}
    for seed, count in ((2, 1), (1, 6), (3, 1)):
        write_run(tmp_path / f"b{seed}", "b", right(10, complete=count), other, seed, more=tested)
    difference = compared(tmp_path).differences["b"]["complete"]
    assert difference.pairs == 2
    assert difference.mean == pytest.approx(((6 - 5) + (1 - 9)) / 20)


NOISY = {"data": {"noise": {"image": {"kinds": ["blur"], "severities": [3], "rate": 1.0}, "text": None}}}


@pytest.mark.parametrize(
    ("more", "samples", "ids", "what"),
    [
        ({"checkpoint": "runs/0/checkpoints/last.ckpt"}, 10, "s", "checkpoint"),
        (NOISY, 10, "s", "noise"),
        ({"data": {"splits": {"val_fraction": 0.1, "shots": 4, "classes": "new", "subset": 3}}}, 10, "s", "splits"),
        ({**NOISY, "checkpoint": "last.ckpt"}, 10, "s", "noise, checkpoint"),
        ({}, 10, "t", "on other samples"),
        ({}, 9, "s", "number of samples, on other samples"),
        ({"data": {"splits": {"val_fraction": 0.3, "shots": 4, "classes": "all", "subset": None}}}, 10, "s", ""),
        ({"data": {"mask": "cafe"}}, 10, "s", ""),
    ],
)
def test_models_that_were_tested_differently_are_mentioned(
    more: dict[str, Any], samples: int, ids: str, what: str, tmp_path: Path
) -> None:
    write_run(tmp_path / "0", "a", right(10, complete=9), ids=[f"s{n}" for n in range(10)])
    names = [f"{ids}{n}" for n in range(samples)]
    write_run(tmp_path / "1", "b", right(samples, complete=8), {"model.x": 1}, ids=names, more=more)
    expected = f"Models were tested differently ({what}): values may differ for this reason alone." if what else ""
    assert caveat(compared(tmp_path)) == expected


def test_areas_are_over_the_rates_that_all_models_have(tmp_path: Path) -> None:
    write_run(
        *(tmp_path / "0", "a"),
        right(100, complete=90, missing_image_30=80, missing_image_70=50, no_image=10, missing_both_50=40),
    )
    write_run(
        *(tmp_path / "1", "b"),
        right(100, complete=80, missing_image_30=80, missing_image_50=0, missing_image_70=60, missing_text_50=1),
        {"model.x": 1},
    )
    found = compared(tmp_path)
    assert {*areas(found)} == {"image"}
    rates, of_runs = areas(found)["image"]
    assert rates == [0, 0.3, 0.7]
    of_a = 0.3 * (0.9 + 0.8) / 2 + 0.4 * (0.8 + 0.5) / 2
    of_b = 0.3 * (0.8 + 0.8) / 2 + 0.4 * (0.8 + 0.6) / 2
    assert of_runs == {"a": [pytest.approx(of_a / 0.7)], "b": [pytest.approx(of_b / 0.7)]}
    table = robustness_table(found)
    assert table is not None
    assert table.note.endswith("Areas are over the rates that all models have: 0, 0.3 and 0.7 (image).")
    assert [(name, [cell.text for cell in cells]) for name, cells in table.groups[0].rows] == [
        ("missing image", [f"{of_a / 0.7:.3f}", f"{of_b / 0.7:.3f}"])
    ]


def test_the_accuracy_of_samples_of_unknown_kind_is_that_of_the_predictions(tmp_path: Path) -> None:
    predictions = read_predictions(write_run(tmp_path / "0", "a", shares(40, 0, complete=0.7)) / "report/test.parquet")
    unknown, plain = resampled(predictions, "unknown_accuracy"), resampled(predictions, "accuracy")
    assert unknown is not None
    assert plain is not None
    assert unknown.equal(plain)


def test_metrics_without_a_paired_interval(tmp_path: Path) -> None:
    for number in range(2):
        write_run(tmp_path / f"{number}", f"m{number}", right(10, complete=9 - number), {"model.x": number})
    found = compared(tmp_path, metric="auroc")
    assert found.unpaired == {"m1": "auroc cannot be computed from the predictions for single samples"}
    assert "+0.000" not in finding(found)
    assert "is -0.050 against m0 (no paired interval: auroc cannot be computed" in finding(found)
    assert compared(tmp_path, metric="top5_accuracy").unpaired == {}


def test_lower_is_better_for_the_loss(tmp_path: Path) -> None:
    for number in range(2):
        write_run(tmp_path / f"{number}", f"m{number}", right(10, complete=5 + number), {"model.x": number})
    assert finding(compared(tmp_path, metric="loss")).startswith("m1 has the best mean loss")
    assert finding(compared(tmp_path)).startswith(
        "m1 has the best mean accuracy over 1 condition, 0.600, which is +0.1"
    )


def multilabel(seed: int) -> tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.bool_]]:
    rng = np.random.default_rng(seed)
    label = rng.random((120, 4)) < [0.6, 0.3, 0.1, 0.0]  # of the last class there is none
    label[:3] = False  # nor any in these
    return label, label ^ (rng.random(label.shape) < 0.2), label ^ (rng.random(label.shape) < 0.3)


def f1_of(label: NDArray[np.bool_], predicted: NDArray[np.bool_], average: str) -> NDArray[np.float64]:
    """(R,) of R resamples at once, (R, N, C) each; scikit-learn would take milliseconds for each."""
    axis = 2 if average == "samples" else 1
    both, either = (label & predicted).sum(axis), label.sum(axis) + predicted.sum(axis)
    if average == "micro":
        both, either = both.sum(1, keepdims=True), either.sum(1, keepdims=True)
    weights = label.sum(1) if average == "weighted" else np.ones(both.shape)
    found: NDArray[np.float64] = np.average(2 * both / np.maximum(either, 1), 1, weights)
    assert found[0] == pytest.approx(f1_score(label[0], predicted[0], average=average, zero_division=0))
    return found


@pytest.mark.parametrize("average", ["macro", "micro", "weighted", "samples"])
def test_f1_of_several_labels(average: str, tmp_path: Path) -> None:
    label, better, worse = multilabel(0)
    write_multilabel_run(tmp_path / "0", "a", label, {"complete": worse, "no_text": label})
    folder = write_multilabel_run(tmp_path / "1", "b", label, {"complete": better, "no_text": label})
    (folder / "config.yaml").write_text((folder / "config.yaml").read_text().replace("0.1", "0.2"))
    found = compared(tmp_path, metric=f"f1_{average}").differences["b"]

    whole = f1_of(label[None], better[None], average) - f1_of(label[None], worse[None], average)
    assert found["complete"].mean == pytest.approx(whole[0])
    rows = np.random.default_rng(3).integers(0, 120, (600, 120))
    differences = f1_of(label[rows], better[rows], average) - f1_of(label[rows], worse[rows], average)
    low, high = np.percentile(differences, [2.5, 97.5])
    assert found["complete"].low == pytest.approx(low, abs=0.015)
    assert found["complete"].high == pytest.approx(high, abs=0.015)
    assert found["no_text"][:3] == (0, 0, 0)


@pytest.mark.parametrize("average", ["macro", "weighted"])
def test_f1_of_one_label(average: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from robusttune.evaluation import intervals

    monkeypatch.setattr(intervals, "CHUNK", 200)  # a few resamples, and some of the samples at a time
    predictions = shares(90, 0, complete=0.8, no_text=0.4)
    predictions_of = read_predictions(write_run(tmp_path / "0", "a", predictions) / "report/test.parquet")
    label = np.arange(90) % 3
    values = resampled(predictions_of, f"f1_{average}")
    assert values is not None
    for column, condition in enumerate(predictions_of.conditions):
        predicted = np.where(predictions[condition], label, (label + 1) % 3)
        rows = np.random.default_rng(0).integers(0, 90, (500, 90))
        truth, chosen = (classes[rows][..., None] == [0, 1, 2] for classes in (label, predicted))
        plain = f1_of(truth, chosen, average)
        assert float(values[:, column].mean()) == pytest.approx(np.mean(plain), abs=0.01)
        assert float(values[:, column].std()) == pytest.approx(np.std(plain), abs=0.008)


def test_answers_are_in_the_order_of_ids_whatever_that_of_the_file(tmp_path: Path) -> None:
    predictions = shares(20, 0, complete=0.8, no_text=0.4)
    one = read_predictions(write_run(tmp_path / "0", "a", predictions, seed=0) / "report/test.parquet")
    two = read_predictions(write_run(tmp_path / "1", "a", predictions, seed=1) / "report/test.parquet")
    assert one.samples == two.samples
    for found in (one, two):
        np.testing.assert_array_equal(found.correct, [predictions[name] for name in found.conditions])


def refused(root: Path, sentence: str, **options: Any) -> None:
    with pytest.raises(RobustTuneError, match=sentence):
        compared(root, **options)


def test_errors(tmp_path: Path) -> None:
    write_run(tmp_path / "same/0", "a", right(6, complete=5))
    refused(tmp_path, "there is no metric 'acc': choose from accuracy, top5_accuracy, auroc", metric="acc")
    refused(tmp_path, "--baseline is 'b', and no model has this label: choose from a", baseline="b")
    write_run(tmp_path / "more/1", "b", right(6, complete=5), {"model.x": 1}, class_names=("pie", "soup", "tea"))
    refused(tmp_path, "same/0 has a class 'stew', .*more/1 does not: report them separately")
    label = np.eye(3, dtype=bool)
    write_multilabel_run(tmp_path / "kinds/0", "c", label, {"complete": label})
    write_run(tmp_path / "kinds/1", "d", right(6, complete=5), {"model.x": 1})
    refused(tmp_path / "kinds", "0 is f1_macro, that of .*kinds/1 is accuracy: report them separately")


def test_relative_robustness(tmp_path: Path) -> None:
    write_run(tmp_path / "0", "a", right(100, complete=80, no_text=40, no_image=60))
    write_run(tmp_path / "1", "b", right(100, complete=50, no_text=50), {"model.x": 1})
    assert mean_relative(compared(tmp_path)) == ({"a": [0.5], "b": [1.0]}, ["no_text"])


@pytest.fixture
def trend(tmp_path: Path) -> Path:
    """Three runs on the line logit(no_text) = logit(complete) - 1, and one 0.1 above it."""

    def below(complete: float) -> float:
        return 1 / (1 + np.exp(-(np.log(complete / (1 - complete)) - 1)))

    for seed, complete in enumerate((0.6, 0.7, 0.8)):
        predictions = right(10_000, complete=round(1e4 * complete), no_text=round(1e4 * below(complete)))
        write_run(tmp_path / f"plain{seed}", "plain", predictions, seed=seed)
    predictions = right(10_000, complete=7500, no_text=round(1e4 * (below(0.75) + 0.1)))
    write_run(tmp_path / "robust", "robust", predictions, {"model.x": 1})
    return tmp_path


def test_effective_robustness_is_what_is_above_the_trend(trend: Path) -> None:
    found = compared(trend)
    effective = effective_robustness(found, [found.models[0]])
    assert effective["robust"] == {"no_text": [pytest.approx(0.1, abs=2e-4)]}
    assert effective["plain"]["no_text"] == pytest.approx([0, 0, 0], abs=2e-4)


def test_a_trend_needs_three_runs_and_a_share(trend: Path) -> None:
    found = compared(trend)
    with pytest.raises(RobustTuneError, match="1 runs with different accuracy on complete samples: name models with 3"):
        effective_robustness(found, [found.models[1]])
    with pytest.raises(
        RobustTuneError, match="--trend needs a metric for which higher is better, and loss is not: leave it out"
    ):
        effective_robustness(compared(trend, metric="loss"), [found.models[0]])


def test_conditions_are_grouped_by_what_they_change() -> None:
    """A condition of another version, which this one does not know, is in a group of its own."""
    names = ["noisy_image_fog_3", "no_image+noisy_text_ocr_1", "noisy_text_ocr_1", "missing_both_9", "missing_both_10"]
    assert by_group([*names, "noisy_image_blur_2", "no_text", "no_image", "complete"]) == {
        "missing modality": ["complete", "no_image", "no_text"],
        "missing at a rate": ["missing_both_9", "missing_both_10"],
        "noisy images": ["noisy_image_blur_2"],
        "noisy texts": ["noisy_text_ocr_1"],
        "combined": ["no_image+noisy_text_ocr_1"],
        "other": ["noisy_image_fog_3"],
    }
