"""Metrics of a loaded model on labelled samples in memory and in tables."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from fakes import tiny_image_encoder, tiny_text_encoder

from robusttune.errors import RobustTuneError
from robusttune.inference import Predictor
from robusttune.models import Concatenation
from robusttune.models.fusion_classifier import FusionClassifier
from robusttune.types import Facts

FACTS = Facts(["cat", "dog"], [0.5, 0.5], multilabel=False)
RNG = np.random.default_rng(0)
ROWS = [
    {"image": RNG.integers(0, 256, (8, 8, 3), dtype=np.uint8), "text": text, "label": label}
    for text, label in [("soup", "dog"), ("pizza", "cat"), ("cake", "dog"), (None, "cat"), ("a red steak", "cat")]
]


def model_of(text_folder: Path, facts: Facts = FACTS) -> Predictor:
    torch.manual_seed(0)
    encoders = tiny_image_encoder(), tiny_text_encoder(text_folder)
    return Predictor([FusionClassifier(*encoders, facts, Concatenation(width=4)).eval()])


@pytest.fixture(scope="module")
def model(text_folder: Path) -> Predictor:
    return model_of(text_folder)


def test_samples_in_memory(model: Predictor) -> None:
    """The accuracy is that of the predictions; labels that are listed as text in a table give the same."""
    found = model.evaluate(ROWS, ["complete", "no_image"])
    assert found.samples == 5
    for condition, rows in {"complete": ROWS, "no_image": [row | {"image": None} for row in ROWS]}.items():
        right = [row["label"] == label for row, label in zip(ROWS, model.predict(rows).labels, strict=True)]
        assert found.metrics[condition]["accuracy"] == pytest.approx(np.mean(right))
    assert model.evaluate(pd.DataFrame(ROWS), ["complete", "no_image"]) == found
    assert str(found).splitlines()[1].split()[:2] == ["complete", f"{found.metrics['complete']['accuracy']:.4f}"]
    assert "<td>" in found._repr_html_()
    assert list(found.to_pandas().index) == ["complete", "no_image", "mean"]


def test_a_table_in_a_file(model: Predictor, tmp_path: Path) -> None:
    texts = [{"text": row["text"], "label": row["label"]} for row in ROWS if row["text"]]
    pd.DataFrame(texts).to_csv(tmp_path / "test.csv", index=False)
    with pytest.raises(RobustTuneError, match="has no column image"):
        model.evaluate(tmp_path / "test.csv", None)
    pd.DataFrame([{"image": None} | row for row in texts]).to_csv(tmp_path / "test.csv", index=False)
    found = model.evaluate(tmp_path / "test.csv", ["complete"])
    assert found.metrics["complete"] == pytest.approx(model.evaluate(texts, ["complete"]).metrics["complete"])


def test_several_models_and_several_labels(text_folder: Path) -> None:
    facts = FACTS._replace(multilabel=True)
    members = [model_of(text_folder, facts).classifiers[0] for _ in range(2)]
    rows = [row | {"label": ["cat", "dog"] if place == 0 else [row["label"]]} for place, row in enumerate(ROWS)]
    one, two = (Predictor(members[:number]).evaluate(rows, ["complete"]) for number in (1, 2))
    assert two.metrics["complete"] == pytest.approx(one.metrics["complete"], abs=1e-4), "they are equal"


def test_models_with_different_encoders_are_not_evaluated_together(text_folder: Path) -> None:
    other = FusionClassifier(tiny_image_encoder(size=48), tiny_text_encoder(text_folder), FACTS, Concatenation(width=4))
    both = Predictor([model_of(text_folder).classifiers[0], other.eval()])
    assert both.predict_proba(ROWS).shape == (5, 2), "each from images of its own size"
    with pytest.raises(RobustTuneError, match="different encoders are not evaluated together"):
        both.evaluate(ROWS, ["complete"])


def test_named_lists_of_conditions(model: Predictor) -> None:
    assert [*model.evaluate(ROWS, "quick").metrics][:1] == ["complete"]
    with pytest.raises(RobustTuneError, match="conditions/quik does not come with robusttune"):
        model.evaluate(ROWS, "quik")


def test_labels_are_needed(model: Predictor) -> None:
    with pytest.raises(RobustTuneError, match="no column 'category' with labels"):
        model.evaluate(ROWS, ["complete"], label_column="category")
    with pytest.raises(RobustTuneError, match="bird"):
        model.evaluate([row | {"label": "bird"} for row in ROWS], ["complete"])
