"""The function `verify`, which checks a copy of a data set as a whole."""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pyarrow as pa

from robusttune.counting import counted
from robusttune.data.balance import imbalance_note
from robusttune.data.datamodule import ImageTextDataModule
from robusttune.data.labels import encode_labels
from robusttune.data.look_alikes import look_alikes
from robusttune.data.records import presence
from robusttune.data.row_images import image_names, row_images
from robusttune.data.rows import Rows
from robusttune.data.sources.base import Published, names_of_classes
from robusttune.data.verify.duplicates import find_duplicates, find_near_duplicates
from robusttune.data.verify.findings import Verification
from robusttune.data.verify.images import ImageCheck, check_images, row_digest
from robusttune.encoders.tokenization import Tokenizer
from robusttune.errors import RobustTuneError
from robusttune.types import Split

SPLITS: tuple[Split, ...] = ("train", "val", "test", "predict")
Watch = Callable[[Iterator[ImageCheck], int], Iterable[ImageCheck]]


def verify(data: ImageTextDataModule, near_bits: int | None, threads: int, watch: Watch) -> Verification:
    """Check every split of a data set and every image in it.

    Splits are checked as the source provides them, without the data module's reduction to shots, classes or a subset.
    Problems are collected instead of raised.

    Args:
        data: Data module of the data set.
        near_bits: Greatest number of differing bits, of 64, between the perceptual hashes of near duplicates; None to
            skip the search for near duplicates.
        threads: Number of threads that read images.
        watch: Function that wraps the iterator of read images to show progress. It gets the iterator and the number of
            images, and returns an iterable of the same items.

    Returns:
        Problems, notes and counts.
    """
    found = Verification()
    tables = _tables(data, found)
    if not tables:
        return found
    names = sorted(image_names([*tables.values()]))
    reader = data.source.images
    missing = {*reader.missing(names)}
    existing = [name for name in names if name not in missing]
    checks = {check.name: check for check in watch(check_images(existing, reader, threads), len(existing))}
    broken = [check.problem for check in checks.values() if check.problem is not None]
    found.details = {"missing": sorted(missing), "broken": broken}
    found.images = {"distinct": len(names), "missing": len(missing), "broken": len(broken)}
    if missing:
        found.problems.append(
            f"{len(missing)} of {counted(len(names), 'image')} not found, the first is {min(missing):.300}"
        )
    if broken:
        found.problems.append(f"{len(broken)} of {counted(len(names), 'image')} unreadable, the first: {broken[0]}")
    tokenizer = _tokenizer(data, tables.values(), found)
    for split, table in tables.items():
        counts = {"samples": len(table)} | presence(Rows(table)) | {"unlabelled": table["labels"].null_count}
        found.splits[split] = counts | _texts(table, tokenizer) | {"hash": _hash(table, checks)}
    _count_classes(data, tables, found)
    _compare_with_published(data.source.published, found)
    _check_labels(data, tables, found)
    find_duplicates(data, tables, checks, found)
    if near_bits is not None:
        find_near_duplicates(tables, checks, near_bits, found)
    _apply_masks(data, found)
    if "train" in tables and not found.problems:
        _check_as_a_fit_would(data, found)
    return found


def _tables(data: ImageTextDataModule, found: Verification) -> dict[str, pa.Table]:
    """Read the table of each split that exists; errors become problems, and warnings of sources become notes."""
    tables: dict[str, pa.Table] = {}
    with _warnings_of("robusttune.data.sources", found.notes):
        for split in SPLITS:
            try:
                table = data.source_table(split)
            except RobustTuneError as error:
                found.problems.append(str(error))
                continue
            if table is not None:
                tables[split] = table
    if data.source.training_stream is not None:
        found.notes.append("train is a stream, and is not checked")
    elif not tables and not found.problems:
        found.problems.append("the data has no splits: give it train, val or test")
    return tables


@contextmanager
def _warnings_of(logger: str, notes: list[str]) -> Iterator[None]:
    """Append a logger's warnings during a ``with`` block to notes, because sources warn of samples they leave out."""
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: notes.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger(logger).addHandler(handler)
    try:
        yield
    finally:
        logging.getLogger(logger).removeHandler(handler)


def _tokenizer(data: ImageTextDataModule, tables: Iterable[pa.Table], found: Verification) -> Tokenizer | None:
    """Return the tokenizer of the text encoder, or None where there are no texts or it cannot be loaded."""
    if all(table["text"].null_count == len(table) for table in tables):
        return None
    try:
        return data.text_encoder.tokenizer()
    except RobustTuneError as error:
        found.notes.append(f"the tokens of texts are not counted: {error}")
        return None


