"""A copy of a data set, checked as a whole."""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pyarrow as pa

from robusttune.data.datamodule import ImageTextDataModule
from robusttune.data.labels import encode_labels
from robusttune.data.look_alikes import look_alikes
from robusttune.data.records import presence
from robusttune.data.sources.base import Published, names_of_classes
from robusttune.data.verify.duplicates import look_for_duplicates, look_for_near
from robusttune.data.verify.findings import Verification
from robusttune.data.verify.images import Look, look_at
from robusttune.encoders.tokenization import Tokenizer
from robusttune.errors import RobustTuneError
from robusttune.types import Split

SPLITS: tuple[Split, ...] = ("train", "val", "test", "predict")
Watch = Callable[[Iterator[Look], int], Iterable[Look]]


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
        found.wrong.append(f"of {len(names)} images {len(missing)} do not exist, the first is {min(missing):.300}")
    if broken:
        found.wrong.append(f"of {len(names)} images {len(broken)} cannot be read, the first: {broken[0]}")
    tokenizer = _tokenizer(data, tables.values(), found)
    for split, table in tables.items():
        counts = {"samples": len(table)} | presence(table) | {"unlabelled": table["labels"].null_count}
        found.splits[split] = counts | _texts(table, tokenizer) | {"hash": _hash(table, looks)}
    _count_classes(data, tables, found)
    _compare_with_published(data.source.published, found)
    _check_labels(data, tables, found)
    look_for_duplicates(data, tables, looks, found)
    if near_bits is not None:
        look_for_near(tables, looks, near_bits, found)
    _apply_masks(data, found)
    if "train" in tables and not found.wrong:
        _check_as_a_fit_would(data, found)
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
    alike = look_alikes(names)
    if alike is not None:
        found.notes.append(alike)
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
        if has == samples:
            continue
        what = f"{name} has {has:,} samples, {abs(has - samples):,} {'fewer' if has < samples else 'more'} than the "
        what += f"{samples:,} published"
        share = published.approximate.get(name, 0.0)
        if abs(has - samples) <= share * samples:
            found.notes.append(f"{what} (good copies differ by up to {share:.0%})")
        else:
            found.wrong.append(what)
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


def _check_as_a_fit_would(data: ImageTextDataModule, found: Verification) -> None:
    """What nothing above looks for, such as a split that is left empty when another is held out of it."""
    warnings: list[str] = []
    with _warnings_of("robusttune.data.datamodule", warnings):
        try:
            data.check("fit")
        except RobustTuneError as error:
            found.wrong.append(str(error))
    found.notes += [line for line in warnings if not any(line.startswith(note) for note in found.notes)]
