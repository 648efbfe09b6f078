"""Missing-modality protocols: masks that remove a modality of some samples permanently."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from robusttune.corruption.masks import CHUNK, Mask, as_column, sorted_by_id
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


def draw_mask(
    ids: Sequence[str] | pa.ChunkedArray, settings: Missing, scores: Mapping[str, NDArray[np.float64]] | None = None
) -> Mask:
    """Draw the mask of a split.

    Exactly ``round(rate * N)`` samples lose one modality each. A weighted draw without replacement picks them; each
    sample has the weight exp(score), see Efraimidis and Spirakis, "Weighted random sampling with a
    reservoir", 2006.

    Args:
        ids: Ids of the N samples. Their order does not affect which samples lose a modality.
        settings: Protocol with a rate, not with a table.
        scores: Propensity of each modality to be missing, as a dictionary with the keys ``image`` and ``text`` and
            arrays of shape (N,), float64, in [-1, 1], in the order of ``ids``; None if all samples are equally likely.

    Returns:
        Mask with the ids in their order.

    Example:
        >>> ids = [f"{i}" for i in range(100)]
        >>> few, many = (draw_mask(ids, Missing(rate=rate)).present.all(axis=1) for rate in (0.1, 0.5))
        >>> int((~few).sum()), int((~many).sum()), bool(many[~few].any())
        (10, 50, False)
    """
    assert settings.rate is not None
    ids = as_column(ids)
    order = sorted_by_id(ids)
    # Sorting exponential variables that are divided by the weights is a weighted draw without replacement.
    exponentials = -np.log(_uniforms(settings.seed, ids))
    queues = []
    for modality in ("image", "text"):
        keys = exponentials if scores is None else exponentials / np.exp(scores[modality])
        queues.append(order[np.argsort(keys[order], kind="stable")])
        if scores is None or scores["image"] is scores["text"]:
            queues *= 2
            break
    share = {"image": 1.0, "text": 0.0, "both": settings.ratio}[settings.type]
    steps = np.floor(np.arange(round(settings.rate * len(ids)) + 1) * share + 0.5)
    return Mask(ids, ~_lose(queues, np.diff(steps) > 0))


def lost_at_random(ids: Sequence[str] | pa.ChunkedArray, settings: Missing) -> NDArray[np.bool_]:
    """Return which modality each sample loses if the other samples are not known.

    Each sample by itself loses one with the probability ``rate``, as a function of its id and the seed. As in
    `draw_mask`, the samples that are incomplete at a lower rate are so at every higher rate, too.

    Args:
        ids: Ids of N samples.
        settings: Protocol with a rate, which depends on nothing else.

    Returns:
        Whether the image (column 0) and the text (column 1) are lost, shape (N, 2), bool.

    Example:
        >>> lost_at_random(["a", "b", "c"], Missing(rate=1.0, type="text")).tolist()
        [[False, True], [False, True], [False, True]]
    """
    assert settings.rate is not None
    ids = as_column(ids)
    share = {"image": 1.0, "text": 0.0, "both": settings.ratio}[settings.type]
    is_image = _uniforms(settings.seed, ids, "modality ") < share
    is_lost = _uniforms(settings.seed, ids) < settings.rate
    return np.stack([is_lost & is_image, is_lost & ~is_image], axis=1)


def label_scores(
    names: Sequence[str], flat: NDArray[np.integer], counts: NDArray[np.integer], seed: int
) -> NDArray[np.float64]:
    """Score samples by their labels, for a mask that depends on the label.

    The classes get evenly spaced scores from -1 to 1, in an order that the seed determines.

    Args:
        names: Class names.
        flat: Class indices of all samples, one after the other, shape (L,), int.
        counts: Number of classes of each of the N samples, shape (N,), int.
        seed: Seed of the order of the classes.

    Returns:
        Mean score of each sample's classes, shape (N,), float64, in [-1, 1]; 0 for a sample without a label.

    Example:
        >>> label_scores(["pie", "soup", "cake"], np.array([0, 1, 2]), np.array([1, 0, 2]), seed=0).tolist()
        [1.0, 0.0, -0.5]
    """
    found = [names[index] for index in np.flatnonzero(np.bincount(flat, minlength=len(names))).tolist()]
    classes = sorted(found, key=lambda name: (_uniform(seed, name), name))
    by_name = {name: 2 * rank / max(len(classes) - 1, 1) - 1 for rank, name in enumerate(classes)}
    by_index = np.array([by_name.get(name, 0.0) for name in names], dtype=np.float64)
    scores, starts = np.zeros(len(counts)), np.cumsum(counts) - counts
    for count in np.unique(counts[counts > 0]):
        rows = np.flatnonzero(counts == count)
        scores[rows] = by_index[flat[starts[rows, None] + np.arange(count)]].mean(axis=1)
    return scores


def rank_scores(values: Sequence[float | None] | pa.ChunkedArray) -> NDArray[np.float64]:
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
    numbers = np.asarray(pa.array(values, pa.float64()) if isinstance(values, Sequence) else values, dtype=np.float64)
    is_known = ~np.isnan(numbers)
    known, ranks = np.unique(numbers[is_known], return_inverse=True)
    scores = np.zeros(len(numbers))
    scores[is_known] = 2 * ranks / max(len(known) - 1, 1) - 1
    return scores


def _lose(queues: Sequence[NDArray[np.integer]], is_image: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Let samples lose a modality, one after the other, and return what is lost, shape (N, 2), bool.

    Args:
        queues: Rows in the order in which they lose the image, and in which they lose the text, each of shape (N,).
        is_image: Whether the image or the text is lost, in the order of the losses.
    """
    lost = np.zeros((len(queues[0]), 2), dtype=bool)
    columns = np.where(is_image, 0, 1)
    if queues[0] is queues[1] or (columns == columns[:1]).all():  # The next row is the next one of a single queue.
        lost[queues[columns[0] if len(columns) else 0][: len(columns)], columns] = True
        return lost
    waiting = [(row for row in queue.tolist() if not lost[row].any()) for queue in queues]
    for column in columns.tolist():
        lost[next(waiting[column]), column] = True
    return lost


def _uniforms(seed: int, ids: pa.ChunkedArray, use: str = "") -> NDArray[np.float64]:
    """Return the number of `_uniform` for each id, shape (N,), float64; each use has other numbers."""
    prefix, parts = f"{seed} {use}".encode(), [np.zeros(0)]
    for start in range(0, len(ids), CHUNK):
        names = ids.slice(start, CHUNK).cast(pa.binary()).to_pylist()
        digests = b"".join(hashlib.blake2b(prefix + name, digest_size=8).digest() for name in names)
        parts.append((np.frombuffer(digests, "<u8") + 0.5) / 2**64)
    return np.concatenate(parts)


def _uniform(seed: int, name: str) -> float:
    """Return a number in (0, 1) from a hash: the streams of a random generator may change with its library."""
    digest = hashlib.blake2b(f"{seed} {name}".encode(errors="surrogatepass"), digest_size=8).digest()
    return (int.from_bytes(digest, "little") + 0.5) / 2**64