def _texts(table: pa.Table, tokenizer: Tokenizer | None) -> dict[str, Any]:
    """Return statistics of the texts' token counts, special tokens included, and of truncation by the text encoder."""
    texts = table["text"].drop_null().to_pylist()
    if tokenizer is None or not texts:
        return {}
    lengths = np.array(tokenizer.full_lengths(texts))
    excess = np.maximum(lengths - tokenizer.max_length, 0)
    return {
        "tokens_median": float(np.median(lengths)),
        "tokens_95": float(np.percentile(lengths, 95)),
        "tokens_max": int(lengths.max()),
        "max_length": tokenizer.max_length,
        "texts_cut": int((excess > 0).sum()),
        "tokens_cut": int(excess.sum()),
        "tokens": int(lengths.sum()),
    }


def _hash(table: pa.Table, checks: dict[str, ImageCheck]) -> str:
    """Return a hash of a split's ids, image contents, texts and labels, 16 hexadecimal digits.

    The hash does not depend on the order of the rows, unless the ids are row numbers.
    """
    digest = hashlib.blake2b(digest_size=8)
    columns = (table[column].to_pylist() for column in ("id", "text", "labels"))
    rows = zip(row_images(table), *columns, strict=True)
    for names, sample_id, text, labels in sorted(rows, key=lambda row: str(row[1])):
        images = row_digest(names, checks)
        content = None if images is None else images.hex()
        digest.update(
            repr((sample_id, content, text, None if labels is None else sorted(labels))).encode(errors="surrogatepass")
        )
    return digest.hexdigest()


def _count_classes(data: ImageTextDataModule, tables: dict[str, pa.Table], found: Verification) -> None:
    """Count the samples of each class in each split, and note class names that look alike and imbalanced classes."""
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
    note = imbalance_note(
        {name: by_split["train"] for name, by_split in found.classes.items() if by_split.get("train")}
    )
    if note is not None and data.training.balance is None:
        found.notes.append(note)
    for split in tables:
        found.splits[split]["classes"] = sum(counts[split][name] > 0 for name in names)


def _compare_with_published(published: Published | None, found: Verification) -> None:
    """Compare the numbers of samples and classes with the published counts."""
    if published is None:
        found.notes.append("there are no published counts to compare with")
        return
    for name, samples in published.samples.items():
        # A test set without labels is read as the split to predict.
        split = "predict" if name == "test" and "test" not in found.splits and "predict" in found.splits else name
        has = found.splits.get(split, {}).get("samples", 0)
        if split in found.splits:
            found.splits[split]["published"] = samples
        if has == samples:
            continue
        message = f"{name} has {counted(has, 'sample')}, {abs(has - samples):,} {'fewer' if has < samples else 'more'} "
        message += f"than the {samples:,} published"
        tolerance = published.approximate.get(name, 0.0)
        if abs(has - samples) <= tolerance * samples:
            found.notes.append(f"{message} (good copies differ by up to {tolerance:.0%})")
        else:
            found.problems.append(message)
    classes = found.splits.get("train", found.splits.get("test", {})).get("classes")
    if published.classes is not None and classes is not None and classes != published.classes:
        found.problems.append(
            f"the data has {counted(classes, 'class', 'classes')}, not {published.classes} as published"
        )
    for split in found.splits:
        expected = published.by_class.get(split) or dict.fromkeys(found.classes, published.per_class.get(split))
        differing = [
            f"{name!r} {found.classes.get(name, {}).get(split, 0)}, not {samples}"
            for name, samples in expected.items()
            if samples is not None and found.classes.get(name, {}).get(split, 0) != samples
        ]
        if differing:
            found.problems.append(
                f"{counted(len(differing), 'class', 'classes')} of {split} with another number of samples than "
                f"published, the first is {differing[0]}"
            )


def _check_labels(data: ImageTextDataModule, tables: dict[str, pa.Table], found: Verification) -> None:
    """Check that the labels of each split can be encoded with the class names in use."""
    trained = data.source.class_names(tables["train"]) if "train" in tables else [*found.classes]
    for split, table in tables.items():
        if split == "predict":
            continue
        known = [*found.classes] if split == "test" and data.evaluation.classes != "training" else trained
        try:
            encode_labels(Rows(table), known, data.source.multilabel, split)  # type: ignore[arg-type]
        except RobustTuneError as error:
            found.problems.append(str(error))


def _apply_masks(data: ImageTextDataModule, found: Verification) -> None:
    """Apply the protocol of missing modalities, and record the mask of each split that has one."""
    for split in SPLITS:
        if getattr(data.missing, split, None) is None:
            continue
        try:
            rows = data.rows(split)
        except RobustTuneError as error:
            found.problems.append(str(error))
            continue
        if rows is not None:
            found.masks[split] = {"hash": data.masks[split].hash, "samples": len(rows)} | presence(rows)


def _check_as_a_fit_would(data: ImageTextDataModule, found: Verification) -> None:
    """Run the data module's own checks, which find further problems, such as a split left empty by a hold-out."""
    warnings: list[str] = []
    with _warnings_of("robusttune.data.datamodule", warnings):
        try:
            data.check("fit")
        except RobustTuneError as error:
            found.problems.append(str(error))
    found.notes += [line for line in warnings if not any(line.startswith(note) for note in found.notes)]
