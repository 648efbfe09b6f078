"""Class names to indices, and what a model has to know of them."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from robusttune.data.look_alikes import plain_form, written_out
from robusttune.data.problems import Problems
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
    indices = [index for row in encode_labels(train, class_names, multilabel, "train") for index in row]
    counts = np.bincount(np.array(indices, dtype=np.int64), minlength=len(class_names))
    return Facts(class_names, (counts / len(train)).tolist(), multilabel)


def encode_labels(table: pa.Table, class_names: list[str], multilabel: bool, split: Split) -> list[list[int]]:
    """Class indices of each row, by name.

    Raises:
        RobustTuneError: rows lack a label, carry several in multi-class data, or one that training does not know.
    """
    index = {name: i for i, name in enumerate(class_names)}
    labels, bad = table["labels"].to_pylist(), Problems(f"the {split} split", "samples")
    near: dict[str, str] = {}  # made where it is needed
    for sample_id, names in zip(table["id"].to_pylist(), labels, strict=True):
        unknown = [name for name in names or [] if name not in index]
        if names is None:
            bad.add(repr(sample_id), "have no label", "label them, or use them to predict only")
        elif not multilabel and len(names) != 1:
            bad.add(repr(sample_id), f"have {'several' if names else 'no'} labels", "set multilabel to true")
        elif unknown:
            near = near or {plain_form(name): name for name in class_names}
            at = f"{_unknown(unknown[0], near)} of {sample_id!r}"
            bad.add(at, "have a label that training does not know", "correct it, or train with it")
    bad.refuse(len(labels))
    return [[index[name] for name in names] for names in labels]


def _unknown(name: str, near: dict[str, str]) -> str:
    """A name that is no class, and the class that looks like it, if there is one."""
    known = near.get(plain_form(name))
    return repr(name) if known is None else f"{written_out(name, known)} (training has {written_out(known, name)})"
