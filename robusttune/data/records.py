"""The records of each split as they are used: held-out samples, few shots, selected classes, missing modalities."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from robusttune.corruption.masks import Mask
from robusttune.corruption.missing import Missing, MissingBySplit, draw_mask, label_scores, rank_scores
from robusttune.data.class_indices import by_first_appearance
from robusttune.data.images import ImageReader, UnreadableImageError
from robusttune.data.kept_samples import kept_stratified_sample
from robusttune.data.mask_files import read_mask
from robusttune.data.rows import MODALITIES, Rows
from robusttune.data.sources.base import Source
from robusttune.data.splits import VAL_SHOTS, Splits, chosen_classes, draw_shots
from robusttune.errors import RobustTuneError
from robusttune.paths import user_path
from robusttune.ranks import cores
from robusttune.types import Split


class SplitRecords:
    """The rows of all splits, in tables with the columns of `SCHEMA`. They are selected once, at the first request.

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
        self._given: dict[Split, Rows | None] = {}
        self._used: dict[Split, Rows | None] = {}
        self._drawn: dict[Split, Rows | None] | None = None

    @property
    def class_names(self) -> list[str]:
        """Return the names of the training classes in use, in label order: all, base or new ones."""
        labelled: Split = "train" if self.source.training_stream is None else "val"
        return chosen_classes(self.source.class_names(self.source_table(labelled)), self.splits.classes)

    @property
    def test_class_names(self) -> list[str]:
        """Return the names of the test classes in use, in label order. A subset of samples does not change them."""
        rows = self._select_classes("test", self.source_rows("test"))
        return self.source.class_names(None if rows is None else rows.table("labels"))

    def source_table(self, split: Split) -> pa.Table | None:
        """Return the table of a split as the source has it, or None if the source has no such split.

        Raises:
            RobustTuneError: The split cannot be read, or is empty.
        """
        rows = self.source_rows(split)
        return None if rows is None else rows.table()

    def source_rows(self, split: Split) -> Rows | None:
        """Return all rows of a split as the source has them, see `source_table`."""
        if split not in self._given:
            table = self.source.read(split)
            if table is not None and len(table) == 0:
                raise RobustTuneError(f"the {split} split is empty: give it samples, or leave it out")
            self._given[split] = None if table is None else Rows(table)
        return self._given[split]

    def table(self, split: Split) -> pa.Table | None:
        """Return the rows of a split as it is used as a table, see `rows`. It is a copy if rows were selected."""
        rows = self.rows(split)
        return None if rows is None else rows.table()

    def rows(self, split: Split) -> Rows | None:
        """Return the rows of a split as it is used, or None if there is no such split.

        The samples are selected, and missing modalities are hidden. If the source has no samples to predict, the
        ``predict`` split is the test split.

        Raises:
            RobustTuneError: The split cannot be read, is empty, or does not allow the selection in the settings.
        """
        if split not in self._used:
            origin = self.origin(split)
            if origin != split:
                return self.rows(origin)
            rows = (
                self.selected[split]
                if split in ("train", "val")
                else self._select_classes(split, self.source_rows(split))
            )
            size = self.splits.subset
            if rows is not None and size is not None and size < len(rows):
                rows = rows.select(_stratified(rows, size, self.seed))
            settings: Missing | None = getattr(self.missing, split, None)
            if rows is not None and settings is not None:
                _refuse_single_modality(rows, split)
                self.masks[split] = self._mask(split, rows, settings)
                rows = rows.hide(~self.masks[split].present)
            self._used[split] = rows
        return self._used[split]

    def origin(self, split: Split) -> Split:
        """Return the split that the samples of a split come from: ``test`` if there is nothing else to predict."""
        return "test" if split == "predict" and self.source_rows("predict") is None else split

    @property
    def selected(self) -> dict[Split, Rows | None]:
        """Return the training and validation rows after the selection of shots and classes, before any subset."""
        if self._drawn is None:
            drawn, shots, generator = self._held_out(), self.splits.shots, random.Random(self.seed)
            for split, rows in drawn.items():  # training comes first, since both draws use one generator
                if shots is not None and rows is not None:
                    per_class = shots if split == "train" else min(shots, VAL_SHOTS)
                    drawn[split] = rows.select(draw_shots(rows.labels.classes, per_class, generator))
            self._drawn = {split: self._select_classes(split, rows) for split, rows in drawn.items()}
        return self._drawn

    def _held_out(self) -> dict[Split, Rows | None]:
        """Return the training rows without the held-out part, and the validation rows."""
        whole, own_val = self.source_rows("train"), self.source_rows("val")
        if own_val is not None or whole is None:
            return {"train": whole, "val": own_val}
        size = round(self.splits.val_fraction * len(whole))
        if not 0 < size < len(whole):
            raise RobustTuneError(
                f"data.splits.val_fraction {self.splits.val_fraction} of {len(whole)} training samples leaves a split "
                "empty: give more samples, or a validation split"
            )
        held_out = np.zeros(len(whole), dtype=bool)
        held_out[_stratified(whole, size, self.seed)] = True
        return {"train": whole.select(np.flatnonzero(~held_out)), "val": whole.select(np.flatnonzero(held_out))}

    def _select_classes(self, split: Split, rows: Rows | None) -> Rows | None:
        """Return the samples of the base or new classes, or all samples if the settings do not select classes."""
        which = self.splits.classes
        whole = which == "all" or split == "predict" or (split == "test" and which == "base" and self.new_classes)
        if rows is None or whole:
            return rows
        train = self.source_rows("train")
        if train is None or self.source.multilabel:
            problem = "there is no training split" if train is None else "samples have several labels"
            raise RobustTuneError(f"data.splits.classes is {which}, and {problem}: leave it at all")
        chosen, labels = {*self.class_names}, rows.labels
        is_chosen = np.array([name in chosen for name in labels.names], dtype=bool)
        kept = np.ones(len(rows), dtype=bool)  # a row without a label, too
        kept[labels.classes.rows[~is_chosen[labels.classes.flat]]] = False
        if not kept.any():
            raise RobustTuneError(f"the {split} split has no samples of {which} classes: give data.splits.classes all")
        return rows.select(np.flatnonzero(kept))

    def _mask(self, split: Split, rows: Rows, settings: Missing) -> Mask:
        """Draw the mask of a split, or read it from the protocol's file."""
        ids = rows.column("id")
        if settings.table is None:
            return draw_mask(ids, settings, self._scores(rows, settings))
        path, given = user_path(settings.table), self.source_rows(split)
        if path.suffix == ".parquet":
            return read_mask(path, ids, settings.codes, split)
        if given is None:
            raise RobustTuneError(
                f"the {split} split is cut from train, and {path} is a table by row: give a mask by id, in Parquet"
            )
        all_ids = given.column("id")
        whole = read_mask(path, all_ids, settings.codes, split, self.source.mask_rows(split, all_ids.to_pylist()))
        return Mask(ids, whole.present[rows.index])

    def _scores(self, rows: Rows, settings: Missing) -> dict[str, NDArray[np.float64]] | None:
        """Return the propensity of each modality to be missing, see `draw_mask`, or None if it is uniform."""
        if settings.depends_on == "nothing":
            return None
        scores = dict.fromkeys(MODALITIES, np.zeros(len(rows)))
        if settings.depends_on == "label":
            names, classes, _ = rows.labels
            return dict.fromkeys(scores, label_scores(names, classes.flat, classes.counts, settings.seed))
        if settings.type != "text":
            lengths = [pc.utf8_length(part["text"]) for part in rows.chunks("text")]
            scores["image"] = rank_scores(pa.chunked_array([part for c in lengths for part in c.chunks]))
        if settings.type != "image":
            grey = brightness((rows.images(row) for row in range(len(rows))), self.source.images)
            scores["text"] = rank_scores(grey)
        return scores


