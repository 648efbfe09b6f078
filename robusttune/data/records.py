"""The records of each split as they are used: held-out samples, few shots, selected classes, missing modalities."""

from __future__ import annotations

import random
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from robusttune.corruption.missing import Mask, Missing, MissingBySplit, draw_mask, label_scores, rank_scores
from robusttune.data.images import ImageReader, UnreadableImageError
from robusttune.data.mask_files import read_mask
from robusttune.data.row_images import row_images
from robusttune.data.sources.base import Source
from robusttune.data.splits import VAL_SHOTS, Splits, chosen_classes, draw_shots, stratified_sample
from robusttune.errors import RobustTuneError
from robusttune.paths import user_path
from robusttune.ranks import cores
from robusttune.types import Split


class SplitRecords:
    """The tables of all splits, with the columns of `SCHEMA`. Each table is created once, at the first request.

    Args:
        source: Source of the samples.
        splits: Selection of samples: shots, classes, held-out share, subset.
        missing: Missing-modality protocols by split.
        new_classes: Whether the test split may have classes that training lacks.
        seed: Seed of all draws.

    Attributes:
        masks: Masks of the splits that have a missing-modality protocol and were requested so far.
    """

    def __init__(self, source: Source, splits: Splits, missing: MissingBySplit, new_classes: bool, seed: int) -> None:
        self.source = source
        self.splits = splits
        self.missing = missing
        self.new_classes = new_classes
        self.seed = seed
        self.masks: dict[Split, Mask] = {}
        self._given: dict[Split, pa.Table | None] = {}
        self._used: dict[Split, pa.Table | None] = {}
        self._drawn: dict[Split, pa.Table | None] | None = None

    @property
    def class_names(self) -> list[str]:
        """Return the names of the training classes in use, in label order: all, base or new ones."""
        return chosen_classes(self.source.class_names(self.source_table("train")), self.splits.classes)

    @property
    def test_class_names(self) -> list[str]:
        """Return the names of the test classes in use, in label order. A subset of samples does not change them."""
        return self.source.class_names(self._select_classes("test", self.source_table("test")))

    def source_table(self, split: Split) -> pa.Table | None:
        """Return the table of a split as the source has it, or None if the source has no such split.

        Raises:
            RobustTuneError: The split cannot be read, or is empty.
        """
        if split not in self._given:
            table = self.source.read(split)
            if table is not None and len(table) == 0:
                raise RobustTuneError(f"the {split} split is empty: give it samples, or leave it out")
            self._given[split] = table
        return self._given[split]

    def table(self, split: Split) -> pa.Table | None:
        """Return the table of a split as it is used, or None if there is no such split.

        The samples are selected, and missing modalities are set to null. If the source has no samples to predict, the
        ``predict`` split is the test split.

        Raises:
            RobustTuneError: The split cannot be read, is empty, or does not allow the selection in the settings.
        """
        if split not in self._used:
            origin = self.origin(split)
            if origin != split:
                return self.table(origin)
            table = (
                self.selected[split]
                if split in ("train", "val")
                else self._select_classes(split, self.source_table(split))
            )
            size = self.splits.subset
            if table is not None and size is not None and size < len(table):
                table = table.take(stratified_sample(class_numbers(table), size, self.seed))
            settings: Missing | None = getattr(self.missing, split, None)
            if table is not None and settings is not None:
                _refuse_single_modality(table, split)
                self.masks[split] = self._mask(split, table, settings)
                table = apply_mask(table, self.masks[split])
            self._used[split] = table
        return self._used[split]

    def origin(self, split: Split) -> Split:
        """Return the split that the samples of a split come from: ``test`` if there is nothing else to predict."""
        return "test" if split == "predict" and self.source_table("predict") is None else split

    @property
    def selected(self) -> dict[Split, pa.Table | None]:
        """Return the training and validation tables after the selection of shots and classes, before any subset."""
        if self._drawn is None:
            tables, shots, generator = self._held_out(), self.splits.shots, random.Random(self.seed)
            for split, table in tables.items():  # training comes first, since both draws use one generator
                if shots is not None and table is not None:
                    per_class = shots if split == "train" else min(shots, VAL_SHOTS)
                    tables[split] = table.take(draw_shots(class_numbers(table), per_class, generator))
            self._drawn = {split: self._select_classes(split, table) for split, table in tables.items()}
        return self._drawn

    def _held_out(self) -> dict[Split, pa.Table | None]:
        """Return the training table without its held-out part, and the validation table."""
        whole, own_val = self.source_table("train"), self.source_table("val")
        if own_val is not None or whole is None:
            return {"train": whole, "val": own_val}
        size = round(self.splits.val_fraction * len(whole))
        if not 0 < size < len(whole):
            raise RobustTuneError(
                f"data.splits.val_fraction {self.splits.val_fraction} of {len(whole)} training samples leaves a split "
                "empty: give more samples, or a validation split"
            )
        held_out = np.zeros(len(whole), dtype=bool)
        held_out[stratified_sample(class_numbers(whole), size, self.seed)] = True
        return {"train": whole.filter(~held_out), "val": whole.filter(held_out)}

    def _select_classes(self, split: Split, table: pa.Table | None) -> pa.Table | None:
        """Return the samples of the base or new classes, or all samples if the settings do not select classes."""
        which = self.splits.classes
        whole = which == "all" or split == "predict" or (split == "test" and which == "base" and self.new_classes)
        if table is None or whole:
            return table
        train = self.source_table("train")
        if train is None or self.source.multilabel:
            problem = "there is no training split" if train is None else "samples have several labels"
            raise RobustTuneError(f"data.splits.classes is {which}, and {problem}: leave it at all")
        chosen = {*self.class_names}
        kept = table.filter(pa.array([{*(names or [])} <= chosen for names in table["labels"].to_pylist()]))
        if not len(kept):
            raise RobustTuneError(f"the {split} split has no samples of {which} classes: give data.splits.classes all")
        return kept

    def _mask(self, split: Split, table: pa.Table, settings: Missing) -> Mask:
        """Draw the mask of a split, or read it from the protocol's file."""
        ids = table["id"].to_pylist()
        if settings.table is None:
            return draw_mask(ids, settings, self._scores(table, settings))
        path, given = user_path(settings.table), self.source_table(split)
        if path.suffix == ".parquet":
            return read_mask(path, ids, settings.codes, split)
        if given is None:
            raise RobustTuneError(
                f"the {split} split is cut from train, and {path} is a table by row: give a mask by id, in Parquet"
            )
        all_ids = given["id"].to_pylist()
        whole = read_mask(path, all_ids, settings.codes, split, self.source.mask_rows(split, all_ids)).by_id()
        shown = np.array([whole[sample_id] for sample_id in sorted(ids)], dtype=bool)
        return Mask(sorted(ids), shown)

    def _scores(self, table: pa.Table, settings: Missing) -> dict[str, NDArray[np.float64]] | None:
        """Return the propensity of each modality to be missing, see `draw_mask`, or None if it is uniform."""
        if settings.depends_on == "nothing":
            return None
        scores = dict.fromkeys(("image", "text"), np.zeros(len(table)))
        if settings.depends_on == "label":
            by_label = label_scores([names or [] for names in table["labels"].to_pylist()], settings.seed)
            return dict.fromkeys(scores, by_label)
        if settings.type != "text":
            scores["image"] = rank_scores([None if t is None else len(t) for t in table["text"].to_pylist()])
        if settings.type != "image":
            scores["text"] = rank_scores(brightness(row_images(table), self.source.images))
        return scores


