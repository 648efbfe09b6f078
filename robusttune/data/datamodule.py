"""The only data module: any source, any encoders, every split."""

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
    """Image-text samples of a source, as the encoders take them.

    Args:
        source: where the samples come from.
        image_encoder: its preprocessing is applied to images.
        text_encoder: its tokenizer is applied to texts.
        batch_size: samples a batch, on each device.
        workers: loader processes a device; by default the cores a device, at most 8, but none where a model that is
            trained on the CPU reads from the cache: to fork would cost more than to read.
        prefetch: batches that each worker loads ahead.
        splits: which samples are used: shots, base or new classes, what is held out, a subset.
        seed: of splits, order, corruption and random views.
        corruption: modality dropout in training.
        missing: sides that samples lack for good, by split.
        noise: on images and texts, by split; new in every epoch of training, else always the same for a sample.
        conditions: under which validation and test look at samples, by name (see `Conditions`); by default
            ``complete``, ``no_image`` and ``no_text``, or ``complete`` alone where no sample has both sides. What noise
            a condition has takes the place of the split's.
        augmentation: random views of images in training, instead of the clean transform.
        unreadable: what an image file that cannot be read is: an ``error``, or an ``absent`` image, counted.
        cache: folder in which what the encoders make of the samples is kept, so that it is computed once; ``auto`` for
            one in the user's cache, None to compute it in every epoch.
        cache_dtype: numbers in the cache: ``bfloat16`` takes half the room, ``float32`` is exact.
        cache_views: number of random views that the cache has of each training input, which the epochs take in turns,
            where augmentation or noise make random views.
        answers: what a test sample may be answered with: ``known``, the classes of training, and samples of others are
            refused; ``any``, those and the new ones of the test split, for a model that answers for any class name;
            ``own``, the classes of the test split alone, as is the custom on other data sets and domains.
        facts: of the checkpoint that is to be used; its class names and their order then hold for this data, too.

    Raises:
        RobustTuneError: a setting is out of its range.
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
        given = {
            "batch_size": (batch_size, 1),
            "prefetch": (prefetch, 1),
            "workers": (workers, 0),
            "seed": (seed, 0),
            "cache_views": (cache_views, 1),
        }
        for name, (value, least) in given.items():
            if value is not None and value < least:
                raise RobustTuneError(f"data.{name} is {value}: give at least {least}")
        if answers != "known" and source.multilabel:
            raise RobustTuneError(f"data.answers is {answers}, for samples of one class each: leave it at known")
        _refuse_what_cannot_be_cached(cache, cache_views, noise.train, augmentation)
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
        self._limit_said = False

    @cached_property
    def facts(self) -> Facts:
        """Class names in label order, their frequencies in training, and the kind of task."""
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
        """Names of the classes that a split's labels are numbered by, in order.

        They are those of the facts; of a test split, and where it is predicted, what ``answers`` says, where ``any``
        leaves those of the facts out if the split has none of them.

        Raises:
            RobustTuneError: it has a single new class and no other.
        """
        known = self.facts.class_names
        tested = split == "test" or (split == "predict" and self.given("predict") is None)
        if self.answers == "known" or not tested or self.given("test") is None:
            return known
        names = own = self._records.test_class_names
        if self.answers == "any":
            names = [*(known if {*known} & {*own} else []), *(name for name in own if name not in {*known})]
        if len(names) < 2:
            raise RobustTuneError(
                f"the {split} split has one class, {names[0]!r}, and two are needed: give it samples of others, too"
            )
        return names

    def conditions(self, split: Split) -> Conditions:
        """Under which a split is looked at."""
        if self.given_conditions is not None:
            return self.given_conditions
        table = self.records(split)
        both = table is None or presence(table)["complete"] > 0
        return Conditions(seed=self.seed) if both else Conditions(["complete"], self.seed)

    def check(self, stage: str) -> None:
        """Check labels and image files of the splits that a stage needs; before a fit, of all that there are.

        Raises:
            RobustTuneError: a split is missing, a label does not fit, an image file does not exist and must not be
                absent, or none exists.
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
            _refuse_nothing_but_blanks(table, split)
            if split != "predict":
                self._labels(table, split)
            self._look_for_images(table, split)

    def _look_for_images(self, table: pa.Table, split: Split) -> None:
        missing = self.source.images.missing(table["image"].to_pylist())
        if not missing:
            return
        what = (
            f"{counted(len(missing), 'image file')} of the {counted(len(table), f'{split} sample')} "
            f"{'does' if len(missing) == 1 else 'do'} not exist, the first is {missing[0]:.300}"
        )
        remedy = "check the folder that image paths are relative to"
        if self.unreadable == "error":
            raise RobustTuneError(f"{what}: {remedy}, or set data.unreadable to absent")
        if len(missing) == len(table) - table["image"].null_count:
            raise RobustTuneError(f"{what}, and no other does: {remedy}")
        log.warning("%s; they are taken for absent", what)

    def records(self, split: Split) -> pa.Table | None:
        """The split's records as they are used, see `SplitRecords`."""
        return self._records.used(split)

    def given(self, split: Split) -> pa.Table | None:
        """The split's records as the source has them, none of them left out."""
        return self._records.given(split)

    def describe(self, split: Split) -> dict[str, Any]:
        """How a split's samples were chosen and shown, as plain data, for a report."""
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
        """Write ``<split>.parquet`` for each of the masks, with its protocol and what it leaves; the folder is made."""
        for split in self.masks:
            self.write_mask(split, folder / f"{split}.parquet")

    def write_mask(self, split: Split, path: Path) -> None:
        """Write the mask of a split to a Parquet file, with its protocol and what it leaves."""
        about = {"split": split, "protocol": json.dumps(asdict(getattr(self.missing, split)))}
        left = {name: str(count) for name, count in presence(self.records(split)).items()}
        write_mask(path, self.masks[split], about | left)

    def untouched(self, split: Split) -> bool:
        """Whether samples of the split are shown as the source has them."""
        return getattr(self.missing, split) is None and getattr(self.noise, split) == SplitNoise()

    @property
    def masks(self) -> dict[Split, Mask]:
        """Of the splits that lack sides by protocol, as far as they were used."""
        return self._records.masks

    def setup(self, stage: str) -> None:
        self.check(stage)
        preprocessing, tokenizer = self.image_encoder.preprocessing(), self.text_encoder.tokenizer()
        for split in STAGE_SPLITS[stage]:
            training = split == "train"
            table = self.records(split)
            assert table is not None, "check has seen to it"
            rank_zero_info(self._tell(split, table))
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

    def _tell(self, split: Split, table: pa.Table) -> str:
        """How many samples there are, and how many of them have what."""
        has, mask = presence(table), self.masks.get(split)
        line = f"{split}: {counted(len(table), 'sample')}, {has['complete'] + has['image_only']} with image, "
        line += f"{has['complete'] + has['text_only']} with text"
        line += f", {has['neither']} with neither" if has["neither"] else ""
        return f"{line} (mask {mask.hash})" if mask else line

    def _noise(self, split: Split) -> tuple[dict[str, ImageNoise | None], dict[str, TextNoise | None]]:
        """Of each variant of the images and of the texts. Samples of the test split look the same when predicted."""
        own = split if split != "predict" or self.given("predict") is not None else "test"
        noise: SplitNoise = getattr(self.noise, own, SplitNoise())
        images, texts = self.conditions(split).noise if split in ("val", "test") else ({}, {})
        return {"clean": noise.image, **images}, {"clean": noise.text, **texts}

    def _labels(self, table: pa.Table, split: Split) -> list[list[int]]:
        return encode_labels(table, self.class_names(split), self.facts.multilabel, split)

    def fill_cache(self, stage: str, encoders: Mapping[str, FrozenEncoder]) -> None:
        """Where there is a cache, compute what it lacks of a stage's samples, and read from it from now on.

        Every rank must take part, after `setup`.

        Args:
            stage: of the Trainer.
            encoders: ``image_encoder`` and ``text_encoder``, in the precision and on the device of the Trainer.

        Raises:
            RobustTuneError: the cache cannot be written, or an image cannot be read and must not be absent.
        """
        if self.cache is None:
            return
        stop = self.unreadable == "error"
        settings: dict[Literal["images", "texts"], tuple[str, Encoder]] = {
            "images": ("image_encoder", self.image_encoder),
            "texts": ("text_encoder", self.text_encoder),
        }
        for what, (name, encoder) in settings.items():
            variants = [getattr(self._datasets[split], what) for split in STAGE_SPLITS[stage]]
            raw = [side for sides in variants for side in sides.values()]
            cached, unreadable = self.cache.fill(what, encoder, encoders[name], raw, self._running(), stop)
            if stop and any_over_ranks(bool(unreadable)):
                self._refuse_unreadable(unreadable)
            left = iter(cached)
            for sides in variants:
                sides.update({variant: next(left) for variant in sides})

    def train_dataloader(self) -> ResumableLoader:
        self._train_loader = ResumableLoader(**self._loader_args("train"))
        if self._resumed:
            self._train_loader.load_state_dict(self._resumed)
            self._resumed = {}
        return self._train_loader

    def val_dataloader(self) -> DataLoader[Sample]:
        return WatchedLoader(**self._loader_args("val"))

    def test_dataloader(self) -> DataLoader[Sample]:
        return WatchedLoader(**self._loader_args("test"))

    def predict_dataloader(self) -> DataLoader[Sample]:
        return WatchedLoader(**self._loader_args("predict"))

    def on_before_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Unreadable images are found by workers, and spoken of in the main process, on all ranks together.

        Raises:
            RobustTuneError: there are any, and they must not be taken for absent.
        """
        if self.unreadable == "error" and any_over_ranks(bool(batch.unreadable)):
            self._refuse_unreadable(batch.unreadable)
        self.tally.add(batch)
        return batch

    # Lightning restores a loader's own state too late: the learning rate schedule, which needs to know the number of
    # steps, has the loader made before that. So the data module hands it on.
    def state_dict(self) -> dict[str, int]:
        return {} if self._train_loader is None else self._train_loader.state_dict()

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        self._resumed = state_dict

    def teardown(self, stage: str) -> None:
        self.tally.tell()

    def on_exception(self, exception: BaseException) -> None:
        self.tally.tell_alone()

    def _refuse_unreadable(self, found: list[str]) -> NoReturn:
        images = pa.chunked_array([c for data in self._datasets.values() for c in data.records["image"].chunks])
        names = images.drop_null().unique().to_pylist()
        refuse_unreadable(names, self.source.images, found, threads=self._cores())

    def _loader_args(self, split: Split) -> dict[str, Any]:
        """By keyword, since Lightning may make the loader again."""
        trainer, data = self.trainer, self._datasets[split]
        sampler = ResumableSampler(
            len(data),
            shuffle=split == "train",
            seed=self.seed,
            rank=0 if trainer is None else trainer.global_rank,
            world_size=1 if trainer is None else trainer.world_size,
        )
        cached = all(isinstance(side, Cached) for side in (*data.images.values(), *data.texts.values()))
        on_cpu = trainer is None or trainer.strategy.root_device.type == "cpu"
        size = self._samples_a_batch(split)
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
        """Return workers of which the batches, of so many samples, fit into shared memory."""
        data, loaders = self._datasets[split], 1 if split in ("test", "predict") else 2  # training and validation
        a_sample = sum(side.most_bytes for side in (*data.images.values(), *data.texts.values()))
        a_sample += 8 * (len(self.facts.class_names) if self.facts.multilabel else 1)
        shares = loaders * (1 if self.trainer is None else self.trainer.num_devices)
        size = min(size, len(data))
        what = counted(size, f"{split} sample")
        return limited_by_memory(workers, a_sample * size, shares, self.workers is not None, what)

    def _samples_a_batch(self, split: Split) -> int:
        """Of inputs, in whatever variants, there are as many as ever: memory is what limits them."""
        data = self._datasets[split]
        variants = max(len(data.images), len(data.texts))
        size = max(1, self.batch_size // variants)
        if variants > 1:
            rank_zero_info(
                f"{split}: batches of {counted(size, 'sample')}, since each is looked at in {variants} variants"
            )
        return size

    def _running(self) -> Running:
        """How the Trainer runs an encoder."""
        if self.trainer is None:
            return Running("32-true", nullcontext, self._workers(), self._cores())
        plugin = self.trainer.precision_plugin
        return Running(str(plugin.precision), plugin.forward_context, self._workers(), self._cores())

    def _workers(self) -> int:
        """Loader processes for each device."""
        cores = self._cores()
        if self.workers is None:
            return min(8, cores)
        number = limited_by_cores(self.workers, cores, say=not self._limit_said)
        self._limit_said = True
        return number

    def _cores(self) -> int:
        """Cores for each device."""
        return cores_of_each(1 if self.trainer is None else self.trainer.num_devices)


def _refuse_what_cannot_be_cached(
    cache: str | None, views: int | None, noise: SplitNoise, augmentation: Augmentation | None
) -> None:
    """Random views of an input have no end, but a number of them can be kept."""
    if cache is None and views is not None:
        raise RobustTuneError(f"data.cache_views is {views}, and there is no cache: give data.cache, or leave it out")
    random = [f"data.noise.train.{side}" for side in ("image", "text") if getattr(noise, side) is not None]
    random += ["data.augmentation"] if augmentation is not None else []
    if cache is not None and views is None and random:
        raise RobustTuneError(
            f"{' and '.join(random)} make{'s' * (len(random) == 1)} new inputs in every epoch, which cannot be cached: "
            "set data.cache_views to a number of views to choose from, or leave data.cache out"
        )


def _refuse_nothing_but_blanks(table: pa.Table, split: Split) -> None:
    if table["image"].null_count == table["text"].null_count == len(table):
        raise RobustTuneError(
            f"none of the {counted(len(table), f'{split} sample')} has an image or a text: check the columns"
        )
