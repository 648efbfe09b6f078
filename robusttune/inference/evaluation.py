"""Metrics of a tuned model on labelled data, under conditions, as `robusttune test` computes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pyarrow as pa
import torch
import yaml
from torch import Tensor

from robusttune.data.images import ImageReader
from robusttune.data.settings import EvaluationSettings, LoaderSettings
from robusttune.data.sources.base import Source, to_table
from robusttune.data.sources.table import Table
from robusttune.errors import RobustTuneError
from robusttune.inference.given_images import GivenImages
from robusttune.inference.given_rows import GivenRows, rows_of
from robusttune.inference.members import encoded_once, mean_thresholds
from robusttune.inference.optional_pandas import import_pandas
from robusttune.models.classifier import Classifier
from robusttune.packaged_configs import find_packaged
from robusttune.types import Batch, Facts, Split, View

if TYPE_CHECKING:
    import pandas as pd

STAGES = {"val": "validate", "test": "test"}


@dataclass(frozen=True, repr=False)
class Evaluation:
    """Metrics under each condition.

    Attributes:
        metrics: Value by condition (and ``mean``, over the conditions) and metric.
        intervals: Ends of the 95 % confidence interval, by condition and metric, of metrics that have one.
        samples: Number of samples, or None if it is not known.

    Example:
        >>> Evaluation({"complete": {"accuracy": 0.75}}, {"complete": {"accuracy": (0.7, 0.8)}}, 400)
        condition  accuracy
         complete    0.7500
    """

    metrics: dict[str, dict[str, float]]
    intervals: dict[str, dict[str, tuple[float, float]]]
    samples: int | None

    def to_pandas(self) -> pd.DataFrame:
        """Return a table with one row per condition and one column per metric."""
        return import_pandas().DataFrame(self.metrics).T

    def __str__(self) -> str:
        rows = [["condition", *self._names], *([name, *self._cells(name)] for name in self.metrics)]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        return "\n".join("  ".join(map(str.rjust, row, widths)) for row in rows)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        """Return the table for a notebook."""
        rows = [
            f"<tr><th>{escape(name)}</th>{''.join(f'<td>{cell}</td>' for cell in self._cells(name))}</tr>"
            for name in self.metrics
        ]
        head = "".join(f"<th>{escape(name)}</th>" for name in ("condition", *self._names))
        return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"

    @property
    def _names(self) -> list[str]:
        """Return the names of the metrics, in their order, each once."""
        return list(dict.fromkeys(metric for values in self.metrics.values() for metric in values))

    def _cells(self, condition: str) -> list[str]:
        """Return the cells of a row; an unknown value is a dash."""
        values = self.metrics[condition]
        return [f"{value:.4f}" if (value := values.get(name)) is not None else "-" for name in self._names]


@dataclass(frozen=True)
class GivenSource(Source):
    """Labelled samples that a caller has passed, as the test split.

    Attributes:
        given: Samples, with a column of labels.
        label_column: Name of that column. A label is a class name, in multi-label data a list of them.
        multilabel: True if a sample may have any number of classes.
    """

    given: GivenRows
    label_column: str
    multilabel: bool = False

    @property
    def images(self) -> ImageReader:
        """Return the reader of the images."""
        return GivenImages(self.given.images)

    def read(self, split: Split) -> pa.Table | None:
        """Return the records of the test split, or None for others.

        Raises:
            RobustTuneError: There is no column of labels.
        """
        if split != "test":
            return None
        columns = self.given.columns or {}
        if self.label_column not in columns:
            known = ", ".join(map(repr, [*columns][:5])) or "none"
            raise RobustTuneError(f"there is no column {self.label_column!r} with labels (columns: {known}): name it")
        labels = columns[self.label_column]
        images = GivenImages(self.given.images)
        rows = enumerate(zip(self.given.texts, labels, strict=True))
        return to_table(images.record(row, text, _names(label)) for row, (text, label) in rows)

    @property
    def averages_images(self) -> bool:
        """Return True: the features of several images of a sample are averaged."""
        return True


def evaluate(
    classifiers: Sequence[Classifier],
    data: Any,
    conditions: str | Sequence[str] | None,
    split: Literal["val", "test"],
    label_column: str,
    seed: int,
    batch_size: int,
) -> Evaluation:
    """Evaluate classifiers, whose class probabilities are averaged; see `Predictor.evaluate`."""
    from robusttune.data.datamodule import ImageTextDataModule  # It needs Lightning, which predictions do not.
    from robusttune.evaluation import ConditionMetrics

    first = classifiers[0]
    if any(other.encoder_settings != first.encoder_settings for other in classifiers):
        raise RobustTuneError("models with different encoders are not evaluated together: evaluate each by itself")
    source = _source(data, label_column, first.facts.multilabel)
    module = ImageTextDataModule(
        source,
        first.encoder_settings["image_encoder"],  # type: ignore[arg-type]
        first.encoder_settings["text_encoder"],  # type: ignore[arg-type]
        batch_size,
        LoaderSettings(workers=0),
        seed=seed,
        evaluation=EvaluationSettings(_names_of_conditions(conditions)),
        facts=_current_facts(first),
    )
    module.setup(STAGES[split])
    thresholds = mean_thresholds(classifiers)
    cuts = None if thresholds is None else thresholds.logit()
    metrics = ConditionMetrics(first.facts, module.conditions(split), first.class_names, cuts=cuts)
    for batch in module.test_dataloader() if split == "test" else module.val_dataloader():
        inputs = batch.to(first.device)
        if inputs.label is None:
            raise RobustTuneError("samples without labels cannot be evaluated: use predict")
        known, unknown = _scores(classifiers, inputs, metrics.conditions.views)
        present = torch.stack([inputs.image_present, inputs.text_present], 1)
        metrics.update(inputs.sample_id, inputs.label, present, known, unknown)
    return _result(metrics)


def _result(metrics: Any) -> Evaluation:
    """Return the computed metrics, by condition."""
    found: dict[str, dict[str, float]] = {}
    for name, value in metrics.compute().items():
        condition, metric = name.rsplit("/", 1)
        found.setdefault(condition, {})[metric] = value
    return Evaluation(found, metrics.intervals(), len(metrics.own.of_all))


@torch.inference_mode()
def _scores(classifiers: Sequence[Classifier], batch: Batch, views: Sequence[View]) -> tuple[Tensor, Tensor | None]:
    """Return logits (W, B, C) for metrics: of one classifier its own, of several those of their mean probabilities."""
    if len(classifiers) == 1:
        classifier = classifiers[0]
        return classifier.scores(classifier.metric_logits(batch, views), batch, views)
    inputs = encoded_once(classifiers, batch)
    mean = torch.stack([classifier.probabilities(inputs, views) for classifier in classifiers]).mean(0)
    return (mean.logit(1e-7) if classifiers[0].facts.multilabel else mean.clamp(min=1e-30).log()), None


def _source(data: Any, label_column: str, multilabel: bool) -> Source:
    if isinstance(data, Source):
        return data
    if isinstance(data, str | Path):
        return Table(test=str(data), label_column=label_column, multilabel=multilabel)
    return GivenSource(rows_of(data), label_column, multilabel)


def _current_facts(classifier: Classifier) -> Facts:
    """Return the facts of the classes that the classifier predicts now; only their names matter in a test."""
    names = classifier.class_names
    return (
        classifier.facts
        if names == classifier.facts.class_names
        else Facts(names, [1 / len(names)] * len(names), False)
    )


def _names_of_conditions(given: str | Sequence[str] | None) -> list[str] | None:
    """Return the names of conditions; a single text is the name of a list in ``configs/conditions``."""
    if given is None or not isinstance(given, str):
        return None if given is None else list(given)
    settings = yaml.safe_load(find_packaged(f"conditions/{given}").read_text(encoding="utf-8"))
    names: list[str] = settings["data"]["evaluation"]["conditions"]
    return names


def _names(label: Any) -> list[str] | None:
    """Return the class names in a cell; None for a cell without a label."""
    if label is None or (isinstance(label, float) and label != label):
        return None
    return [str(name) for name in label] if isinstance(label, list | tuple) else [str(label)]
