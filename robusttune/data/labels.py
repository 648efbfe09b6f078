"""Label mapping: map labels to class indices by name, and collect the facts about classes that a model needs."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from robusttune.data.look_alikes import plain_form, written_out
from robusttune.data.problems import Problems
from robusttune.errors import RobustTuneError
from robusttune.types import Facts, Split


def facts_of(train: pa.Table, class_names: list[str], multilabel: bool) -> Facts:
    """Return the facts about the classes of a training split.

    Args:
        train: Table of the training samples, with the columns of `SCHEMA`.
        class_names: Names of the C classes, in label order.
        multilabel: Whether a sample may have any number of classes, instead of exactly one.

    Returns:
        Class names, the fraction of training samples in each class, ``multilabel``, and the number of training samples.

    Raises:
        RobustTuneError: There are fewer than two classes (fewer than one in multi-label data), or a label is invalid,
            see `encode_labels`.

    Example:
        >>> train = pa.table({"id": ["1", "2"], "labels": [["pie"], ["soup"]]})
        >>> facts_of(train, ["pie", "soup"], multilabel=False).class_frequencies
        [0.5, 0.5]
    """
    minimum = 1 if multilabel else 2
    if len(class_names) < minimum:
        raise RobustTuneError(
            f"the training split has {len(class_names)} class{'es' * (len(class_names) != 1)} "
            f"({', '.join(class_names) or 'none'}), and {minimum} are needed: check the labels"
        )
    indices = [index for row in encode_labels(train, class_names, multilabel, "train") for index in row]
    counts = np.bincount(np.array(indices, dtype=np.int64), minlength=len(class_names))
    return Facts(class_names, (counts / len(train)).tolist(), multilabel, len(train))


def encode_labels(table: pa.Table, class_names: list[str], multilabel: bool, split: Split) -> list[list[int]]:
    """Map the labels of each row to class indices, by name.

    Args:
        table: Table of the samples, with the columns of `SCHEMA`.
        class_names: Names of the classes, in label order.
        multilabel: Whether a sample may have any number of classes, instead of exactly one.
        split: Split of the samples, for the error message.

    Returns:
        Class indices of each row: one in multi-class data, any number in multi-label data.

    Raises:
        RobustTuneError: Samples have no label, several labels in multi-class data, or a label that is not among
            ``class_names``. The message counts each problem and names the first sample.

    Example:
        >>> table = pa.table({"id": ["1", "2"], "labels": [["soup"], ["pie"]]})
        >>> encode_labels(table, ["pie", "soup"], multilabel=False, split="test")
        [[1], [0]]
    """
    index = {name: i for i, name in enumerate(class_names)}
    labels, bad = table["labels"].to_pylist(), Problems(f"the {split} split", "samples")
    by_plain_form: dict[str, str] = {}  # filled at the first unknown label, since most data have none
    for sample_id, names in zip(table["id"].to_pylist(), labels, strict=True):
        unknown = [name for name in names or [] if name not in index]
        if names is None:
            bad.add(repr(sample_id), "have no label", "label them, or use them to predict only")
        elif not multilabel and len(names) != 1:
            bad.add(repr(sample_id), f"have {'several' if names else 'no'} labels", "set multilabel to true")
        elif unknown:
            by_plain_form = by_plain_form or {plain_form(name): name for name in class_names}
            bad.add(
                f"{_quote_unknown(unknown[0], by_plain_form)} of {sample_id!r}",
                "have a label that training does not know",
                "correct it, or train with it",
            )
    bad.refuse(len(labels))
    return [[index[name] for name in names] for names in labels]


def _quote_unknown(name: str, by_plain_form: dict[str, str]) -> str:
    """Return an unknown class name in quotes, with the class of training that looks like it, if there is one."""
    known = by_plain_form.get(plain_form(name))
    return repr(name) if known is None else f"{written_out(name, known)} (training has {written_out(known, name)})"
