"""Class names to indices, and what a model has to know of them."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from robusttune.errors import RobustTuneError
from robusttune.types import Facts, Split


def facts_of(train: pa.Table, class_names: list[str], multilabel: bool) -> Facts:
    """Facts of a training split.

    Raises:
        RobustTuneError: there are fewer than two classes to tell apart (one in multi-label data).
    """
    least = 1 if multilabel else 2
    if len(class_names) < least:
        raise RobustTuneError(
            f"the training split has {len(class_names)} class{'es' * (len(class_names) != 1)} "
            f"({', '.join(class_names) or 'none'}), and {least} are needed: check the labels"
        )
    facts = Facts(class_names, [], multilabel)
    indices = [index for row in encode_labels(train, facts, "train") for index in row]
    counts = np.bincount(np.array(indices, dtype=np.int64), minlength=len(class_names))
    return facts._replace(class_frequencies=(counts / len(train)).tolist())


def encode_labels(table: pa.Table, facts: Facts, split: Split) -> list[list[int]]:
    """Class indices of each row, by name.

    Raises:
        RobustTuneError: rows lack a label, carry several in multi-class data, or one that training does not know.
    """
    index = {name: i for i, name in enumerate(facts.class_names)}
    labels, ids = table["labels"].to_pylist(), table["id"]
    unlabelled = [row for row, names in enumerate(labels) if names is None]
    problems = [
        ("have no label", unlabelled, "label them, or use them to predict only"),
        (
            "have several labels",
            [row for row, names in enumerate(labels) if not facts.multilabel and len(names or []) > 1],
            "set multilabel to true",
        ),
    ]
    for what, rows, remedy in problems:
        if rows:
            raise RobustTuneError(
                f"{len(rows)} of {len(labels)} {split} samples {what}, the first is {ids[rows[0]].as_py()!r}: {remedy}"
            )
    unknown = [(row, name) for row, names in enumerate(labels) for name in names if name not in index]
    if unknown:
        row, name = unknown[0]
        raise RobustTuneError(
            f"{len({row for row, _ in unknown})} of {len(labels)} {split} samples have a label that training does not "
            f"know, the first is {name!r} of {ids[row].as_py()!r}: correct it, or train with it"
        )
    return [[index[name] for name in names] for names in labels]
