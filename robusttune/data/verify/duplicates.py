"""The same twice: within a split, across splits, and pictures that nearly look the same."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from robusttune.data.datamodule import ImageTextDataModule
from robusttune.data.verify.findings import Verification
from robusttune.data.verify.images import Look

BITS = 64
ONES = np.array([bin(byte).count("1") for byte in range(256)], dtype=np.uint8)
Content = tuple[bytes | None, str | None]  # of an image, and a text


class Shared(NamedTuple):
    """What two splits have in common.

    Attributes:
        first, second: the splits.
        ids: of a row of the first, and of the same in the second, for each of the second's.
    """

    first: str
    second: str
    ids: list[tuple[str, str]]


def repeats(keys: Sequence[Hashable | None]) -> int:
    """How many rows are there again; None is nothing that could be."""
    return sum(count - 1 for key, count in Counter(keys).items() if key is not None)


def shared(keys: Mapping[str, Sequence[Hashable | None]], ids: Mapping[str, Sequence[str]]) -> list[Shared]:
    """What each two splits have in common, where they have anything.

    Args:
        keys: of each split's rows; None is nothing that could be shared.
        ids: of the same rows.
    """
    found = []
    for first, second in itertools.combinations(keys, 2):
        places = dict(zip(keys[first], ids[first], strict=True))
        pairs = [
            (places[key], sample_id)
            for key, sample_id in zip(keys[second], ids[second], strict=True)
            if key is not None and key in places
        ]
        if pairs:
            found.append(Shared(first, second, pairs))
    return found


def near(hashes: NDArray[np.uint64], distance: int) -> Iterator[tuple[int, int]]:
    """Pairs of places whose hashes differ in at most so many bits, each pair once.

    Of ``distance`` + 1 parts of a hash at least one is the same in both, so only such are compared.

    Args:
        hashes: (N,), all different.
        distance: bits; the time that it takes grows fast with them.
    """
    edges = np.linspace(0, BITS, distance + 2).round().astype(int)
    found: set[tuple[int, int]] = set()
    for start, end in itertools.pairwise(edges.tolist()):
        part = (hashes >> np.uint64(start)) & np.uint64((1 << (end - start)) - 1)
        order = np.argsort(part, kind="stable")
        for bucket in np.split(order, np.flatnonzero(np.diff(part[order])) + 1):
            for pair in _close(bucket, hashes, distance):
                if pair not in found:
                    found.add(pair)
                    yield pair


def _close(bucket: NDArray[np.int64], hashes: NDArray[np.uint64], distance: int) -> Iterator[tuple[int, int]]:
    for place, row in enumerate(bucket.tolist(), 1):
        others = bucket[place:]
        bits = ONES[(hashes[others] ^ hashes[row])[:, None].view(np.uint8)].sum(axis=1, dtype=np.int64)
        for other in others[bits <= distance].tolist():
            yield (row, other) if row < other else (other, row)


def look_for_duplicates(
    data: ImageTextDataModule, tables: dict[str, pa.Table], looks: dict[str, Look], found: Verification
) -> None:
    """What is there twice is wrong, unless counts say that the copy is whole: then it is how the data set is."""
    whole = data.source.published is not None and not found.wrong
    tell = found.notes if whole else found.wrong
    ids = {split: table["id"].to_pylist() for split, table in tables.items()}
    samples = {split: _contents(table, looks) for split, table in tables.items()}
    images = {split: [key[0] if key else None for key in keys] for split, keys in samples.items()}
    for split in tables:
        found.splits[split]["repeated_samples"] = again = repeats(samples[split])
        found.splits[split]["repeated_images"] = repeats(images[split])
        if again:
            found.notes.append(f"of the {split} samples {again} are there already, image and text")
    contradictions = _contradictions(tables, samples, ids)
    if contradictions:
        first = contradictions[0]
        tell.append(
            f"of all samples {len(contradictions)} are there again with other labels, the first is {first['id']!r} of "
            f"{first['split']}, after {first['first']!r} of {first['first_split']}"
        )
    texts = {split: [key[1] if key and key[0] is None else None for key in keys] for split, keys in samples.items()}
    leaks = [("images", pair) for pair in shared(images, ids)]
    leaks += [("samples without images", pair) for pair in shared(texts, ids)]
    for what, pair in leaks:
        known, again_there = pair.ids[0]
        said = f"of the {what} of {pair.second} {len(pair.ids)} are in {pair.first}, too, such as {again_there!r}"
        custom = {pair.first, pair.second} == {"val", "test"} and data.source.validates_on_test
        if custom or pair.second == "predict":
            found.notes.append(f"{said}: this data set validates on its test samples" if custom else said)
        else:
            tell.append(f"{said} (there {known!r})")
    found.details |= {"contradictions": contradictions, "shared": [(what, *pair) for what, pair in leaks]}


def _contents(table: pa.Table, looks: dict[str, Look]) -> list[Content | None]:
    """What each sample holds, None where that is nothing, or is not known since its image cannot be read."""
    names, texts = table["image"].to_pylist(), table["text"].to_pylist()
    digests = [looks[name].digest if name in looks else None for name in names]
    return [
        None if image is None and (text is None or name is not None) else (image, text)
        for image, text, name in zip(digests, texts, names, strict=True)
    ]


def _contradictions(
    tables: dict[str, pa.Table], samples: dict[str, list[Content | None]], ids: dict[str, list[str]]
) -> list[dict[str, str]]:
    """Samples that are there already with other labels."""
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


def look_for_near(tables: dict[str, pa.Table], looks: dict[str, Look], bits: int, found: Verification) -> None:
    """Pictures that look nearly the same are told, not refused: whether they are the same is for people to say."""
    of: dict[str, set[str]] = {}
    for split, table in tables.items():
        for name in table["image"].drop_null().to_pylist():
            of.setdefault(name, set()).add(split)
    groups: dict[int, list[Look]] = {}
    for look in looks.values():
        if look.problem is None:
            groups.setdefault(look.looks, []).append(look)
    alike = [(group[0], other) for group in groups.values() for other in group[1:] if group[0].digest != other.digest]
    members = [*groups.values()]
    pairs = alike + [
        (one, other)
        for i, j in near(np.array([*groups], dtype=np.uint64), bits)
        for one in members[i]
        for other in members[j]
    ]
    across = [(a, b) for a, b in pairs if not of[a.name] & of[b.name]]
    found.images["near_pairs"], found.images["near_pairs_across_splits"] = len(pairs), len(across)
    found.details["near"] = [(a.name, b.name) for a, b in pairs]
    if pairs:
        first = " and ".join(look.name for look in (across or pairs)[0])
        found.notes.append(
            f"{len(pairs)} pairs of images look nearly the same, {len(across)} of them across splits: {first}"
        )
