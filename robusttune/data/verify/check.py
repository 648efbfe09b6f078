"""A copy of a data set, checked as a whole."""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from robusttune.data.datamodule import ImageTextDataModule
from robusttune.data.labels import encode_labels
from robusttune.data.records import presence
from robusttune.data.sources.base import Published, names_of_classes
from robusttune.data.verify.duplicates import near, repeats, shared
from robusttune.data.verify.images import Look, look_at
from robusttune.encoders.preprocessing import Tokenizer
from robusttune.errors import RobustTuneError
from robusttune.types import Split

SPLITS: tuple[Split, ...] = ("train", "val", "test", "predict")
Watch = Callable[[Iterator[Look], int], Iterable[Look]]


@dataclass
class Verification:
    """What was found, as plain data.

    Attributes:
        wrong: sentences, each of something that has to be mended.
        notes: sentences, each of something to know.
        splits: of each split, its counts, presence patterns, texts and hash.
        classes: of each class, samples by split.
        images: counts of all splits' images together.
        masks: of each split that lacks sides by protocol, its mask's hash and the presence patterns that it leaves.
        details: all that ``wrong`` and ``notes`` give the first of.
    """

    wrong: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    splits: dict[str, dict[str, Any]] = field(default_factory=dict)
    classes: dict[str, dict[str, int]] = field(default_factory=dict)
    images: dict[str, int] = field(default_factory=dict)
    masks: dict[str, dict[str, Any]] = field(default_factory=dict)
    details: dict[str, list[Any]] = field(default_factory=dict)


def verify(data: ImageTextDataModule, near_bits: int | None, threads: int, watch: Watch) -> Verification:
    """Look at every split as the source has it, and at every image.

    Args:
        data: of which nothing is cut to shots, classes or a subset here.
        near_bits: of 64, in which pictures that look nearly the same may differ; None not to look for such.
        threads: that read images.
        watch: shows how far the images are; given them and their number.
    """
    found = Verification()
    tables = _tables(data, found)
    if not tables:
        return found
    names = sorted({name for table in tables.values() for name in table["image"].to_pylist() if name is not None})
    reader = data.source.images
    missing = {*reader.missing(names)}
    there = [name for name in names if name not in missing]
    looks = {look.name: look for look in watch(look_at(there, reader, threads), len(there))}
    broken = [look.problem for look in looks.values() if look.problem is not None]
    found.details = {"missing": sorted(missing), "broken": broken}
    found.images = {"distinct": len(names), "missing": len(missing), "broken": len(broken)}
    if missing:
        found.wrong.append(f"of {len(names)} images {len(missing)} do not exist, the first is {min(missing)}")
    if broken:
        found.wrong.append(f"of {len(names)} images {len(broken)} cannot be read, the first: {broken[0]}")
    tokenizer = _tokenizer(data, tables.values(), found)
    for split, table in tables.items():
        counts = {"samples": len(table)} | presence(table) | {"unlabelled": table["labels"].null_count}
        found.splits[split] = counts | _texts(table, tokenizer) | {"hash": _hash(table, looks)}
    _count_classes(data, tables, found)
    _compare_with_published(data.source.published, found)
    _check_labels(data, tables, found)
    _look_for_duplicates(data, tables, looks, found)
    if near_bits is not None:
        _look_for_near(tables, looks, near_bits, found)
    _apply_masks(data, found)
    return found


def _tables(data: ImageTextDataModule, found: Verification) -> dict[str, pa.Table]:
    tables: dict[str, pa.Table] = {}
    with _warnings_of("robusttune.data.sources", found.notes):
        for split in SPLITS:
            try:
                table = data.given(split)
            except RobustTuneError as error:
                found.wrong.append(str(error))
                continue
            if table is not None:
                tables[split] = table
    if not tables and not found.wrong:
        found.wrong.append("the data has no splits: give it train, val or test")
    return tables


@contextmanager
def _warnings_of(logger: str, notes: list[str]) -> Iterator[None]:
    """What sources leave out, they warn of."""
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: notes.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger(logger).addHandler(handler)
    try:
        yield
    finally:
        logging.getLogger(logger).removeHandler(handler)


def _tokenizer(data: ImageTextDataModule, tables: Iterable[pa.Table], found: Verification) -> Tokenizer | None:
    """That of the text encoder, where there are texts and it can be had."""
    if all(table["text"].null_count == len(table) for table in tables):
        return None
    try:
        return data.text_encoder.tokenizer()
    except RobustTuneError as error:
        found.notes.append(f"the tokens of texts are not counted: {error}")
        return None


