"""What the metrics, their intervals and the table of samples need of each sample, apart from all of its logits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from robusttune.evaluation.classes import Classes, Shown
from robusttune.evaluation.per_sample import label_ranks, sample_briers, sample_losses, samples_f1
from robusttune.predictions import predicted_classes, probabilities


class Outcomes(NamedTuple):
    """The outcomes of N samples under a condition.

    Attributes:
        rows: Sample of each of the Q predictions, in ascending order, shape (Q,), int32. A sample has one prediction,
            in multi-label data any number of them.
        predicted: Predicted classes, shape (Q,), int32.
        hits: Flags of right predictions, shape (Q,), bool.
        values: Values of each sample by name, shape (N,) each. Their means over samples are metrics of the same name,
            or parts of one.
        details: Further values for the table of samples: ``confidence`` and ``rank`` of the label in multi-class data,
            and ``in_group``, the prediction among classes of the label's group, if there are base and new classes.
    """

    rows: Tensor
    predicted: Tensor
    hits: Tensor
    values: dict[str, Tensor]
    details: dict[str, Tensor]


def outcomes_of(shown: Shown, classes: Classes) -> Outcomes:
    """Return the outcomes of samples from their logits.

    Args:
        shown: Logits and labels of the samples.
        classes: Classes of the evaluation.
    """
    return _multilabel(shown) if classes.multilabel else _multiclass(shown, classes)


def _multiclass(shown: Shown, classes: Classes) -> Outcomes:
    """Return the outcomes of samples with one label; with base and new classes also those within each group."""
    label, logits = shown.label, shown.unknown
    # The argmax of probabilities may be another class, because rounding makes some of them equal.
    predicted, ranks = logits.argmax(1), label_ranks(logits, label)
    hits = predicted == label
    details = {
        "confidence": logits.softmax(1).gather(1, predicted.unsqueeze(1)).squeeze(1),
        "rank": ranks.int(),
    }
    quality = {"brier": sample_briers(logits, label), "loss": sample_losses(logits, label)}
    if classes.mixed:
        in_base = classes.base[label]
        in_group = shown.logits.masked_fill(classes.base != in_base.unsqueeze(1), -torch.inf).argmax(1)
        details["in_group"] = in_group.int()
        values = group_values(in_base, in_group == label) | {"unknown_accuracy": hits, **quality}
    else:
        values = {"accuracy": hits, **({"top5_accuracy": ranks <= 5} if logits.shape[1] > 5 else {}), **quality}
    return Outcomes(torch.arange(len(label), dtype=torch.int32), predicted.int(), hits, values, details)


def group_values(in_base: Tensor, right: Tensor) -> dict[str, Tensor]:
    """Return the values whose means give the accuracies on base and on new classes.

    Args:
        in_base: Flags of labels that are base classes, shape (N,), bool.
        right: Flags of right predictions among the classes of the label's group, shape (N,), bool.
    """
    return {"base": in_base, "base_right": in_base & right, "new": ~in_base, "new_right": ~in_base & right}


def _multilabel(shown: Shown) -> Outcomes:
    is_predicted, label = predicted_classes(shown.unknown, True, shown.cuts), shown.label.bool()
    rows, predicted = is_predicted.nonzero().T
    hits = label[rows, predicted]
    wide, target = shown.unknown.double(), shown.label.double()
    values = {
        "f1_samples": samples_f1(is_predicted, label),
        "brier": sample_briers(wide, target).to(shown.unknown),
        "loss": sample_losses(wide, target).to(shown.unknown),
    }
    return Outcomes(rows.int(), predicted.int(), hits, values, {})


def chances(logits: Tensor, multilabel: bool) -> Tensor:
    """Return the probabilities of logits (n, C), which do not depend on the place of a sample in its block.

    In float32 the last digit of a sigmoid depends on whether the processor computes it in a vector or by itself.
    """
    return probabilities(logits.double(), True).to(logits) if multilabel else probabilities(logits, False)


def joined(parts: Sequence[Outcomes]) -> Outcomes:
    """Concatenate the outcomes of several blocks of samples, at least one."""
    starts = torch.tensor([0, *(len(part.values["loss"]) for part in parts)]).cumsum(0).int()
    return Outcomes(
        torch.cat([part.rows + start for part, start in zip(parts, starts, strict=False)]),
        torch.cat([part.predicted for part in parts]),
        torch.cat([part.hits for part in parts]),
        {name: torch.cat([part.values[name] for part in parts]) for name in parts[0].values},
        {name: torch.cat([part.details[name] for part in parts]) for name in parts[0].details},
    )