def class_numbers(table: pa.Table) -> list[list[int]]:
    """Number the classes in the order of their first appearance, and return the class numbers of each row.

    Example:
        >>> class_numbers(pa.table({"labels": [["soup"], ["pie", "soup"], None]}))
        [[0], [1, 0], []]
    """
    numbers: dict[str, int] = {}
    return [[numbers.setdefault(name, len(numbers)) for name in names or []] for names in table["labels"].to_pylist()]


def presence(table: pa.Table) -> dict[str, int]:
    """Count the samples with both modalities, an image only, a text only, or neither.

    Example:
        >>> presence(pa.table({"image": ["a.jpg", None], "text": ["a pie", "a soup"]}))
        {'complete': 1, 'image_only': 0, 'text_only': 1, 'neither': 0}
    """
    image, text = (np.asarray(table[modality].is_valid()) for modality in ("image", "text"))
    return {
        "complete": int((image & text).sum()),
        "image_only": int((image & ~text).sum()),
        "text_only": int((~image & text).sum()),
        "neither": int((~image & ~text).sum()),
    }


def apply_mask(table: pa.Table, mask: Mask) -> pa.Table:
    """Return the table with null in place of the modalities that the mask removes.

    Args:
        table: Table of the samples, with the columns of `SCHEMA`.
        mask: Mask of these samples.
    """
    shown = mask.by_id()
    rows = [shown[sample_id] for sample_id in table["id"].to_pylist()]
    for i, modality in enumerate(("image", "text")):
        kept = pc.if_else(pa.array([row[i] for row in rows]), table[modality], pa.scalar(None, pa.string()))
        table = table.set_column(table.schema.get_field_index(modality), table.schema.field(modality), kept)
    return table


def brightness(rows: Sequence[Sequence[str]], reader: ImageReader) -> list[float | None]:
    """Return the mean grey value of each row's images, in [0, 255], or None for a row without an image.

    Args:
        rows: Names of the images of each row.
        reader: Reader that knows the names.

    Raises:
        RobustTuneError: An image cannot be read. Without it the mask would differ from that of an intact copy.
    """

    def mean(names: Sequence[str]) -> float | None:
        """Return the mean grey value of one row's images."""
        greys = [float(np.asarray(reader.read(name).convert("L")).mean()) for name in names]
        return float(np.mean(greys)) if greys else None

    try:
        with ThreadPoolExecutor(cores()) as pool:  # decoders release the GIL
            return list(pool.map(mean, rows))
    except UnreadableImageError as error:
        raise RobustTuneError(f"{error}, and data.missing depends on it: repair it, or remove the sample") from None


def _refuse_single_modality(table: pa.Table, split: Split) -> None:
    """Raise an error if no sample has an image, or no sample has a text: a mask could leave samples empty."""
    for name in ("image", "text"):
        if table[name].null_count == len(table):
            raise RobustTuneError(
                f"no {split} sample has a{'n image' if name == 'image' else ' text'}, so none has a "
                f"modality to lose and another to keep: leave data.missing.{split} out"
            )
