"""Checks of the data before a stage starts: missing splits, labels, image files, inputs that cannot be cached."""

from __future__ import annotations

import logging
from typing import Literal, get_args

from robusttune.corruption.noise import SplitNoise
from robusttune.counting import counted
from robusttune.data.images import ImageReader
from robusttune.data.label_set import LabelSet
from robusttune.data.look_alikes import look_alikes
from robusttune.data.records import SplitRecords
from robusttune.data.rows import MODALITIES, Rows
from robusttune.data.settings import CacheSettings
from robusttune.encoders import Augmentation
from robusttune.errors import RobustTuneError
from robusttune.types import STAGE_SPLITS, Split

log = logging.getLogger(__name__)


def check_stage(stage: str, records: SplitRecords, label_set: LabelSet, unreadable: Literal["error", "absent"]) -> None:
    """Check the labels and image files of the splits that a stage needs.

    Before a fit, these are all splits, unless ``data.splits.check_test`` is False.

    Args:
        stage: Stage of the Trainer: ``fit``, ``validate``, ``test`` or ``predict``.
        records: Records of all splits.
        label_set: Classes of the data.
        unreadable: Treatment of unreadable image files.

    Raises:
        RobustTuneError: A split is missing, a label is invalid, no sample has an image or a text, an image file
            does not exist with ``unreadable`` set to ``error``, or no image file exists.
    """
    source = records.source
    if stage == "fit" and source.validates_on_test:
        log.warning(
            "this data set has no validation split and validates on test samples, so the best checkpoint is chosen on "
            "test data: for an unbiased result, test last.ckpt"
        )
    for split in STAGE_SPLITS[stage]:
        is_stream = split == "train" and source.training_stream is not None
        if records.rows(split) is None and not is_stream:
            raise RobustTuneError(f"the data has no {split} split: give one to data.source")
    alike = look_alikes(label_set.facts.class_names) if stage == "fit" else None
    if alike is not None:
        log.warning("%s: correct the labels, unless they are different classes", alike)
    everything = stage == "fit" and records.splits.check_test
    for split in get_args(Split) if everything else STAGE_SPLITS[stage]:
        rows = records.rows(split)
        if rows is None:
            continue
        _refuse_empty_samples(rows, split)
        if split != "predict":
            label_set.indices(rows, split)
        _check_image_files(rows, split, source.images, unreadable)


def refuse_uncacheable_inputs(cache: CacheSettings, noise: SplitNoise, augmentation: Augmentation | None) -> None:
    """Check that training inputs with random views have a fixed number of views to cache.

    Args:
        cache: Settings of the cache.
        noise: Noise of the training split.
        augmentation: Augmentation of training images, or None.

    Raises:
        RobustTuneError: Training has random views and a cache, but no number of views.
    """
    random = [f"data.noise.train.{modality}" for modality in ("image", "text") if getattr(noise, modality) is not None]
    random += ["data.training.augmentation"] if augmentation is not None else []
    if cache.folder is not None and cache.views is None and random:
        raise RobustTuneError(
            f"{' and '.join(random)} make{'s' * (len(random) == 1)} new inputs in every epoch, which cannot be cached: "
            "set data.cache.views to a number of views to choose from, or leave data.cache.folder out"
        )


def _check_image_files(rows: Rows, split: Split, images: ImageReader, unreadable: Literal["error", "absent"]) -> None:
    """Raise an error or log a warning if image files of a split do not exist."""
    if not rows.present("image").any():
        return
    missing = images.missing(rows.all_images())
    if not missing:
        return
    problem = (
        f"{counted(len(missing), 'image file')} of the {counted(len(rows), f'{split} sample')} "
        f"{'does' if len(missing) == 1 else 'do'} not exist, the first is {missing[0]:.300}"
    )
    remedy = "check the folder that image paths are relative to"
    if unreadable == "error":
        raise RobustTuneError(f"{problem}: {remedy}, or set data.unreadable to absent")
    if len(missing) == rows.image_count:
        raise RobustTuneError(f"{problem}, and no other does: {remedy}")
    log.warning("%s; they are treated as missing images", problem)


def _refuse_empty_samples(rows: Rows, split: Split) -> None:
    """Raise an error if no sample has an image or a text."""
    if not any(rows.present(modality).any() for modality in MODALITIES):
        raise RobustTuneError(
            f"none of the {counted(len(rows), f'{split} sample')} has an image or a text: check the columns"
        )
