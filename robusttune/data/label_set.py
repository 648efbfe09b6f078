"""The classes of the data: those of training, and those that a test sample may be assigned to."""

from __future__ import annotations

from functools import cached_property
from typing import Literal

from robusttune.data.class_indices import ClassIndices
from robusttune.data.labels import encode_labels, facts_of, require_classes
from robusttune.data.records import SplitRecords
from robusttune.data.rows import Rows
from robusttune.data.streaming.facts import estimated_facts
from robusttune.errors import RobustTuneError
from robusttune.types import Facts, Split


class LabelSet:
    """The class names that label indices refer to, for each split.

    Args:
        records: Records of all splits.
        given: Facts of a checkpoint, which replace those of the training split, or None.
        classes: Classes that a test sample may be assigned to, see `EvaluationSettings`.

    Raises:
        RobustTuneError: The samples have several labels, and ``classes`` is not ``training``.
    """

    def __init__(self, records: SplitRecords, given: Facts | None, classes: Literal["training", "all", "test"]) -> None:
        if classes != "training" and records.source.multilabel:
            raise RobustTuneError(
                f"data.evaluation.classes is {classes}, for samples of one class each: leave it at training"
            )
        self.records = records
        self.given = given
        self.classes = classes
        self._indices: dict[Split, ClassIndices] = {}

    @cached_property
    def facts(self) -> Facts:
        """The class names in label order, their frequencies in training, and the kind of task.

        Raises:
            RobustTuneError: There is neither a training split nor a checkpoint, or the checkpoint's kind of task
                (multi-class or multi-label) differs from that of the data.
        """
        multilabel = self.records.source.multilabel
        if self.given is not None:
            if self.given.multilabel != multilabel:
                raise RobustTuneError(
                    f"the checkpoint was trained with multilabel {self.given.multilabel}, and the data say "
                    f"{multilabel}: use data with the same multilabel setting"
                )
            return self.given
        train = self.records.rows("train")
        val = self.records.rows("val") if self.records.source.training_stream is not None else None
        if val is not None:
            return estimated_facts(val, self.records.class_names, multilabel)
        if train is None:
            raise RobustTuneError("there is no training split to learn the classes from: give one, or a checkpoint")
        names = self.records.class_names
        require_classes(names, multilabel)
        self._indices["train"] = encode_labels(train, names, multilabel, "train")
        return facts_of(self._indices["train"], names, multilabel)

    def names(self, split: Split) -> list[str]:
        """Return the names of the classes that the label indices of a split refer to, in order.

        Usually they are the class names of the facts. For a test split, also when it is predicted, ``classes``
        decides; with ``all``, the training classes are left out if the test split has none of them.

        Raises:
            RobustTuneError: The test split has a single class, so there is nothing to decide.
        """
        known = self.facts.class_names
        tested = self.records.origin(split) == "test" and self.records.source_rows("test") is not None
        if self.classes == "training" or not tested:
            return known
        names = test_classes = self.records.test_class_names
        if self.classes == "all":
            new = [name for name in test_classes if name not in {*known}]
            names = [*(known if {*known} & {*test_classes} else []), *new]
        if len(names) < 2:
            raise RobustTuneError(
                f"the {split} split has one class, {names[0]!r}, and two are needed: give it samples of others, too"
            )
        return names

    def indices(self, rows: Rows, split: Split) -> ClassIndices:
        """Return the class indices of the rows of a split, see `encode_labels`. They are encoded once."""
        if split not in self._indices:
            self._indices[split] = encode_labels(rows, self.names(split), self.facts.multilabel, split)
        return self._indices[split]
