"""Summaries of protocols: means, averages, what is missing, and published numbers beside them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from statistics import harmonic_mean, mean, stdev

import pytest
from protocols.made_up_outcomes import base_to_new, mmrl, outcome_with, published, published_sets

from robusttune.errors import RobustTuneError
from robusttune.protocols.matrix import Protocol
from robusttune.protocols.outcomes import Outcome, from_rows, to_rows
from robusttune.protocols.report import document_of
from robusttune.protocols.summaries.missing_grid import training_of
from robusttune.report.document import Document
from robusttune.report.tables import Table

SEEDS = (1, 2, 3)


def report(kind: str, outcomes: list[Outcome]) -> Document:
    return document_of(Protocol("p", Path("p.yaml"), "A protocol", kind, axes={}), outcomes)


def table_of(document: Document, title: str) -> Table:
    return next(table for table in document.tables if table.title.startswith(title))


def texts(table: Table, group: str) -> dict[str, list[str]]:
    """Cells of a group of rows, by the name of the row; without a name of the last group."""
    rows = [rows for heading, rows in table.groups if heading.startswith(group)][-1]
    return {name: [cell.text for cell in cells] for name, cells in rows}


def bold(table: Table, group: str) -> dict[str, list[bool]]:
    (rows,) = [rows for heading, rows in table.groups if heading.startswith(group)]
    return {name: [cell.strong for cell in cells] for name, cells in rows}


def test_both_conventions_of_the_harmonic_mean() -> None:
    document = report("base_to_new", mmrl())
    table = table_of(document, "Base to new")
    assert table.columns[2:] == ["harmonic mean of the means", "mean of harmonic means"]
    of_each = [
        harmonic_mean([published(metric, name) for metric in ("base_accuracy", "new_accuracy")])
        for name in published_sets()
    ]
    assert texts(table, "average over 11 data sets")["MMRL"] == ["85.68", "77.16", "81.20", f"{mean(of_each):.2f}"]
    assert f"{mean(of_each):.2f}" == "81.01"
    assert document.finding.endswith("The harmonic mean of the average base and new accuracy of MMRL is 81.20 %.")


def test_published_numbers_stand_beside_ones_own() -> None:
    shifted = [
        base_to_new(o.labels["dataset"], "MMRL", 1, *(100 * (o.value(m, "complete") or 0) + d for m, d in pairs))
        for o in mmrl()
        for pairs in [[("base_accuracy", 0.1), ("new_accuracy", -0.2)]]
    ]
    document = report("base_to_new", shifted)
    table = table_of(document, "MMRL beside MMRL (CVPR 2025)")
    base, new = texts(table, "base accuracy"), texts(table, "new accuracy")
    assert base["ImageNet"] == ["78.00", "77.90 ± 0.08", "+0.10", "outside the published spread", "paper"]
    assert new["ImageNet"] == ["71.10", "71.30 ± 0.28", "-0.20", "within the published spread", "paper"]
    assert new["StanfordCars"] == ["74.87", "75.07", "-0.20", "-", "from memory"]
    assert base["average"] == ["85.78", "85.68", "+0.10", "-", "paper"]
    assert "A published spread is known for some cells only" in table.note
    assert "DTD, harmonic mean: the published base and new accuracy give 73.92" in table.note
    rerun = texts(table_of(document, "MMRL beside AlignedNorm"), "new accuracy")
    assert rerun["EuroSAT, AMP"][1:3] == ["72.33", "+7.64"]
    assert rerun["EuroSAT, float32"][1:3] == ["74.53", "+5.44"]
    others = texts(table_of(document, "Other published methods"), "")
    assert [row[-1] for row in others.values()] == ["86.45", "78.67", "82.37"]  # VaMP


def test_averages_over_other_data_sets_are_not_compared() -> None:
    document = report("base_to_new", mmrl()[1:])
    assert "average" not in texts(table_of(document, "MMRL beside MMRL"), "base accuracy")
    others = table_of(document, "Other published methods")
    assert others.columns == ["MMRL++ (AlignedNorm's results file), re-run by others"]
    assert "average, base accuracy" not in texts(others, "")
    assert texts(others, "")["DTD, new accuracy"] == ["65.83"]
    other_sets = [replace(o, labels=o.labels | {"dataset": f"demo {i}"}) for i, o in enumerate(mmrl())]
    assert len(report("base_to_new", other_sets).tables) == 1


def with_seeds() -> list[Outcome]:
    """Two methods on two data sets with three seeds; one run has failed, and two have not been started."""
    outcomes = [
        base_to_new(name, method, seed, 80 + seed + shift, 60 + 2 * seed)
        for name, shift in (("flowers", 0), ("cars", 5))
        for method in ("old", "new")
        for seed in SEEDS
    ]
    outcomes[4] = Outcome(outcomes[4].labels, "failed", "the weights have diverged: lower the rate")
    outcomes[7:9] = [Outcome(outcome.labels, "not started") for outcome in outcomes[7:9]]
    return outcomes


def test_means_and_deviations_over_seeds() -> None:
    table = table_of(report("base_to_new", with_seeds()), "Base to new")
    base = [81, 82, 83]
    assert texts(table, "flowers")["old"][0] == f"{mean(base):.2f} ± {stdev(base):.2f}"
    values = [harmonic_mean([80 + seed, 60 + 2 * seed]) for seed in SEEDS]
    assert texts(table, "flowers")["old"][2] == f"{harmonic_mean([82, 64]):.2f}"
    assert texts(table, "flowers")["old"][3] == f"{mean(values):.2f} ± {stdev(values):.2f}"
    complete = [outcome for outcome in with_seeds() if outcome.labels["method"] == "new"]
    complete[1] = base_to_new("flowers", "new", 2, 90, 64)
    average = texts(table_of(report("base_to_new", complete), "Base to new"), "average over 2 data sets")
    of_seeds = [mean([81, 86]), mean([90, 87]), mean([83, 88])]
    assert average["new"][0] == f"{mean(of_seeds):.2f} ± {stdev(of_seeds):.2f}"


def test_cells_say_what_is_missing_and_are_not_the_best() -> None:
    document = report("base_to_new", with_seeds())
    table = table_of(document, "Base to new")
    assert texts(table, "flowers")["new"][0] == f"82.00 ± {stdev([81, 83]):.2f} (2 of 3 seeds)"
    assert texts(table, "flowers")["new"][2].endswith("(2 of 3 seeds)")
    assert texts(table, "cars")["old"][0] == "86.00 (1 of 3 seeds)"
    assert texts(table, "average over 2 data sets")["old"][0] == "84.00 (not all seeds)"
    assert not any(any(flags) for group in ("flowers", "cars", "average") for flags in bold(table, group).values())
    assert document.finding.startswith("9 of 12 tests are done (1 failed, 2 not started).")
    assert "No method has a complete harmonic mean" in document.finding
    assert [(run.folder, run.reason) for run in document.left_out] == [
        ("flowers, new (seed 2)", "failed: the weights have diverged: lower the rate"),
        ("cars, old (seeds 2, 3)", "not started"),
    ]


def test_a_data_set_without_any_result_is_named_and_missing_in_the_average() -> None:
    outcomes = [
        *with_seeds()[:3],
        *(Outcome(outcome.labels, "data missing", "data/cars") for outcome in with_seeds()[6:9]),
    ]
    table = table_of(report("base_to_new", outcomes), "Base to new")
    assert texts(table, "cars")["old"][0] == "- (0 of 3 seeds)"
    assert texts(table, "average")["old"][0] == "82.00 ± 1.00 (1 of 2 data sets)"


def test_an_axis_that_the_summary_does_not_know_is_part_of_the_method() -> None:
    outcomes = [
        outcome_with({"dataset": "d", "method": "m", "rank": rank, "shots": shots, "seed": "1"}, complete=value)
        for rank, shots, value in (("4", "1", 50), ("8", "1", 60), ("4", "2", 55), ("8", "2", 66))
    ]
    document = report("few_shot", outcomes)
    assert texts(document.tables[0], "d, accuracy") == {
        "m, rank 4": ["50.00", "55.00"],
        "m, rank 8": ["60.00", "66.00"],
    }


def test_few_shot_curves() -> None:
    outcomes = [
        outcome_with(
            {"dataset": name, "method": method, "shots": str(shots), "seed": str(seed)},
            complete=50 + shots + seed + shift,
        )
        for name, shift in (("flowers", 0), ("cars", 4))
        for method in ("zero-shot", "MMRL")
        for shots in (16, 1, 2)
        if method == "MMRL" or shots == 1
        for seed in SEEDS
    ]
    document = report("few_shot", outcomes)
    (table,) = document.tables
    assert table.columns == ["1 shot", "2 shots", "16 shots"]
    assert texts(table, "average over 2 data sets, accuracy") == {
        "zero-shot": ["55.00 ± 1.00", "-", "-"],
        "MMRL": ["55.00 ± 1.00", "56.00 ± 1.00", "70.00 ± 1.00"],
    }
    plot = document.plots["few_shot"]
    assert all(f">{text}<" in plot.svg for text in ("flowers, accuracy", "shots per class", "zero-shot", "16"))
    assert "stroke-dasharray" in plot.svg
    assert document.finding.endswith("MMRL has the best average accuracy with 16 shots, 70.00 ± 1.00 %.")


def test_transfer_averages_over_targets_without_the_training_data() -> None:
    outcomes = [
        outcome_with(
            {"dataset": "ImageNet", "method": "MMRL++", "seed": "1", "target": target, "beta": beta},
            complete=value + more,
        )
        for beta, more in (("one for all", 0), ("per target", 1))
        for target, value in (("DTD", 40), ("EuroSAT", 50))
    ]
    outcomes.append(
        outcome_with({"dataset": "ImageNet", "method": "MMRL++", "seed": "1", "beta": "one for all"}, complete=70)
    )
    document = report("transfer", outcomes)
    table = document.tables[0]
    assert table.columns == ["MMRL++, beta one for all", "MMRL++, beta per target"]
    assert texts(table, "training data set") == {"ImageNet": ["70.00", "-"]}
    assert texts(table, "targets") == {"DTD": ["40.00", "41.00"], "EuroSAT": ["50.00", "51.00"]}
    assert texts(table, "")["average over 2 targets"] == ["45.00", "46.00"]


def test_a_method_is_composed_of_others_by_target() -> None:
    outcomes = [
        outcome_with(
            {"dataset": "ImageNet", "method": f"beta {beta}", "seed": "1", "target": target}, "accuracy", complete=value
        )
        for beta, values in (("0.9", (40, 50)), ("0.3", (38, 56)))
        for target, value in zip(("DTD", "EuroSAT"), values, strict=True)
    ]
    composed = {"beta per target": {"DTD": "beta 0.9", "EuroSAT": "beta 0.3"}}
    protocol = Protocol("p", Path("p.yaml"), "Transfer", "transfer", axes={}, composed=composed)
    document = document_of(protocol, outcomes)
    table = document.tables[0]
    assert table.columns == ["beta 0.9", "beta 0.3", "beta per target"]
    assert texts(table, "targets") == {"DTD": ["40.00", "38.00", "40.00"], "EuroSAT": ["50.00", "56.00", "56.00"]}
    assert texts(table, "")["average over 2 targets"] == ["45.00", "47.00", "48.00"]
    assert document.finding.startswith("All 4 tests are done. beta per target has the best")
    assert table.note.endswith(
        "beta per target: for each data set the values of another method, which the protocol names."
    )


def test_transfer_beside_published_numbers() -> None:
    outcomes = [
        outcome_with({"dataset": "ImageNet", "method": "MMRL", "seed": "1", "target": target}, complete=value)
        for target, value in (("ImageNetV2", 64), ("ImageNet-R", 78))
    ]
    table = table_of(report("transfer", outcomes), "MMRL beside MMRL (CVPR 2025)")
    assert texts(table, "accuracy") == {
        "ImageNetV2": ["64.00", "64.47", "-0.47", "-", "note by others"],
        "ImageNet-R": ["78.00", "77.53", "+0.47", "-", "note by others"],
    }
    elsewhere = [replace(outcome, labels=outcome.labels | {"dataset": "SUN397"}) for outcome in outcomes]
    assert len(report("transfer", elsewhere).tables) == 1


def missing(kinds: tuple[str, ...] = ("image", "text", "both")) -> list[Outcome]:
    """One method that was trained with 70 % of a modality missing, tested with all missing types."""
    level = {"image": 50, "text": 60, "both": 70}
    conditions = {"complete": 90.0, "no_image": 20.0} | {
        f"missing_{kind}_{rate}": 80.0 - rate / 2 + n for n, kind in enumerate(level) for rate in (30, 70)
    }
    outcomes = []
    for kind in kinds:
        for seed in SEEDS:
            values = {name: value + level[kind] / 100 + seed for name, value in conditions.items()}
            labels = {"dataset": "Hateful Memes", "method": "MoLT", "type": kind, "rate": "70", "seed": str(seed)}
            values |= {"noisy_text_ocr_2": 10.0}
            outcome = outcome_with(labels, "accuracy", **values)
            for row in outcome.values.values():
                row["auroc"] = (row["accuracy"] or 0) - 0.1
            outcomes.append(outcome)
    return outcomes


def test_missing_rates_by_training_and_test() -> None:
    document = report("missing_rates", missing())
    # The published metric of this data set is the AUROC, whatever the main metric of the test.
    table = table_of(document, "Hateful Memes, AUROC: tests by missing rate")
    rows = texts(table, "trained on text, 70 % missing")
    assert [*rows] == [
        *("complete", "no_image", "missing_both_30", "missing_both_70"),
        *("missing_image_30", "missing_image_70", "missing_text_30", "missing_text_70"),
    ]
    assert rows["missing_both_30"] == ["59.60 ± 1.00"]  # 80 - 15 + 2 + 0.6 + 2 - 10
    alike = table_of(document, "Hateful Memes, AUROC: the same missing rates in training and tests")
    assert alike.columns == [
        *("image, 70 % missing", "text, 70 % missing", "both, 70 % missing"),
        "average of image, text and both, 70 % missing",
    ]
    own = [37.5, 38.6, 39.7]  # 80 - 35 + (0, 1, 2) + (0.5, 0.6, 0.7) + 2 - 10
    assert texts(alike, "")["MoLT"] == [f"{value:.2f} ± 1.00" for value in (*own, mean(own))]
    others = texts(table_of(document, "Other published methods"), "")
    assert [row[-1] for row in others.values()] == ["69.80", "69.63"]
    assert [row[0] for row in others.values()] == ["66.08", "-"]
    assert {*document.plots} == {"missing_rates_hatefulmemes_70"}  # of one rate in training there is no other curve


def test_curves_of_several_training_rates() -> None:
    outcomes = missing(("image",))
    complete = [replace(outcome, labels=outcome.labels | {"type": "both", "rate": "0"}) for outcome in outcomes]
    plots = report("missing_rates", [*complete, *outcomes]).plots
    names = [f"missing_rates_hatefulmemes_{name}" for name in ("0", "70", "alike")]
    assert [*plots] == names
    assert "trained on complete samples;" in plots[names[0]].svg
    assert "trained on image, 70 % missing;" in plots[names[1]].svg
    assert ">image missing<" in plots[names[2]].svg


def test_the_average_over_missing_types_needs_all_three() -> None:
    document = report("missing_rates", missing(("image", "both")))
    assert table_of(document, "Hateful Memes, AUROC: the same").columns == ["image, 70 % missing", "both, 70 % missing"]


@pytest.mark.parametrize(
    ("rate", "percent"), [("70", 70), ("70 %", 70), ("0.7", 70), ("1.0", 100), ("1", 1), ("0", 0), ("12.5", 12.5)]
)
def test_rates_are_percent_or_fractions_with_a_point(rate: str, percent: float) -> None:
    training = training_of({"type": "both", "rate": rate})
    assert training.percent == pytest.approx(percent)
    assert (training.kind is None) == (percent == 0)


def test_conditions_average_over_those_that_all_methods_have() -> None:
    outcomes = [
        outcome_with({"method": "a", "seed": "1"}, complete=90, no_image=70, no_text=50),
        outcome_with({"method": "b", "seed": "1"}, complete=80, no_image=66),
    ]
    (table,) = report("conditions", outcomes).tables
    rows = {name: [cell.text for cell in cells] for _, group in table.groups for name, cells in group}
    assert rows == {
        "complete": ["90.00", "80.00"],
        "no_image": ["70.00", "66.00"],
        "no_text": ["50.00", "-"],
        "mean": ["80.00", "73.00"],
    }
    assert "The mean is over 2 conditions that all methods have." in table.note


@pytest.mark.parametrize("kind", ["base_to_new", "few_shot", "transfer", "missing_rates", "conditions"])
def test_nothing_is_done_yet(kind: str) -> None:
    labels = {"dataset": "d", "method": "m", "shots": "1", "target": "t", "type": "both", "rate": "70"}
    outcomes = [Outcome({**labels, "seed": str(seed)}, "not started") for seed in SEEDS]
    document = report(kind, outcomes)
    assert document.finding.startswith("0 of 3 tests are done (3 not started). No method has a complete ")
    assert len(document.left_out) == 1


def test_outcomes_survive_json() -> None:
    outcomes = with_seeds()
    restored = from_rows(json.loads(json.dumps(to_rows(outcomes))))
    assert restored == outcomes
    few = from_rows(to_rows(outcomes, metrics=["new_accuracy"]))
    assert few[0].values == {"complete": {"new_accuracy": 0.62}}


def test_an_unknown_summary_is_refused() -> None:
    with pytest.raises(RobustTuneError, match="there is no summary 'wide': choose from base_to_new, few_shot"):
        report("wide", with_seeds())