def _stratified(rows: Rows, size: int, seed: int) -> NDArray[np.int64]:
    """Draw a stratified sample of rows. Ties between classes are decided by the order of their first rows."""
    return kept_stratified_sample(by_first_appearance(rows.labels.classes), size, seed)


def presence(rows: Rows) -> dict[str, int]:
    """Count the samples with both modalities, an image only, a text only, or neither.

    Example:
        >>> presence(Rows(pa.table({"image": ["a.jpg", None], "text": ["a pie", "a soup"]})))
        {'complete': 1, 'image_only': 0, 'text_only': 1, 'neither': 0}
    """
    image, text = (rows.present(modality) for modality in MODALITIES)
    return {
        "complete": int((image & text).sum()),
        "image_only": int((image & ~text).sum()),
        "text_only": int((~image & text).sum()),
        "neither": int((~image & ~text).sum()),
    }


def brightness(rows: Iterable[Sequence[str]], reader: ImageReader) -> list[float | None]:
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


def _refuse_single_modality(rows: Rows, split: Split) -> None:
    """Raise an error if no sample has an image, or no sample has a text: a mask could leave samples empty."""
    for name in MODALITIES:
        if not rows.present(name).any():
            raise RobustTuneError(
                f"no {split} sample has a{'n image' if name == 'image' else ' text'}, so none has a "
                f"modality to lose and another to keep: leave data.missing.{split} out"
            )
