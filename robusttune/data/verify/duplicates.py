"""The search for duplicates within a split and across splits, and for near-duplicate images."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from robusttune.counting import counted
from robusttune.data.datamodule import ImageTextDataModule
from robusttune.data.row_images import image_names, row_images
from robusttune.data.verify.findings import Verification
from robusttune.data.verify.images import ImageCheck, row_digest

BITS = 64
SINGULAR = {"images": "image", "samples without images": "sample without image"}
ONES = np.array([bin(byte).count("1") for byte in range(256)], dtype=np.uint8)
Content = tuple[bytes | None, str | None]  # digest of the image, and text


class Shared(NamedTuple):
    """The samples that two splits have in common.

    Attributes:
        first: Name of one split.
        second: Name of the other split.
        ids: Pairs of ids, one per duplicated row of the second split: an equal row of the first, and this row.

    Example:
        >>> len(Shared("train", "test", [("1", "9")]).ids)
        1
    """

    first: str
    second: str
    ids: list[tuple[str, str]]


def repeats(keys: Sequence[Hashable | None]) -> int:
    """Return the number of rows that repeat an earlier row.

    Args:
        keys: Content of each row; None for rows to ignore.

    Example:
        >>> repeats(["a", "b", "a", None, None])
        1
    """
    return sum(count - 1 for key, count in Counter(keys).items() if key is not None)


def shared(keys: Mapping[str, Sequence[Hashable | None]], ids: Mapping[str, Sequence[str]]) -> list[Shared]:
    """Find the rows that each pair of splits has in common.

    Args:
        keys: Content of each row, by split; None for rows to ignore.
        ids: Ids of the same rows, by split.

    Returns:
        One entry per pair of splits that share a row.

    Example:
        >>> shared({"train": ["a", "b"], "test": ["a"]}, {"train": ["1", "2"], "test": ["9"]})
        [Shared(first='train', second='test', ids=[('1', '9')])]
    """
    found = []
    for first, second in itertools.combinations(keys, 2):
        id_by_key = dict(zip(keys[first], ids[first], strict=True))
        pairs = [
            (id_by_key[key], sample_id)
            for key, sample_id in zip(keys[second], ids[second], strict=True)
            if key is not None and key in id_by_key
        ]
        if pairs:
            found.append(Shared(first, second, pairs))
    return found


def near(hashes: NDArray[np.uint64], distance: int) -> Iterator[tuple[int, int]]:
    """Yield the pairs of hashes within a Hamming distance, each pair once.

    If two hashes differ in at most ``distance`` bits and are cut into ``distance`` + 1 parts, at least one part is the
    same in both. So only hashes with an equal part are compared.

    Args:
        hashes: Hashes of 64 bits, shape (N,), uint64, all different.
        distance: Greatest number of differing bits. The time grows fast with it.

    Yields:
        Pairs of indices into ``hashes``, the smaller one first.

    Example:
        >>> list(near(np.array([0b0000, 0b0001, 0b1111], dtype=np.uint64), distance=1))
        [(0, 1)]
    """
    edges = np.linspace(0, BITS, distance + 2).round().astype(int)
    found: set[tuple[int, int]] = set()
    for start, end in itertools.pairwise(edges.tolist()):
        part = (hashes >> np.uint64(start)) & np.uint64((1 << (end - start)) - 1)
        order = np.argsort(part, kind="stable")
        for bucket in np.split(order, np.flatnonzero(np.diff(part[order])) + 1):
            for pair in _close_pairs(bucket, hashes, distance):
                if pair not in found:
                    found.add(pair)
                    yield pair


def _close_pairs(bucket: NDArray[np.int64], hashes: NDArray[np.uint64], distance: int) -> Iterator[tuple[int, int]]:
    """Yield the pairs of indices in a bucket whose hashes differ in at most ``distance`` bits."""
    for position, row in enumerate(bucket.tolist(), 1):
        others = bucket[position:]
        bits = ONES[(hashes[others] ^ hashes[row])[:, None].view(np.uint8)].sum(axis=1, dtype=np.int64)
        for other in others[bits <= distance].tolist():
            yield (row, other) if row < other else (other, row)


def find_duplicates(
    data: ImageTextDataModule, tables: dict[str, pa.Table], checks: dict[str, ImageCheck], found: Verification
) -> None:
    """Find samples with equal content, within and across splits.

    Repeated samples within a split become notes. Equal samples with different labels, and samples shared by two splits,
    are problems, unless the copy matches the published counts: then they belong to the data set and become notes.

    Args:
        data: Data module of the data set.
        tables: Records of each split.
        checks: Result of reading each image, by image name.
        found: Verification, to be extended.
    """
    is_complete = data.source.published is not None and not found.problems
    report = found.notes if is_complete else found.problems
    ids = {split: table["id"].to_pylist() for split, table in tables.items()}
    samples = {split: _contents(table, checks) for split, table in tables.items()}
    images = {split: [key[0] if key else None for key in keys] for split, keys in samples.items()}
    for split in tables:
        found.splits[split]["repeated_samples"] = repeated = repeats(samples[split])
        found.splits[split]["repeated_images"] = repeats(images[split])
        if repeated:
            found.notes.append(f"{counted(repeated, 'sample')} of {split} repeated, image and text")
    contradictions = _contradictions(tables, samples, ids)
    if contradictions:
        first = contradictions[0]
        report.append(
            f"{counted(len(contradictions), 'sample')} repeated with other labels, the first is {first['id']!r} of "
            f"{first['split']}, equal to {first['first']!r} of {first['first_split']}"
        )
    texts = {split: [key[1] if key and key[0] is None else None for key in keys] for split, keys in samples.items()}
    leaks = [("images", pair) for pair in shared(images, ids)]
    leaks += [("samples without images", pair) for pair in shared(texts, ids)]
    for kind, pair in leaks:
        first_id, second_id = pair.ids[0]
        number = counted(len(pair.ids), SINGULAR[kind], kind)
        message = f"{number} of {pair.second} also in {pair.first}, such as {second_id!r}"
        is_convention = {pair.first, pair.second} == {"val", "test"} and data.source.validates_on_test
        if is_convention or pair.second == "predict":
            found.notes.append(f"{message}: this data set validates on its test samples" if is_convention else message)
        else:
            report.append(f"{message} ({first_id!r} in {pair.first})")
    found.details |= {"contradictions": contradictions, "shared": [(kind, *pair) for kind, pair in leaks]}


def _contents(table: pa.Table, checks: dict[str, ImageCheck]) -> list[Content | None]:
    """Return the content of each sample, or None where it is empty, or unknown because the image cannot be read."""
    names, texts = row_images(table), table["text"].to_pylist()
    digests = [row_digest(row, checks) for row in names]
    return [
        None if image is None and (text is None or row) else (image, text)
        for image, text, row in zip(digests, texts, names, strict=True)
    ]


def _contradictions(
    tables: dict[str, pa.Table], samples: dict[str, list[Content | None]], ids: dict[str, list[str]]
) -> list[dict[str, str]]:
    """Return the samples that repeat an earlier sample with other labels."""
    first: dict[Content, tuple[str, str, list[str]]] = {}
    found = []
    for split, table in tables.items():
        for key, sample_id, labels in zip(samples[split], ids[split], table["labels"].to_pylist(), strict=True):
            if key is None or labels is None:
                continue
            earlier = first.setdefault(key, (split, sample_id, sorted(labels)))
            if earlier[2] != sorted(labels):
                found.append({"split": split, "id": sample_id, "first_split": earlier[0], "first": earlier[1]})
    return found


def find_near_duplicates(
    tables: dict[str, pa.Table], checks: dict[str, ImageCheck], bits: int, found: Verification
) -> None:
    """Find near-duplicate images, and report them as a note: only people can decide whether they are the same.

    Args:
        tables: Records of each split.
        checks: Result of reading each image, by image name.
        bits: Greatest number of differing bits, of 64, between perceptual hashes of near duplicates.
        found: Verification, to be extended.
    """
    splits_of: dict[str, set[str]] = {}
    for split, table in tables.items():
        for name in image_names([table]):
            splits_of.setdefault(name, set()).add(split)
    groups: dict[int, list[ImageCheck]] = {}
    for check in checks.values():
        if check.problem is None:
            groups.setdefault(check.perceptual_hash, []).append(check)
    alike = [(group[0], other) for group in groups.values() for other in group[1:] if group[0].digest != other.digest]
    members = [*groups.values()]
    pairs = alike + [
        (one, other)
        for i, j in near(np.array([*groups], dtype=np.uint64), bits)
        for one in members[i]
        for other in members[j]
    ]
    across = [(a, b) for a, b in pairs if not splits_of[a.name] & splits_of[b.name]]
    found.images["near_pairs"], found.images["near_pairs_across_splits"] = len(pairs), len(across)
    found.details["near"] = [(a.name, b.name) for a, b in pairs]
    if pairs:
        first = " and ".join(check.name for check in (across or pairs)[0])
        found.notes.append(
            f"{counted(len(pairs), 'pair')} of nearly equal images, {len(across)} of them across splits: {first}"
        )
