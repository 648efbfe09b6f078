"""The records of each split as they are used: held out, cut to shots and classes, with sides that are missing."""

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
from robusttune.data.sources.base import Source
from robusttune.data.splits import VAL_SHOTS, Splits, chosen_classes, draw_shots, stratified_sample
from robusttune.errors import RobustTuneError
from robusttune.paths import user_path
from robusttune.ranks import cores
from robusttune.types import Split


class SplitRecords:
    """Tables of `SCHEMA`, made when they are asked for, each once.

    Args:
        source: that has the samples.
        splits: which of them are used.
        missing: which sides are withheld.
        new_classes: whether test samples of other classes than those of training are welcome.
        seed: of what is drawn.

    Attributes:
        masks: of the splits that were asked for and lack sides by protocol.
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
        """Of training, in label order, as far as they are used: all, or the base or new ones."""
        return chosen_classes(self.source.class_names(self.given("train")), self.splits.classes)

    @property
    def test_class_names(self) -> list[str]:
        """Of the test split, in label order, as far as they are used; whatever subset of its samples is."""
        return self.source.class_names(self._of_classes("test", self.given("test")))

    def given(self, split: Split) -> pa.Table | None:
        """The split as the source has it.

        Raises:
            RobustTuneError: it cannot be read, or is empty.
        """
        if split not in self._given:
            table = self.source.read(split)
            if table is not None and len(table) == 0:
                raise RobustTuneError(f"the {split} split is empty: give it samples, or leave it out")
            self._given[split] = table
        return self._given[split]

    def used(self, split: Split) -> pa.Table | None:
        """The split as it is used; samples to predict are those of the test split if there are no others.

        Raises:
            RobustTuneError: as `given`, or it cannot be cut as the settings say.
        """
        if split not in self._used:
            if split == "predict" and self.given("predict") is None:
                return self.used("test")
            table = self.drawn[split] if split in ("train", "val") else self._of_classes(split, self.given(split))
            size = self.splits.subset
            if table is not None and size is not None and size < len(table):
                table = table.take(stratified_sample(class_numbers(table), size, self.seed))
            settings: Missing | None = getattr(self.missing, split, None)
            if table is not None and settings is not None:
                _refuse_one_side(table, split)
                self.masks[split] = self._mask(split, table, settings)
                table = withhold(table, self.masks[split])
            self._used[split] = table
        return self._used[split]

    @property
    def drawn(self) -> dict[Split, pa.Table | None]:
        """What there is to train and to validate on, before any subset is taken."""
        if self._drawn is None:
            tables, shots, generator = self._held_out(), self.splits.shots, random.Random(self.seed)
            for split, table in tables.items():  # training first: both are drawn from one generator
                if shots is not None and table is not None:
                    most = shots if split == "train" else min(shots, VAL_SHOTS)
                    tables[split] = table.take(draw_shots(class_numbers(table), most, generator))
            self._drawn = {split: self._of_classes(split, table) for split, table in tables.items()}
        return self._drawn

    def _held_out(self) -> dict[Split, pa.Table | None]:
        """The training split without its held-out part, and the validation split."""
        whole, own_val = self.given("train"), self.given("val")
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

    def _of_classes(self, split: Split, table: pa.Table | None) -> pa.Table | None:
        """The samples of base or new classes, where the settings ask for them."""
        which = self.splits.classes
        whole = which == "all" or split == "predict" or (split == "test" and which == "base" and self.new_classes)
        if table is None or whole:
            return table
        train = self.given("train")
        if train is None or self.source.multilabel:
            what = "there is no training split" if train is None else "samples have several labels"
            raise RobustTuneError(f"data.splits.classes is {which}, and {what}: leave it at all")
        chosen = {*self.class_names}
        kept = table.filter(pa.array([{*(names or [])} <= chosen for names in table["labels"].to_pylist()]))
        if not len(kept):
            raise RobustTuneError(f"the {split} split has no samples of {which} classes: give data.splits.classes all")
        return kept

    def _mask(self, split: Split, table: pa.Table, settings: Missing) -> Mask:
        ids = table["id"].to_pylist()
        if settings.table is None:
            return draw_mask(ids, settings, self._scores(table, settings))
        path, given = user_path(settings.table), self.given(split)
        if path.suffix == ".parquet":
            return read_mask(path, ids, settings.codes, split)
        if given is None:
            raise RobustTuneError(
                f"the {split} split is cut from train, and {path} is a table by row: give a mask by id, in Parquet"
            )
        whole = read_mask(path, given["id"].to_pylist(), settings.codes, split).by_id()
        shown = np.array([whole[sample_id] for sample_id in sorted(ids)], dtype=bool)
        return Mask(sorted(ids), shown)

    def _scores(self, table: pa.Table, settings: Missing) -> dict[str, NDArray[np.float64]] | None:
        """What missingness depends on, if on anything."""
        if settings.depends_on == "nothing":
            return None
        scores = dict.fromkeys(("image", "text"), np.zeros(len(table)))
        if settings.depends_on == "label":
            of_labels = label_scores([names or [] for names in table["labels"].to_pylist()], settings.seed)
            return dict.fromkeys(scores, of_labels)
        if settings.type != "text":
            scores["image"] = rank_scores([None if t is None else len(t) for t in table["text"].to_pylist()])
        if settings.type != "image":
            scores["text"] = rank_scores(brightness(table["image"].to_pylist(), self.source.images))
        return scores


def class_numbers(table: pa.Table) -> list[list[int]]:
    """Class numbers of each row, in the order in which the classes come up."""
    numbers: dict[str, int] = {}
    return [[numbers.setdefault(name, len(numbers)) for name in names or []] for names in table["labels"].to_pylist()]


def presence(table: pa.Table) -> dict[str, int]:
    """How many samples have both sides, an image alone, a text alone, or neither."""
    image, text = (np.asarray(table[side].is_valid()) for side in ("image", "text"))
    return {
        "complete": int((image & text).sum()),
        "image_only": int((image & ~text).sum()),
        "text_only": int((~image & text).sum()),
        "neither": int((~image & ~text).sum()),
    }


def withhold(table: pa.Table, mask: Mask) -> pa.Table:
    """A table of `SCHEMA` in which sides that the mask does not show are absent."""
    shown = mask.by_id()
    rows = [shown[sample_id] for sample_id in table["id"].to_pylist()]
    for place, side in enumerate(("image", "text")):
        kept = pc.if_else(pa.array([row[place] for row in rows]), table[side], pa.scalar(None, pa.string()))
        table = table.set_column(table.schema.get_field_index(side), table.schema.field(side), kept)
    return table


def brightness(names: Sequence[str | None], reader: ImageReader) -> list[float | None]:
    """The mean of each image's pixels, None where there is no image.

    Raises:
        RobustTuneError: an image cannot be read, so what depends on it would be another mask on another copy.
    """

    def mean(name: str | None) -> float | None:
        return None if name is None else float(np.asarray(reader.read(name).convert("L")).mean())

    try:
        with ThreadPoolExecutor(cores()) as pool:  # decoders let other threads run
            return list(pool.map(mean, names))
    except UnreadableImageError as error:
        raise RobustTuneError(f"{error}, and data.missing depends on it: mend it, or remove the sample") from None


def _refuse_one_side(table: pa.Table, split: Split) -> None:
    for side in ("image", "text"):
        if table[side].null_count == len(table):
            raise RobustTuneError(
                f"no {split} sample has a{'n image' if side == 'image' else ' text'}, so none has a side to lose and "
                f"another to keep: leave data.missing.{split} out"
            )
