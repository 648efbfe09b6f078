"""Label mapping: map labels to class indices by name, and collect the facts about classes that a model needs."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from robusttune.data.class_indices import ClassIndices
from robusttune.data.look_alikes import plain_form, written_out
from robusttune.data.problems import Problems
from robusttune.data.rows import Labels, Rows
from robusttune.errors import RobustTuneError
from robusttune.types import Facts, Split


def require_classes(class_names: list[str], multilabel: bool) -> None:
    """Check that there are enough classes to learn.

    Args:
        class_names: Names of the training classes.
        multilabel: Whether a sample may have any number of classes, instead of exactly one.

    Raises:
        RobustTuneError: There are fewer than two classes (fewer than one in multi-label data).
    """
    minimum = 1 if multilabel else 2
    if len(class_names) < minimum:
        raise RobustTuneError(
            f"the training split has {len(class_names)} class{'es' * (len(class_names) != 1)} "
            f"({', '.join(class_names) or 'none'}), and {minimum} are needed: check the labels"
        )


def facts_of(train: ClassIndices, class_names: list[str], multilabel: bool) -> Facts:
    """Return the facts about the classes of a training split.

    Args:
        train: Class indices of the training samples.
        class_names: Names of the C classes, in label order.
        multilabel: Whether a sample may have any number of classes, instead of exactly one.

    Returns:
        Class names, the fraction of training samples in each class, ``multilabel``, and the number of training samples.

    Example:
        >>> facts_of(ClassIndices.of([[0], [1]]), ["pie", "soup"], multilabel=False).class_frequencies
        [0.5, 0.5]
    """
    return Facts(class_names, (train.sizes(len(class_names)) / len(train)).tolist(), multilabel, len(train))


def encode_labels(
    rows: Rows, class_names: list[str], multilabel: bool, split: Split, unknown: str = "correct it, or train with it"
) -> ClassIndices:
    """Map the labels of each row to class indices, by name.

    Args:
        rows: Samples.
        class_names: Names of the classes, in label order.
        multilabel: Whether a sample may have any number of classes, instead of exactly one.
        split: Split of the samples, for the error message.
        unknown: Remedy for a label that is not among ``class_names``, for the error message.

    Returns:
        Class indices of each row: one in multi-class data, any number in multi-label data.

    Raises:
        RobustTuneError: Samples have no label, several labels in multi-class data, or a label that is not among
            ``class_names``. The message counts each problem and names the first sample.

    Example:
        >>> import pyarrow as pa
        >>> rows = Rows(pa.table({"id": ["1", "2"], "labels": [["soup"], ["pie"]]}))
        >>> encode_labels(rows, ["pie", "soup"], multilabel=False, split="test").to_lists()
        [[1], [0]]
    """
    labels, index = rows.labels, {name: i for i, name in enumerate(class_names)}
    numbers = np.array([index.get(name, -1) for name in labels.names], dtype=np.int32)
    classes = labels.classes.recoded(numbers)
    miscounted = not multilabel and classes.offsets is not None
    if not len(rows) or not labels.known.all() or miscounted or classes.flat.min(initial=0) < 0:
        _refuse(rows, labels, class_names, multilabel, classes.flat < 0, split, unknown)
    return classes


def _refuse(
    rows: Rows,
    labels: Labels,
    class_names: list[str],
    multilabel: bool,
    is_unknown: NDArray[np.bool_],
    split: Split,
    unknown_remedy: str,
) -> None:
    """Raise an error about rows without a label, with a wrong number of labels, or with labels that are unknown."""
    bad, counts = Problems(f"the {split} split", "samples"), labels.classes.counts
    has_unknown = np.zeros(len(rows), dtype=bool)
    has_unknown[labels.classes.rows[is_unknown]] = True
    miscounted = (counts != 1) & (not multilabel) & labels.known
    groups = [
        (~labels.known, "have no label", "label them, or use them to predict only"),
        (miscounted & (counts > 1), "have several labels", "set multilabel to true"),
        (miscounted & (counts == 0), "have no labels", "set multilabel to true"),
        (has_unknown & ~miscounted, "have a label that training does not know", unknown_remedy),
    ]
    found = [(int(is_bad.argmax()), int(is_bad.sum()), what, remedy) for is_bad, what, remedy in groups if is_bad.any()]
    for row, count, what, remedy in sorted(found):
        at = repr(rows.value("id", row))
        if has_unknown[row] and not miscounted[row]:
            unknown = next(name for name in rows.value("labels", row) if name not in class_names)
            at = f"{_quote_unknown(unknown, {plain_form(name): name for name in class_names})} of {at}"
        bad.found[what, remedy] = [at] * count  # only the first place is named
    bad.refuse(len(rows))


def _quote_unknown(name: str, by_plain_form: dict[str, str]) -> str:
    """Return an unknown class name in quotes, with the class of training that looks like it, if there is one."""
    known = by_plain_form.get(plain_form(name))
    return repr(name) if known is None else f"{written_out(name, known)} (training has {written_out(known, name)})"
