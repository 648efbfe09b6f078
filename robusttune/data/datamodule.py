"""The data module: it connects a source, the encoders' preprocessing, degradations, caches and loaders."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NoReturn, get_args

import pyarrow as pa
import torch
from lightning.pytorch import LightningDataModule
from lightning.pytorch.utilities import rank_zero_info
from torch.utils.data import DataLoader

from robusttune.corruption.conditions import Conditions
from robusttune.corruption.dropout import ModalityDropout
from robusttune.corruption.missing import Mask, MissingBySplit
from robusttune.corruption.noise import ImageNoise, NoiseBySplit, SplitNoise, TextNoise
from robusttune.counting import counted
from robusttune.data.cache import Cached, FeatureCache, Running
from robusttune.data.dataset import Collate, SampleDataset
from robusttune.data.images import refuse_unreadable
from robusttune.data.labels import encode_labels, facts_of
from robusttune.data.look_alikes import look_alikes
from robusttune.data.mask_files import write_mask
from robusttune.data.modalities import Images, Pixels, Texts
from robusttune.data.records import SplitRecords, presence
from robusttune.data.sampler import ResumableLoader, ResumableSampler
from robusttune.data.sources.base import Source
from robusttune.data.splits import Splits
from robusttune.data.tally import Tally
from robusttune.data.workers import Shared, WatchedLoader, Workers, limited_by_cores, limited_by_memory
from robusttune.encoders import Augmentation, Encoder, FrozenEncoder, ImageEncoder, ImageTransform, TextEncoder
from robusttune.errors import RobustTuneError
from robusttune.interruption import leave_to_main
from robusttune.ranks import any_over_ranks, cores_of_each
from robusttune.types import Batch, Facts, Sample, Split

log = logging.getLogger(__name__)

STAGE_SPLITS: dict[str, list[Split]] = {
    "fit": ["train", "val"],
    "validate": ["val"],
    "test": ["test"],
    "predict": ["predict"],
}


class ImageTextDataModule(LightningDataModule):
    """The batches of image-text samples of a source, in the input format of the encoders.

    Args:
        source: Source of the samples: an on-disk layout or a data set.
        image_encoder: Image encoder; its preprocessing is applied to images.
        text_encoder: Text encoder; its tokenizer is applied to texts.
        batch_size: Number of samples per batch and device, at least 1.
        workers: Number of loader processes per device, at least 0. The default is the number of cores per device, at
            most 8, or 0 if a model on the CPU reads from the cache, where starting a process costs more than reading.
        prefetch: Number of batches that each worker loads ahead, at least 1.
        splits: Selection of samples: shots, base or new classes, held-out share, subset.
        seed: Seed of splits, sample order, modality dropout and random views, at least 0.
        corruption: Modality dropout in training.
        missing: Missing-modality protocols by split, which remove modalities permanently.
        noise: Noise on images and texts by split. Training draws it anew in every epoch; validation and test always
            give a sample the same noise.
        conditions: Names of the conditions of validation and test, see `Conditions`. The default is ``complete``,
            ``no_image`` and ``no_text``, or ``complete`` alone if no sample has both modalities. The noise of a
            condition replaces the noise of the split.
        augmentation: Random augmentation of training images, in place of the deterministic transform.
        unreadable: Treatment of unreadable image files: ``error`` stops the run, ``absent`` treats them as missing
            images and counts them.
        cache: Folder of the feature cache, so that the frozen encoders process each input once; ``auto`` for a folder
            in the user's cache, None to encode the inputs in every epoch.
        cache_dtype: Number format of the cache: ``bfloat16`` needs half the space, ``float32`` is exact.
        cache_views: Number of random views per training input in the cache, at least 1, which the epochs use
            alternately. It is required if augmentation or noise make random views of training inputs.
        answers: Classes that a test sample may be assigned to. ``known``: the training classes; samples of other
            classes are refused. ``any``: the training classes and the new classes of the test split, for a model that
            can predict any class name. ``own``: the classes of the test split only, as is usual for a transfer to
            other data sets and domains.
        facts: Facts of the checkpoint to use. Its class names and their order then apply to this data, too.

    Raises:
        RobustTuneError: A setting is out of its range, or two settings contradict each other.
    """

    def __init__(
        self,
        source: Source,
        image_encoder: ImageEncoder,
        text_encoder: TextEncoder,
        batch_size: int = 64,
        workers: int | None = None,
        prefetch: int = 2,
        splits: Splits = Splits(),  # noqa: B008, it is frozen
        seed: int = 0,
        corruption: ModalityDropout = ModalityDropout(),  # noqa: B008
        missing: MissingBySplit = MissingBySplit(),  # noqa: B008
        noise: NoiseBySplit = NoiseBySplit(),  # noqa: B008
        conditions: list[str] | None = None,
        augmentation: Augmentation | None = None,
        unreadable: Literal["error", "absent"] = "error",
        cache: str | None = None,
        cache_dtype: Literal["bfloat16", "float32"] = "bfloat16",
        cache_views: int | None = None,
        answers: Literal["known", "any", "own"] = "known",
        facts: Facts | None = None,
    ) -> None:
        super().__init__()
        minimums = {
            "batch_size": (batch_size, 1),
            "prefetch": (prefetch, 1),
            "workers": (workers, 0),
            "seed": (seed, 0),
            "cache_views": (cache_views, 1),
        }
        for name, (value, minimum) in minimums.items():
            if value is not None and value < minimum:
                raise RobustTuneError(f"data.{name} is {value}: give at least {minimum}")
        if answers != "known" and source.multilabel:
            raise RobustTuneError(f"data.answers is {answers}, for samples of one class each: leave it at known")
        _refuse_uncacheable_inputs(cache, cache_views, noise.train, augmentation)
        self.source = source
        self.image_encoder = image_encoder
        self.text_encoder = text_encoder
        self.batch_size = batch_size
        self.workers = workers
        self.prefetch = prefetch
        self.splits = splits
        self.seed = seed
        self.corruption = corruption
        self.missing = missing
        self.noise = noise
        self.given_conditions = None if conditions is None else Conditions(conditions, seed)
        self.augmentation = augmentation
        self.unreadable = unreadable
        self.cache = None if cache is None else FeatureCache(cache, cache_dtype)
        self.cache_views = cache_views
        self.answers = answers
        self.given_facts = facts
        self.tally = Tally()
        self._records = SplitRecords(source, splits, missing, answers != "known", seed)
        self._datasets: dict[Split, SampleDataset] = {}
        self._train_loader: ResumableLoader | None = None
        self._resumed: dict[str, int] = {}
        self._core_limit_logged = False

    @cached_property
    def facts(self) -> Facts:
        """Return the class names in label order, their frequencies in training, and the kind of task.

        Raises:
            RobustTuneError: There is neither a training split nor a checkpoint, or the checkpoint's kind of task
                (multi-class or multi-label) differs from that of the data.
        """
        if self.given_facts is not None:
            if self.given_facts.multilabel != self.source.multilabel:
                raise RobustTuneError(
                    f"the checkpoint was trained with multilabel {self.given_facts.multilabel}, and the data say "
                    f"{self.source.multilabel}: test it on data of its own kind"
                )
            return self.given_facts
        train = self.records("train")
        if train is None:
            raise RobustTuneError("there is no training split to learn the classes from: give one, or a checkpoint")
        return facts_of(train, self._records.class_names, self.source.multilabel)

    def class_names(self, split: Split) -> list[str]:
        """Return the names of the classes that the label indices of a split refer to, in order.

        Usually they are the class names of the facts. For a test split, also when it is predicted, the setting
        ``answers`` decides; with ``any``, the training classes are left out if the test split has none of them.

        Raises:
            RobustTuneError: The test split has a single class, so there is nothing to decide.
        """
        known = self.facts.class_names
        tested = split == "test" or (split == "predict" and self.source_table("predict") is None)
        if self.answers == "known" or not tested or self.source_table("test") is None:
            return known
        names = test_classes = self._records.test_class_names
        if self.answers == "any":
            new = [name for name in test_classes if name not in {*known}]
            names = [*(known if {*known} & {*test_classes} else []), *new]
        if len(names) < 2:
            raise RobustTuneError(
                f"the {split} split has one class, {names[0]!r}, and two are needed: give it samples of others, too"
            )
        return names

    def conditions(self, split: Split) -> Conditions:
        """Return the evaluation conditions of a split."""
        if self.given_conditions is not None:
            return self.given_conditions
        table = self.records(split)
        both = table is None or presence(table)["complete"] > 0
        return Conditions(seed=self.seed) if both else Conditions(["complete"], self.seed)

    def check(self, stage: str) -> None:
        """Check the labels and image files of the splits that a stage needs; before a fit, those of all splits.

        Args:
            stage: Stage of the Trainer: ``fit``, ``validate``, ``test`` or ``predict``.

        Raises:
            RobustTuneError: A split is missing, a label is invalid, no sample has an image or a text, an image file
                does not exist with ``unreadable`` set to ``error``, or no image file exists.
        """
        if stage == "fit" and self.source.validates_on_test:
            log.warning(
                "by its own convention this data set validates on test samples, and the best checkpoint is chosen by "
                "them: to be sure, test the last one"
            )
        for split in STAGE_SPLITS[stage]:
            if self.records(split) is None:
                raise RobustTuneError(f"the data has no {split} split: give one to data.source")
        alike = look_alikes(self.facts.class_names) if stage == "fit" else None
        if alike is not None:
            log.warning("%s: correct the labels, unless they are different classes", alike)
        for split in get_args(Split) if stage == "fit" else STAGE_SPLITS[stage]:
            table = self.records(split)
            if table is None:
                continue
            _refuse_empty_samples(table, split)
            if split != "predict":
                self._labels(table, split)
            self._check_image_files(table, split)

    def _check_image_files(self, table: pa.Table, split: Split) -> None:
        """Raise an error or log a warning if image files of a split do not exist."""
        missing = self.source.images.missing(table["image"].to_pylist())
        if not missing:
            return
        problem = (
            f"{counted(len(missing), 'image file')} of the {counted(len(table), f'{split} sample')} "
            f"{'does' if len(missing) == 1 else 'do'} not exist, the first is {missing[0]:.300}"
        )
        remedy = "check the folder that image paths are relative to"
        if self.unreadable == "error":
            raise RobustTuneError(f"{problem}: {remedy}, or set data.unreadable to absent")
        if len(missing) == len(table) - table["image"].null_count:
            raise RobustTuneError(f"{problem}, and no other does: {remedy}")
        log.warning("%s; they are taken for absent", problem)

    def records(self, split: Split) -> pa.Table | None:
        """Return the table of a split as it is used, or None; see `SplitRecords`."""
        return self._records.table(split)

    def source_table(self, split: Split) -> pa.Table | None:
        """Return the table of a split with all samples of the source, or None if there is no such split."""
        return self._records.source_table(split)

    def describe(self, split: Split) -> dict[str, Any]:
        """Return the settings and counts of a split (selection, noise, mask, samples) as plain data, for a report."""
        table, protocol, noise = self.records(split), getattr(self.missing, split), getattr(self.noise, split)
        return {
            "splits": asdict(self.splits),
            "answers": self.answers,
            "seed": self.seed,
            "noise": asdict(noise),
            "missing": None if protocol is None else asdict(protocol),
            "mask": None if protocol is None else self.masks[split].hash,
            "samples": None if table is None else presence(table),
        }

    def write_masks(self, folder: Path) -> None:
        """Write ``<split>.parquet`` for each mask, see `write_mask`.

        Args:
            folder: Folder of the files. It is created if it does not exist.
        """
        for split in self.masks:
            self.write_mask(split, folder / f"{split}.parquet")

    def write_mask(self, split: Split, path: Path) -> None:
        """Write the mask of a split to a Parquet file, with its protocol and the counts of present modalities.

        Args:
            split: Split that has a mask.
            path: Path of the file.

        Raises:
            KeyError: The split has no mask.
        """
        about = {"split": split, "protocol": json.dumps(asdict(getattr(self.missing, split)))}
        counts = {name: str(count) for name, count in presence(self.records(split)).items()}
        write_mask(path, self.masks[split], about | counts)

    def is_unchanged(self, split: Split) -> bool:
        """Return whether a split has neither a missing-modality protocol nor noise."""
        return getattr(self.missing, split) is None and getattr(self.noise, split) == SplitNoise()

    @property
    def masks(self) -> dict[Split, Mask]:
        """Return the masks of the splits that have a missing-modality protocol and were used so far."""
        return self._records.masks

    def setup(self, stage: str) -> None:
        """Check the data and create the data sets of a stage.

        Args:
            stage: Stage of the Trainer: ``fit``, ``validate``, ``test`` or ``predict``.

        Raises:
            RobustTuneError: The data is not valid, see `check`.
        """
        self.check(stage)
        preprocessing, tokenizer = self.image_encoder.preprocessing(), self.text_encoder.tokenizer()
        for split in STAGE_SPLITS[stage]:
            training = split == "train"
            table = self.records(split)
            assert table is not None, "check refuses a stage without its splits"
            rank_zero_info(self._summary(split, table))
            views = self.cache_views if training else 1
            transform = ImageTransform(preprocessing, self.augmentation if training else None)
            pixels = Pixels(table, self.source.images, transform)
            images, texts = self._noise(split)
            self._datasets[split] = SampleDataset(
                table,
                None if split == "predict" else self._labels(table, split),
                {name: Images(table, pixels, noise, self.seed, views) for name, noise in images.items()},
                {name: Texts(table, tokenizer, noise, self.seed, views) for name, noise in texts.items()},
                self.corruption if training else None,
                self.seed,
            )

    def _summary(self, split: Split, table: pa.Table) -> str:
        """Return a log line with the number of samples, of images and of texts."""
        counts, mask = presence(table), self.masks.get(split)
        line = f"{split}: {counted(len(table), 'sample')}, {counts['complete'] + counts['image_only']} with image, "
        line += f"{counts['complete'] + counts['text_only']} with text"
        line += f", {counts['neither']} with neither" if counts["neither"] else ""
        return f"{line} (mask {mask.hash})" if mask else line

    def _noise(self, split: Split) -> tuple[dict[str, ImageNoise | None], dict[str, TextNoise | None]]:
        """Return the noise of each variant of the images, and of each variant of the texts.

        If the ``predict`` split is the test split, it gets the noise of the test split.
        """
        noise_split = split if split != "predict" or self.source_table("predict") is not None else "test"
        noise: SplitNoise = getattr(self.noise, noise_split, SplitNoise())
        images, texts = self.conditions(split).noise if split in ("val", "test") else ({}, {})
        return {"clean": noise.image, **images}, {"clean": noise.text, **texts}

    def _labels(self, table: pa.Table, split: Split) -> list[list[int]]:
        """Return the class indices of each row, see `encode_labels`."""
        return encode_labels(table, self.class_names(split), self.facts.multilabel, split)

    def fill_cache(self, stage: str, encoders: Mapping[str, FrozenEncoder]) -> None:
        """Compute the features that the cache lacks for a stage, and read features from the cache from now on.

        Nothing happens without a cache. Call it after `setup`; every rank must take part.

        Args:
            stage: Stage of the Trainer: ``fit``, ``validate``, ``test`` or ``predict``.
            encoders: Encoders with the keys ``image_encoder`` and ``text_encoder``, on the device of the Trainer.

        Raises:
            RobustTuneError: The cache cannot be written, or an image is unreadable with ``unreadable`` set to
                ``error``.
        """
        if self.cache is None:
            return
        stop = self.unreadable == "error"
        settings: dict[Literal["images", "texts"], tuple[str, Encoder]] = {
            "images": ("image_encoder", self.image_encoder),
            "texts": ("text_encoder", self.text_encoder),
        }
        for kind, (name, encoder) in settings.items():
            variants = [getattr(self._datasets[split], kind) for split in STAGE_SPLITS[stage]]
            raw = [modality for by_variant in variants for modality in by_variant.values()]
            cached, unreadable = self.cache.fill(kind, encoder, encoders[name], raw, self._running(), stop)
            if stop and any_over_ranks(bool(unreadable)):
                self._refuse_unreadable(unreadable)
            remaining = iter(cached)
            for by_variant in variants:
                by_variant.update({variant: next(remaining) for variant in by_variant})

    def train_dataloader(self) -> ResumableLoader:
        """Return a loader of the training split, at the position of a resumed checkpoint if there is one."""
        self._train_loader = ResumableLoader(**self._loader_args("train"))
        if self._resumed:
            self._train_loader.load_state_dict(self._resumed)
            self._resumed = {}
        return self._train_loader

    def val_dataloader(self) -> DataLoader[Sample]:
        """Return a loader of the validation split, in the order of its rows."""
        return WatchedLoader(**self._loader_args("val"))

    def test_dataloader(self) -> DataLoader[Sample]:
        """Return a loader of the test split, in the order of its rows."""
        return WatchedLoader(**self._loader_args("test"))

    def predict_dataloader(self) -> DataLoader[Sample]:
        """Return a loader of the samples to predict, in the order of their rows."""
        return WatchedLoader(**self._loader_args("predict"))

    def on_before_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Count the batch's unreadable images and cut texts, or stop the run on all ranks together.

        Workers find unreadable images, but only the main process can raise the error on all ranks.

        Raises:
            RobustTuneError: A rank has an unreadable image, and ``unreadable`` is ``error``.
        """
        if self.unreadable == "error" and any_over_ranks(bool(batch.unreadable)):
            self._refuse_unreadable(batch.unreadable)
        self.tally.add(batch)
        return batch

    # Lightning restores the state of a loader too late: the learning rate schedule needs the number of steps, so the
    # loader exists before. Therefore the data module saves the state and passes it on.
    def state_dict(self) -> dict[str, int]:
        """Return the state of the training loader, see `ResumableLoader`; empty if there is no loader."""
        return {} if self._train_loader is None else self._train_loader.state_dict()

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Keep the state of a checkpoint for the next training loader."""
        self._resumed = state_dict

    def teardown(self, stage: str) -> None:
        """Log the counts of unreadable images and cut texts."""
        self.tally.log()

    def on_exception(self, exception: BaseException) -> None:
        """Log the counts of this rank alone, since the other ranks may no longer take part."""
        self.tally.log_local()

    def _refuse_unreadable(self, found: list[str]) -> NoReturn:
        """Check all images of the data sets in use, and raise an error that counts the unreadable ones."""
        images = pa.chunked_array([c for data in self._datasets.values() for c in data.records["image"].chunks])
        names = images.drop_null().unique().to_pylist()
        refuse_unreadable(names, self.source.images, found, threads=self._cores())

    def _loader_args(self, split: Split) -> dict[str, Any]:
        """Return the arguments of a split's loader. They are keywords, since Lightning may create the loader again."""
        trainer, data = self.trainer, self._datasets[split]
        sampler = ResumableSampler(
            len(data),
            shuffle=split == "train",
            seed=self.seed,
            rank=0 if trainer is None else trainer.global_rank,
            world_size=1 if trainer is None else trainer.world_size,
        )
        cached = all(isinstance(inputs, Cached) for inputs in (*data.images.values(), *data.texts.values()))
        on_cpu = trainer is None or trainer.strategy.root_device.type == "cpu"
        size = self._samples_per_batch(split)
        number = 0 if cached and on_cpu and self.workers is None else min(self._workers(), -(-len(sampler) // size))
        workers = self._limited(split, Workers(number, self.prefetch), size)
        return {
            "dataset": data,
            "sampler": sampler,
            "batch_size": size,
            "collate_fn": Shared(Collate(data.images, data.texts, self.facts, split)),
            "num_workers": workers.number,
            "persistent_workers": workers.number > 0,
            "worker_init_fn": leave_to_main,
            "prefetch_factor": workers.prefetch if workers.number > 0 else None,
            "pin_memory": torch.cuda.is_available(),
        }

    def _limited(self, split: Split, workers: Workers, size: int) -> Workers:
        """Return workers with batches of ``size`` samples that fit into shared memory."""
        data, loaders = self._datasets[split], 1 if split in ("test", "predict") else 2  # training and validation
        sample_bytes = sum(inputs.most_bytes for inputs in (*data.images.values(), *data.texts.values()))
        sample_bytes += 8 * (len(self.facts.class_names) if self.facts.multilabel else 1)
        machine_loaders = loaders * (1 if self.trainer is None else self.trainer.num_devices)
        size = min(size, len(data))
        contents = counted(size, f"{split} sample")
        return limited_by_memory(workers, sample_bytes * size, machine_loaders, self.workers is not None, contents)

    def _samples_per_batch(self, split: Split) -> int:
        """Divide the batch size by the number of noise variants, at least 1, so that memory stays constant."""
        data = self._datasets[split]
        variants = max(len(data.images), len(data.texts))
        size = max(1, self.batch_size // variants)
        if variants > 1:
            rank_zero_info(
                f"{split}: batches of {counted(size, 'sample')}, since each is looked at in {variants} variants"
            )
        return size

    def _running(self) -> Running:
        """Return the Trainer's settings for running an encoder: precision, workers and threads."""
        if self.trainer is None:
            return Running("32-true", nullcontext, self._workers(), self._cores())
        plugin = self.trainer.precision_plugin
        return Running(str(plugin.precision), plugin.forward_context, self._workers(), self._cores())

    def _workers(self) -> int:
        """Return the number of loader processes per device."""
        cores = self._cores()
        if self.workers is None:
            return min(8, cores)
        number = limited_by_cores(self.workers, cores, say=not self._core_limit_logged)
        self._core_limit_logged = True
        return number

    def _cores(self) -> int:
        """Return the number of cores per device."""
        return cores_of_each(1 if self.trainer is None else self.trainer.num_devices)


def _refuse_uncacheable_inputs(
    cache: str | None, views: int | None, noise: SplitNoise, augmentation: Augmentation | None
) -> None:
    """Raise an error if training has random views and a cache, but no fixed number of views to cache."""
    if cache is None and views is not None:
        raise RobustTuneError(f"data.cache_views is {views}, and there is no cache: give data.cache, or leave it out")
    random = [f"data.noise.train.{modality}" for modality in ("image", "text") if getattr(noise, modality) is not None]
    random += ["data.augmentation"] if augmentation is not None else []
    if cache is not None and views is None and random:
        raise RobustTuneError(
            f"{' and '.join(random)} make{'s' * (len(random) == 1)} new inputs in every epoch, which cannot be cached: "
            "set data.cache_views to a number of views to choose from, or leave data.cache out"
        )


def _refuse_empty_samples(table: pa.Table, split: Split) -> None:
    """Raise an error if no sample of the table has an image or a text."""
    if table["image"].null_count == table["text"].null_count == len(table):
        raise RobustTuneError(
            f"none of the {counted(len(table), f'{split} sample')} has an image or a text: check the columns"
        )
