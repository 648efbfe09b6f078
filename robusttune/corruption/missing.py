"""Missing-modality protocols: which samples of a split lack a side, for good."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from robusttune.errors import RobustTuneError


@dataclass(frozen=True)
class Missing:
    """Which samples of a split lack their image or their text, in every epoch and every run.

    Without a table the mask is a function of the sorted sample ids and of ``rate``, ``type``, ``ratio`` and ``seed``
    alone, and, where ``depends_on`` says so, of what it depends on. The masks of a greater rate hold those of a
    smaller one.

    Args:
        rate: share of the samples that lack a side, in [0, 1].
        type: the side that they lack; ``both`` for some the one, for some the other, never both of a sample. A sample
            that has one side only may lose that, and is told of.
        ratio: of type ``both``, share of the incomplete samples that lack their image, in [0, 1].
        depends_on: what makes a side be missing more often: ``nothing``, the ``label`` (some classes more than
            others), or the ``other_modality`` (images of long texts, texts of bright images).
        strength: how much; the odds of the samples that it concerns most and least are e^(2 strength) to 1.
        seed: at least 0.
        table: a file that has the mask, instead of a rate: Parquet with the columns ``id``, ``image`` and ``text``
            (whether it is there), or codes by row as ``.pt`` or ``.npy``.
        codes: what the codes of a table by row mean: ``{0: complete, 1: no_text, 2: no_image}``, as most in
            circulation have them.

    Raises:
        RobustTuneError: a setting is out of its range, or there are a rate and a table, or neither.
    """

    rate: float | None = None
    type: Literal["image", "text", "both"] = "both"
    ratio: float = 0.5
    depends_on: Literal["nothing", "label", "other_modality"] = "nothing"
    strength: float = 1.0
    seed: int = 0
    table: str | None = None
    codes: dict[int, Literal["complete", "no_image", "no_text"]] | None = None

    def __post_init__(self) -> None:
        if (self.rate is None) == (self.table is None):
            raise RobustTuneError("a part of data.missing has a rate and a table, or neither: give one of them")
        if self.rate is not None and self.codes is not None:
            raise RobustTuneError("a part of data.missing has codes and no table that they are of: leave them out")
        for name in ("rate", "ratio"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                raise RobustTuneError(f"the {name} in data.missing is {value}: give a share from 0 to 1")
        if not 0 <= self.strength < 100 or self.seed < 0:
            raise RobustTuneError(
                f"the strength in data.missing is {self.strength}, its seed {self.seed}: give numbers from 0 on"
            )


@dataclass(frozen=True)
class MissingBySplit:
    """Missing-modality protocols; None for a split that stays as it is.

    Args:
        train: of the training split.
        val: of the validation split.
        test: of the test split.
    """

    train: Missing | None = None
    val: Missing | None = None
    test: Missing | None = None


class Mask(NamedTuple):
    """Which sides the samples of a split are shown with.

    Attributes:
        ids: of the samples, sorted.
        shown: (N, 2) bool, whether each keeps its image, and its text.
    """

    ids: list[str]
    shown: NDArray[np.bool_]

    @property
    def hash(self) -> str:
        """16 hex digits that tell it from other masks."""
        digest = hashlib.blake2b(digest_size=8)
        for sample_id, (image, text) in zip(self.ids, self.shown.tolist(), strict=True):
            digest.update(f"{sample_id!r} {image:d} {text:d}\n".encode(errors="surrogatepass"))
        return digest.hexdigest()

    def by_id(self) -> dict[str, tuple[bool, bool]]:
        """Whether a sample keeps its image, and its text."""
        return {i: (bool(image), bool(text)) for i, (image, text) in zip(self.ids, self.shown, strict=True)}


def draw_mask(ids: Sequence[str], settings: Missing, scores: Mapping[str, NDArray[np.float64]] | None = None) -> Mask:
    """The mask of a split.

    Args:
        ids: of its samples, in any order.
        settings: with a rate.
        scores: for each side, (N,) numbers from -1 to 1 in the order of ``ids``, how much what it depends on speaks
            for its being missing; None where it depends on nothing.
    """
    assert settings.rate is not None
    order = sorted(range(len(ids)), key=ids.__getitem__)
    # The first of a race of exponential clocks are a weighted draw without repeats (Efraimidis and Spirakis 2006).
    clocks = -np.log([_uniform(settings.seed, ids[place]) for place in order])
    lost = np.zeros((len(ids), 2), dtype=bool)
    queues = []
    for side in ("image", "text"):
        speed = 1.0 if scores is None else np.exp(settings.strength * scores[side][order])
        queues.append(_open(lost, np.argsort(clocks / speed, kind="stable")))
    share = {"image": 1.0, "text": 0.0, "both": settings.ratio}[settings.type]
    for taken in range(round(settings.rate * len(ids))):
        column = 0 if _rounded((taken + 1) * share) > _rounded(taken * share) else 1
        lost[next(queues[column]), column] = True
    return Mask([ids[place] for place in order], ~lost)


def label_scores(labels: Sequence[Sequence[str]], seed: int) -> NDArray[np.float64]:
    """(N,) from -1 to 1: classes are spread evenly in an order drawn by seed; of several labels the mean."""
    classes = sorted({label for row in labels for label in row}, key=lambda name: (_uniform(seed, name), name))
    of = {name: 2 * rank / max(len(classes) - 1, 1) - 1 for rank, name in enumerate(classes)}
    return np.array([np.mean([of[label] for label in row]) if row else 0.0 for row in labels], dtype=np.float64)


def rank_scores(values: Sequence[float | None]) -> NDArray[np.float64]:
    """(N,) from -1 for the smallest to 1 for the greatest, alike for equal ones; 0 where there is no value."""
    known = sorted({value for value in values if value is not None})
    of = {value: 2 * rank / max(len(known) - 1, 1) - 1 for rank, value in enumerate(known)}
    return np.array([0.0 if value is None else of[value] for value in values], dtype=np.float64)


def _open(lost: NDArray[np.bool_], order: NDArray[np.int64]) -> Iterator[int]:
    """Rows in this order that have lost nothing so far."""
    return (int(row) for row in order if not lost[row].any())


def _uniform(seed: int, name: str) -> float:
    """A number in (0, 1) by a hash, since the streams of random generators may change with their library."""
    digest = hashlib.blake2b(f"{seed} {name}".encode(errors="surrogatepass"), digest_size=8).digest()
    return (int.from_bytes(digest, "little") + 0.5) / 2**64


def _rounded(number: float) -> int:
    return int(number + 0.5)
