"""Model cards: what a run has measured stands in them, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from inference.models import fusion

from robusttune.inference.model_card import model_card
from robusttune.models import Experts

REPORT = {
    "checkpoint": "runs/shapes/0/checkpoints/best.ckpt",
    "samples": 1200,
    "data": {"samples": {"complete": 1000, "image_only": 150, "text_only": 50, "neither": 0}},
    "conditions": {
        "complete": {"accuracy": 0.9, "loss": 0.4},
        "no_image": {"accuracy": 0.75, "loss": None},
        "mean": {"accuracy": 0.825, "loss": 0.4},
    },
    "intervals": {"complete": {"accuracy": [0.88, 0.92]}, "no_image": {"accuracy": None}},
}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Return the folder of a run that has been tested."""
    folder = tmp_path / "shapes" / "0"
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "report").mkdir()
    (folder / "report" / "test.json").write_text(json.dumps(REPORT))
    source = {"class_path": "robusttune.data.sources.Table", "init_args": {"train": "a.csv"}}
    (folder / "config.yaml").write_text(yaml.safe_dump({"data": {"source": source}}))
    return folder


def test_a_card_has_the_results_of_its_run(run: Path) -> None:
    card = model_card(fusion(Experts()), run)
    front = yaml.safe_load(card.split("---")[1])
    assert front["library_name"] == "robusttune"
    assert "\n# shapes\n" in card
    assert "* Source: robusttune.data.sources.Table\n* Training samples: 10\n* Test samples: 1,200 (1,000 comp" in card
    assert "Results on 1,200 test samples, with 95 % confidence intervals.\n" in card
    assert "| Condition | accuracy | loss |\n" in card
    assert "| complete | 0.900 (0.880 to 0.920) | 0.400 |\n| no\\_image | 0.750 | - |\n" in card
    assert "| red circle | 50.00% |\n" in card
    assert "| image | test\\_vit | - | apache-2.0 |" in card  # timm knows the licence
    assert "## Limits" in card


def test_a_card_says_whether_probabilities_are_calibrated() -> None:
    classifier = fusion(Experts())
    classifier.temperatures.values.fill_(1.0)
    assert "not calibrated" in model_card(classifier, None)
    classifier.temperatures.values[0] = 1.5
    assert "Probabilities are calibrated on the validation split" in model_card(classifier, None)


def test_a_card_says_what_is_not_known(run: Path) -> None:
    card = model_card(fusion(Experts()), None)
    assert "This model has not been tested" in card
    assert "# A tuned model" in card
    last = run / "checkpoints" / "last.ckpt"
    last.touch()
    card = model_card(fusion(Experts()), last)
    assert "They are those of best.ckpt, and this model is last.ckpt." in card


@pytest.mark.parametrize("content", ["", "[]", "{", '{"conditions": {}}', '{"conditions": 3}'])
def test_a_damaged_report_is_no_report(run: Path, content: str) -> None:
    (run / "report" / "test.json").write_text(content)
    assert "This model has not been tested" in model_card(fusion(Experts()), run)


def test_names_are_written_as_text(run: Path) -> None:
    classifier = fusion(Experts())
    classifier.class_names = ["a|b\n# c", "<script>", "*x*"]
    card = model_card(classifier, run)
    assert "| a\\|b \\# c | not in training |\n| \\<script\\> |" in card
