"""Settings for imbalanced classes in the loss and in predictions, and the class weights and offsets they stand for."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from robusttune.counting import counted
from robusttune.errors import RobustTuneError
from robusttune.types import Facts

Weights = Literal["inverse", "effective", "positive"]
EFFECTIVE_BETA = 0.999


@dataclass(frozen=True)
class Balance:
    """Settings for imbalanced classes. The defaults change nothing.

    Class weights, logit adjustment in training and logit adjustment after it all correct the class frequencies, so only
    one of them can be set. The focal loss can be combined with each of them.

    Args:
        weights: Weights of classes in the loss. ``inverse``: 1 / frequency. ``effective``: 1 / effective number of
            samples, (1 - beta) / (1 - beta ** n) for n training samples (Cui et al. 2019, arXiv 1901.05555). The loss
            of a batch is then the weighted mean over its samples, as in `torch.nn.CrossEntropyLoss`; in multi-label
            data, the weights have the mean 1 and multiply the binary losses of their classes. ``positive``, for
            multi-label data only: each class's positive samples have the weight negatives / positives, as
            ``pos_weight`` of `torch.nn.BCEWithLogitsLoss`.
        effective_beta: Beta of ``effective``, in [0, 1): 0 weights all classes equally, towards 1 it is ``inverse``.
        focal: Gamma of the focal loss (Lin et al. 2017, arXiv 1708.02002), at least 0, which multiplies the
            cross-entropy of a label with predicted probability p by (1 - p) ** gamma. In multi-label data, every class
            has its own label, present or absent. 0 is the cross-entropy.
        logit_adjustment: Tau of the logit-adjusted loss (Menon et al. 2021, arXiv 2007.07314), at least 0: the loss is
            computed from logits + tau x log class frequency, so that the logits alone are right for balanced classes.
            In multi-label data it is the log odds of the frequency. 1 suits the balanced accuracy; 0 is off.
        post_hoc: Tau of post-hoc logit adjustment (Menon et al. 2021), at least 0: predictions, in evaluation and
            validation, too, use logits - tau x log class frequency of a model that was trained as usual. Temperatures
            are fitted to and divide the adjusted logits. Classes that are new at test count as if they had the mean
            frequency, so their logits stay. 0 is off.

    Raises:
        RobustTuneError: A number is out of its range, or two settings contradict each other.

    Example:
        >>> Balance(weights="effective", focal=2.0).effective_beta
        0.999
    """

    weights: Weights | None = None
    effective_beta: float = EFFECTIVE_BETA
    focal: float = 0.0
    logit_adjustment: float = 0.0
    post_hoc: float = 0.0

    def __post_init__(self) -> None:
        if self.weights is not None and self.weights not in get_args(Weights):
            raise RobustTuneError(f"model.balance.weights is {self.weights}: give {', '.join(get_args(Weights))}")
        if not 0 <= self.effective_beta < 1:  # This form refuses NaN, too.
            raise RobustTuneError(f"model.balance.effective_beta is {self.effective_beta}: give a number in [0, 1)")
        for name in ("focal", "logit_adjustment", "post_hoc"):
            if not 0 <= getattr(self, name) < math.inf:
                raise RobustTuneError(f"model.balance.{name} is {getattr(self, name)}: give a number of at least 0")
        if self.effective_beta != EFFECTIVE_BETA and self.weights != "effective":
            raise RobustTuneError(
                "model.balance.effective_beta is set, and weights are not effective: leave it out, or set "
                "model.balance.weights to effective"
            )
        if len(self.corrections) > 1:
            raise RobustTuneError(
                f"{' and '.join(self.corrections)} would correct the class frequencies twice: set one of them"
            )

    @property
    def corrections(self) -> list[str]:
        """Return the names of the settings in use that correct the class frequencies."""
        settings = {"weights": self.weights is not None, "logit_adjustment": self.logit_adjustment > 0}
        settings["post_hoc"] = self.post_hoc > 0
        return [f"model.balance.{name}" for name, used in settings.items() if used]


def class_weights(balance: Balance, facts: Facts) -> Tensor | None:
    """Return the weights of the classes, shape (C,), float32, with the mean 1; None for equal weights.

    Args:
        balance: Settings.
        facts: Class names and frequencies of the training data.

    Raises:
        RobustTuneError: A class has no training sample, or the number of samples is needed and unknown.

    Example:
        >>> class_weights(Balance(weights="inverse"), Facts(["cat", "dog"], [0.75, 0.25], multilabel=False))
        tensor([0.5000, 1.5000])
    """
    if balance.weights not in ("inverse", "effective"):
        return None
    refuse_empty_classes(f"weights {balance.weights}", facts, in_all=False)
    frequencies = torch.tensor(facts.class_frequencies, dtype=torch.float64)
    weights = 1 / frequencies
    if balance.weights == "effective":
        if facts.training_samples is None:
            raise RobustTuneError(
                "model.balance.weights effective needs the number of training samples, which this checkpoint lacks: "
                "use inverse"
            )
        sizes, beta = frequencies * facts.training_samples, torch.tensor(balance.effective_beta, dtype=torch.float64)
        weights = 1 / -torch.expm1(sizes * beta.log())
    return (weights / weights.mean()).float()


def positive_weights(balance: Balance, facts: Facts) -> Tensor | None:
    """Return negatives / positives of each class in multi-label data, shape (C,), float32; None if it is off.

    Args:
        balance: Settings.
        facts: Class names and frequencies of the training data.

    Raises:
        RobustTuneError: The data are not multi-label, or a class has no or only positive training samples.
    """
    if balance.weights != "positive":
        return None
    if not facts.multilabel:
        raise RobustTuneError(
            "model.balance.weights positive is for data with several labels a sample: use inverse or effective"
        )
    refuse_empty_classes("weights positive", facts)
    frequencies = torch.tensor(facts.class_frequencies, dtype=torch.float64)
    return ((1 - frequencies) / frequencies).float()


def prior_logits(setting: str, facts: Facts, class_names: Sequence[str]) -> Tensor:
    """Return the logits of the class frequencies, shape (C,), float32, for logit adjustment.

    In multi-class data they are log(frequency x number of training classes): 0 for a class of the mean frequency, and
    for a new class. In multi-label data they are the log odds.

    Args:
        setting: Name of the setting that needs them, for the error message.
        facts: Class names and frequencies of the training data.
        class_names: Names of the classes, in the order of the result.

    Raises:
        RobustTuneError: A class of training has no training sample.

    Example:
        >>> facts = Facts(["cat", "dog"], [0.75, 0.25], multilabel=False)
        >>> prior_logits("post_hoc", facts, ["dog", "pug"])
        tensor([-0.6931,  0.0000])
    """
    refuse_empty_classes(setting, facts)
    frequencies = torch.tensor(facts.class_frequencies, dtype=torch.float64)
    values = torch.logit(frequencies) if facts.multilabel else (frequencies / frequencies.mean()).log()
    by_name = dict(zip(facts.class_names, values.tolist(), strict=True))
    return torch.tensor([by_name.get(name, 0.0) for name in class_names])


def refuse_empty_classes(setting: str, facts: Facts, in_all: bool = True) -> None:
    """Check that every class has training samples, and in multi-label data that some samples lack it.

    Args:
        setting: Name of the setting that needs them, for the error message.
        facts: Class names and frequencies of the training data.
        in_all: True to refuse classes that all samples have, too.

    Raises:
        RobustTuneError: A class has none. The message counts such classes and names the first.
    """
    by_name = dict(zip(facts.class_names, facts.class_frequencies, strict=True))
    for problem, value in {"no training sample": 0.0, "no training sample without it": 1.0}.items():
        names = [name for name, frequency in by_name.items() if frequency == value]
        if names and (value == 0 or (in_all and facts.multilabel)):
            raise RobustTuneError(
                f"model.balance.{setting} does not work: {counted(len(names), 'class', 'classes')} "
                f"{'has' if len(names) == 1 else 'have'} {problem}, the first is {names[0]!r}: add samples, leave the "
                "class out, or use data.training.balance"
            )
