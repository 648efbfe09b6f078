"""The classes of an evaluation, and the predictions that are evaluated."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Classes(NamedTuple):
    """The classes that are predicted in an evaluation.

    Attributes:
        names: Names of the C classes, in the order of the logits.
        base: Mask of the classes of training, shape (C,), bool.
        multilabel: True if a sample may have several labels.
    """

    names: list[str]
    base: Tensor
    multilabel: bool

    @property
    def mixed(self) -> bool:
        """Return True if some of the classes were trained on and others were not."""
        return bool(self.base.any()) and not bool(self.base.all())


class Shown(NamedTuple):
    """The logits of ``n`` samples as a condition shows them.

    Attributes:
        label: Class indices, shape (n,), int64, or 0/1 per class, shape (n, C), in multi-label data.
        logits: Class scores, shape (n, C).
        unknown: Class scores of a model without knowledge of base and new classes, shape (n, C), see `Scores`.
        cuts: Logits from which classes are predicted in multi-label data, shape (n, C), or () with 0 for all.
    """

    label: Tensor
    logits: Tensor
    unknown: Tensor
    cuts: Tensor

    def row(self, number: int) -> Shown:
        """Return one sample alone, as a copy."""
        label, *others = (part if part.dim() == 0 else part[number : number + 1].clone() for part in self)
        return Shown(label, *others)
