"""Missing-modality protocols: masks that remove a modality of some samples permanently."""

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
    """A missing-modality protocol, which fixes the samples of a split that lack their image or their text.

    The mask is the same in every epoch and every run. Without a table it is a function of the sorted sample ids, of
    ``rate``, ``type``, ``ratio`` and ``seed``, and, if ``depends_on`` is set, of the labels or of the other modality.
    Masks are nested: the samples that are incomplete at a lower rate are incomplete at every higher rate, too.

    Args:
        rate: Share of the samples that lack a modality, in [0, 1].
        type: Modality that is missing. With ``both``, some samples lack the image and others the text, but no sample
            loses both. A sample that has a single modality may lose it; the log counts such samples.
        ratio: Share of the incomplete samples that lack their image, in [0, 1]. It has an effect with type ``both``.
        depends_on: Variable that the probability of being missing depends on: ``nothing``, the ``label`` (some classes
            are incomplete more often), or the ``other_modality`` (images are missing more often for long texts, texts
            for bright images). The weight of the most affected samples is e^2, about 7.4 times that of the least
            affected samples.
        seed: Seed of the draw, at least 0.
        table: Path to a file with the mask, in place of a rate: Parquet with the columns ``id``, ``image`` and ``text``
            (True where the modality is present), or a ``.pt`` or ``.npy`` array with one code per row.
        codes: Meaning of the codes in a table by row. Published tables usually use
            ``{0: complete, 1: no_text, 2: no_image}``.

    Raises:
        RobustTuneError: A setting is out of its range, or both or neither of rate and table are given.

    Example:
        >>> mask = draw_mask(["a", "b", "c", "d"], Missing(rate=0.5, type="text"))
        >>> mask.present.sum(axis=0).tolist()
        [4, 2]
    """

    rate: float | None = None
    type: Literal["image", "text", "both"] = "both"
    ratio: float = 0.5
    depends_on: Literal["nothing", "label", "other_modality"] = "nothing"
    seed: int = 0
    table: str | None = None
    codes: dict[int, Literal["complete", "no_image", "no_text"]] | None = None

    def __post_init__(self) -> None:
        if (self.rate is None) == (self.table is None):
            raise RobustTuneError("a protocol in data.missing needs either a rate or a table: set one of them")
        if self.rate is not None and self.codes is not None:
            raise RobustTuneError("a protocol in data.missing has codes but no table: leave the codes out")
        for name in ("rate", "ratio"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                raise RobustTuneError(f"the {name} in data.missing is {value}: give a number from 0 to 1")
        if self.seed < 0:
            raise RobustTuneError(f"the seed in data.missing is {self.seed}: give at least 0")


@dataclass(frozen=True)
class MissingBySplit:
    """Missing-modality protocols of the splits; a split with None stays complete.

    Args:
        train: Protocol of the training split.
        val: Protocol of the validation split.
        test: Protocol of the test split.

    Example:
        >>> MissingBySplit(test=Missing(rate=0.7, type="image")).train is None
        True
    """

    train: Missing | None = None
    val: Missing | None = None
    test: Missing | None = None


class Mask(NamedTuple):
    """A mask of missing modalities over the samples of one split.

    Attributes:
        ids: Ids of the N samples, sorted.
        present: Presence of the image (column 0) and of the text (column 1), shape (N, 2), bool.

    Example:
        >>> mask = Mask(["a", "b"], np.array([[True, False], [True, True]]))
        >>> mask.by_id()["a"]
        (True, False)
    """

    ids: list[str]
    present: NDArray[np.bool_]

    @property
    def hash(self) -> str:
        """Return 16 hexadecimal digits that identify the mask: a BLAKE2b hash of the ids and of the entries."""
        digest = hashlib.blake2b(digest_size=8)
        for sample_id, (image, text) in zip(self.ids, self.present.tolist(), strict=True):
            digest.update(f"{sample_id!r} {image:d} {text:d}\n".encode(errors="surrogatepass"))
        return digest.hexdigest()

    def by_id(self) -> dict[str, tuple[bool, bool]]:
        """Return a dictionary from sample id to (image present, text present)."""
        return {i: (bool(image), bool(text)) for i, (image, text) in zip(self.ids, self.present, strict=True)}


def draw_mask(ids: Sequence[str], settings: Missing, scores: Mapping[str, NDArray[np.float64]] | None = None) -> Mask:
    """Draw the mask of a split.

    Exactly ``round(rate * N)`` samples lose one modality each. A weighted draw without replacement picks them; each
    sample has the weight exp(score), see Efraimidis and Spirakis, "Weighted random sampling with a
    reservoir", 2006.

    Args:
        ids: Ids of the N samples, in any order.
        settings: Protocol with a rate, not with a table.
        scores: Propensity of each modality to be missing, as a dictionary with the keys ``image`` and ``text`` and
            arrays of shape (N,), float64, in [-1, 1], in the order of ``ids``; None if all samples are equally likely.

    Returns:
        Mask with sorted ids.

    Example:
        >>> ids = [f"{i}" for i in range(100)]
        >>> few, many = (draw_mask(ids, Missing(rate=rate)).present.all(axis=1) for rate in (0.1, 0.5))
        >>> int((~few).sum()), int((~many).sum()), bool(many[~few].any())
        (10, 50, False)
    """
    assert settings.rate is not None
    order = sorted(range(len(ids)), key=ids.__getitem__)
    # Sorting exponential variables that are divided by the weights is a weighted draw without replacement.
    exponentials = -np.log([_uniform(settings.seed, ids[i]) for i in order])
    lost = np.zeros((len(ids), 2), dtype=bool)
    queues = []
    for modality in ("image", "text"):
        weights = 1.0 if scores is None else np.exp(scores[modality][order])
        queues.append(_complete_rows(lost, np.argsort(exponentials / weights, kind="stable")))
    share = {"image": 1.0, "text": 0.0, "both": settings.ratio}[settings.type]
    for count in range(round(settings.rate * len(ids))):
        column = 0 if _rounded((count + 1) * share) > _rounded(count * share) else 1
        lost[next(queues[column]), column] = True
    return Mask([ids[i] for i in order], ~lost)


def label_scores(labels: Sequence[Sequence[str]], seed: int) -> NDArray[np.float64]:
    """Score samples by their labels, for a mask that depends on the label.

    The classes get evenly spaced scores from -1 to 1, in an order that the seed determines.

    Args:
        labels: Class names of each of the N samples.
        seed: Seed of the order of the classes.

    Returns:
        Mean score of each sample's classes, shape (N,), float64, in [-1, 1]; 0 for a sample without a label.

    Example:
        >>> sorted(label_scores([["pie"], ["soup"], ["cake"], []], seed=0).tolist())
        [-1.0, 0.0, 0.0, 1.0]
    """
    classes = sorted({label for row in labels for label in row}, key=lambda name: (_uniform(seed, name), name))
    scores = {name: 2 * rank / max(len(classes) - 1, 1) - 1 for rank, name in enumerate(classes)}
    return np.array([np.mean([scores[label] for label in row]) if row else 0.0 for row in labels], dtype=np.float64)


def rank_scores(values: Sequence[float | None]) -> NDArray[np.float64]:
    """Score samples by the rank of a value, for a mask that depends on the other modality.

    Args:
        values: Value of each of the N samples, such as the length of its text; None where there is none.

    Returns:
        Evenly spaced scores, shape (N,), float64: -1 for the smallest value and 1 for the greatest. Equal values share
        a score, and a sample without a value gets 0.

    Example:
        >>> rank_scores([3, 10, None, 7, 3]).tolist()
        [-1.0, 1.0, 0.0, 0.0, -1.0]
    """
    known = sorted({value for value in values if value is not None})
    scores = {value: 2 * rank / max(len(known) - 1, 1) - 1 for rank, value in enumerate(known)}
    return np.array([0.0 if value is None else scores[value] for value in values], dtype=np.float64)


def _complete_rows(lost: NDArray[np.bool_], order: NDArray[np.int64]) -> Iterator[int]:
    """Yield rows in the given order, except those that have lost a modality by the time they are reached."""
    return (int(row) for row in order if not lost[row].any())


def _uniform(seed: int, name: str) -> float:
    """Return a number in (0, 1) from a hash: the streams of a random generator may change with its library."""
    digest = hashlib.blake2b(f"{seed} {name}".encode(errors="surrogatepass"), digest_size=8).digest()
    return (int.from_bytes(digest, "little") + 0.5) / 2**64


def _rounded(number: float) -> int:
    return int(number + 0.5)