def _texts(table: pa.Table, tokenizer: Tokenizer | None) -> dict[str, Any]:
    """Lengths in tokens, special ones included, and what the text encoder does not take of them."""
    texts = table["text"].drop_null().to_pylist()
    if tokenizer is None or not texts:
        return {}
    lengths = np.array(tokenizer.full_lengths(texts))
    over = np.maximum(lengths - tokenizer.max_length, 0)
    return {
        "tokens_median": float(np.median(lengths)),
        "tokens_95": float(np.percentile(lengths, 95)),
        "tokens_max": int(lengths.max()),
        "max_length": tokenizer.max_length,
        "texts_cut": int((over > 0).sum()),
        "tokens_cut": int(over.sum()),
        "tokens": int(lengths.sum()),
    }


def _hash(table: pa.Table, looks: dict[str, Look]) -> str:
    """16 hex digits of what a split holds: ids, contents of images, texts and labels, in whatever order.

    Where ids are the numbers of rows, that of the rows is of the content.
    """
    digest = hashlib.blake2b(digest_size=8)
    rows = zip(*(table[column].to_pylist() for column in ("id", "image", "text", "labels")), strict=True)
    for sample_id, name, text, labels in sorted(rows, key=lambda row: str(row[0])):
        look = looks.get(name)
        content = None if look is None or look.digest is None else look.digest.hex()
        digest.update(
            repr((sample_id, content, text, None if labels is None else sorted(labels))).encode(errors="surrogatepass")
        )
    return digest.hexdigest()


def _count_classes(data: ImageTextDataModule, tables: dict[str, pa.Table], found: Verification) -> None:
    counts = {
        split: Counter(name for labels in table["labels"].to_pylist() for name in labels or [])
        for split, table in tables.items()
    }
    first = next(iter(tables.values()))
    names = dict.fromkeys(data.source.class_names(first))
    names |= dict.fromkeys(sorted({name for table in tables.values() for name in names_of_classes(table)} - {*names}))
    found.classes = {name: {split: counts[split][name] for split in tables} for name in names}
    for split in tables:
        found.splits[split]["classes"] = sum(counts[split][name] > 0 for name in names)


def _compare_with_published(published: Published | None, found: Verification) -> None:
    if published is None:
        found.notes.append("there are no published counts to compare with")
        return
    for name, samples in published.samples.items():
        # Test samples without labels are there to predict.
        split = "predict" if name == "test" and "test" not in found.splits and "predict" in found.splits else name
        has = found.splits.get(split, {}).get("samples", 0)
        if split in found.splits:
            found.splits[split]["published"] = samples
        if abs(has - samples) > published.within * samples:
            found.wrong.append(f"{name} has {has:,} samples, and published are {samples:,}")
    learned = found.splits.get("train", found.splits.get("test", {})).get("classes")
    if published.classes is not None and learned is not None and learned != published.classes:
        found.wrong.append(f"there are {learned} classes, and published are {published.classes}")
    for split in found.splits:
        expected = published.by_class.get(split) or dict.fromkeys(found.classes, published.of_each_class.get(split))
        other = [
            f"{name!r} {found.classes.get(name, {}).get(split, 0)}, not {samples}"
            for name, samples in expected.items()
            if samples is not None and found.classes.get(name, {}).get(split, 0) != samples
        ]
        if other:
            found.wrong.append(f"of the classes of {split} {len(other)} have another count than published: {other[0]}")


def _check_labels(data: ImageTextDataModule, tables: dict[str, pa.Table], found: Verification) -> None:
    trained = data.source.class_names(tables["train"]) if "train" in tables else [*found.classes]
    for split, table in tables.items():
        if split == "predict":
            continue
        known = [*found.classes] if split == "test" and data.answers != "known" else trained
        try:
            encode_labels(table, known, data.source.multilabel, split)  # type: ignore[arg-type]
        except RobustTuneError as error:
            found.wrong.append(str(error))


Content = tuple[bytes | None, str | None]  # of an image, and a text


def _look_for_duplicates(
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


def _look_for_near(tables: dict[str, pa.Table], looks: dict[str, Look], bits: int, found: Verification) -> None:
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


def _apply_masks(data: ImageTextDataModule, found: Verification) -> None:
    for split in SPLITS:
        if getattr(data.missing, split, None) is None:
            continue
        try:
            table = data.records(split)
        except RobustTuneError as error:
            found.wrong.append(str(error))
            continue
        if table is not None:
            found.masks[split] = {"hash": data.masks[split].hash, "samples": len(table)} | presence(table)
