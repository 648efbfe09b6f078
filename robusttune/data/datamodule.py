"""The data module: it connects a source, preprocessing, noise, missing modalities, the feature cache and loaders."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NoReturn

import pyarrow as pa
from lightning.pytorch import LightningDataModule
from lightning.pytorch.utilities import rank_zero_info
from torch.utils.data import DataLoader

from robusttune.corruption.conditions import Conditions
from robusttune.corruption.masks import Mask
from robusttune.corruption.missing import MissingBySplit
from robusttune.corruption.noise import NoiseBySplit
from robusttune.data.cache import CachedEncoder, EncodingSettings, FeatureCache
from robusttune.data.checks import check_stage, refuse_uncacheable_inputs
from robusttune.data.dataset import SampleDataset
from robusttune.data.description import summary_line
from robusttune.data.images import refuse_unreadable
from robusttune.data.label_set import LabelSet
from robusttune.data.loaders import Loaders, Processes
from robusttune.data.preprocessed import Preprocessing
from robusttune.data.records import SplitRecords, presence
from robusttune.data.rows import Rows
from robusttune.data.sampler import ResumableLoader
from robusttune.data.settings import CacheSettings, EvaluationSettings, LoaderSettings, TrainingSettings
from robusttune.data.sources.base import Source
from robusttune.data.splits import Splits
from robusttune.data.streaming.checks import refuse_unsupported
from robusttune.data.streaming.loader import StreamLoader
from robusttune.data.streaming.training import refuse_streamed, stream_loader, stream_summary
from robusttune.data.streaming.training_stream import TrainingStream
from robusttune.data.tally import Tally
from robusttune.encoders import FrozenEncoder, ImageEncoder, TextEncoder
from robusttune.errors import RobustTuneError
from robusttune.ranks import any_over_ranks
from robusttune.types import STAGE_SPLITS, Batch, Facts, Sample, Split


class ImageTextDataModule(LightningDataModule):
    """The batches of image-text samples of a source, in the input format of the encoders.

    Args:
        source: Source of the samples: an on-disk layout or a data set.
        image_encoder: Image encoder; its preprocessing is applied to images.
        text_encoder: Text encoder; its tokenizer is applied to texts.
        batch_size: Number of samples per batch and device, at least 1.
        loader: Loader processes.
        splits: Selection of samples: shots, base or new classes, held-out share, subset.
        seed: Seed of splits, sample order, modality dropout and random views, at least 0.
        training: Modality dropout, augmentation and class balance of training samples.
        missing: Missing-modality protocols by split, which remove modalities permanently.
        noise: Noise on images and texts by split. Training draws it anew in every epoch; validation and test always
            give a sample the same noise.
        evaluation: Conditions of validation and test, and classes of the test split.
        cache: Feature cache: the frozen encoders process each input once.
        unreadable: Treatment of unreadable image files: ``error`` stops the run, ``absent`` treats them as missing
            images and counts them.
        facts: Facts of the checkpoint to use. Its class names and their order then apply to this data, too.

    Attributes:
        label_set: Classes of the data.
        feature_cache: Feature cache, or None if there is none.

    Raises:
        RobustTuneError: A setting is out of its range, or two settings contradict each other.

    Example:
        >>> from robusttune.data.sources import Shapes
        >>> from robusttune.encoders import TransformersImageEncoder, TransformersTextEncoder
        >>> name = "robusttune:demo_clip"
        >>> encoders = TransformersImageEncoder(name=name), TransformersTextEncoder(name=name)
        >>> data = ImageTextDataModule(Shapes(), *encoders, loader=LoaderSettings(workers=0))
        >>> data.facts.class_names[:2]
        ['red circle', 'orange square']
    """

    def __init__(
        self,
        source: Source,
        image_encoder: ImageEncoder,
        text_encoder: TextEncoder,
        batch_size: int = 64,
        loader: LoaderSettings = LoaderSettings(),  # noqa: B008, it is frozen
        splits: Splits = Splits(),  # noqa: B008
        seed: int = 0,
        training: TrainingSettings = TrainingSettings(),  # noqa: B008
        missing: MissingBySplit = MissingBySplit(),  # noqa: B008
        noise: NoiseBySplit = NoiseBySplit(),  # noqa: B008
        evaluation: EvaluationSettings = EvaluationSettings(),  # noqa: B008
        cache: CacheSettings = CacheSettings(),  # noqa: B008
        unreadable: Literal["error", "absent"] = "error",
        facts: Facts | None = None,
    ) -> None:
        super().__init__()
        refuse_uncacheable_inputs(cache, noise.train, training.augmentation)
        self._stream = source.training_stream
        if self._stream is not None:
            refuse_unsupported(self._stream, splits, training, missing, cache)
        self.source = source
        self.image_encoder = image_encoder
        self.text_encoder = text_encoder
        self.batch_size = batch_size
        self.splits = splits
        self.seed = seed
        self.training = training
        self.missing = missing
        self.noise = noise
        self.evaluation = evaluation
        self.cache = cache
        self.unreadable = unreadable
        self.tally = Tally()
        self._images = source.images
        steps = (image_encoder, text_encoder, training, noise, cache.views, seed)
        self.preprocessing = Preprocessing(*steps)
        self.loaders = Loaders(loader, batch_size, seed, training.balance)
        self._records = SplitRecords(source, splits, missing, evaluation.classes != "training", seed)
        self.label_set = LabelSet(self._records, facts, evaluation.classes)
        self.feature_cache = None if cache.folder is None else FeatureCache(cache.folder, cache.dtype)
        self._conditions = None if evaluation.conditions is None else Conditions(evaluation.conditions, seed)
        self._datasets: dict[Split, SampleDataset] = {}
        self._train_loader: ResumableLoader | StreamLoader | None = None
        self._resumed: dict[str, Any] = {}

    @property
    def facts(self) -> Facts:
        """The class names in label order, their frequencies in training, and the kind of task; see `LabelSet`."""
        return self.label_set.facts

    def class_names(self, split: Split) -> list[str]:
        """Return the names of the classes that the label indices of a split refer to; see `LabelSet`."""
        return self.label_set.names(split)

    def conditions(self, split: Split) -> Conditions:
        """Return the evaluation conditions of a split."""
        if self._conditions is not None:
            return self._conditions
        rows = self.rows(split)
        both = rows is None or presence(rows)["complete"] > 0
        return Conditions(seed=self.seed) if both else Conditions(["complete"], self.seed)

    def check(self, stage: str) -> None:
        """Check the data of a stage, see `check_stage`."""
        check_stage(stage, self._records, self.label_set, self.unreadable)

    def rows(self, split: Split) -> Rows | None:
        """Return the rows of a split as it is used, or None; see `SplitRecords`."""
        return self._records.rows(split)

    def records(self, split: Split) -> pa.Table | None:
        """Return the rows of a split as a table, or None. It is a copy in memory if the split is part of a table."""
        return self._records.table(split)

    def source_table(self, split: Split) -> pa.Table | None:
        """Return the table of a split with all samples of the source, or None if there is no such split."""
        return self._records.source_table(split)

    @property
    def masks(self) -> dict[Split, Mask]:
        """The masks of the splits that have a missing-modality protocol and were used so far."""
        return self._records.masks

    def setup(self, stage: str) -> None:
        """Check the data and create the data sets of a stage; see `check_stage` for arguments and errors."""
        self.check(stage)
        for split in STAGE_SPLITS[stage]:
            if split == "train" and self._stream is not None:
                rank_zero_info(stream_summary(self._stream, self.facts, self.missing.train))
                continue
            rows = self.rows(split)
            assert rows is not None, "check refuses a stage without its splits"
            rank_zero_info(summary_line(split, rows, self.masks.get(split)))
            labels = None if split == "predict" else self.label_set.indices(rows, split)
            settings = (split, self._records.origin(split), self.conditions(split))
            self._datasets[split] = self.preprocessing.dataset(rows, self._images, labels, *settings)

    def fill_cache(self, stage: str, encoders: Mapping[str, FrozenEncoder]) -> None:
        """Compute the features that the cache lacks for a stage, and read features from the cache from now on.

        The features of an encoder with low-rank adaptation are not cached. Nothing happens without a cache. Call it
        after `setup`; every rank must take part.

        Args:
            stage: Stage of the Trainer: ``fit``, ``validate``, ``test`` or ``predict``.
            encoders: Encoders with the keys ``image_encoder`` and ``text_encoder``, on the device of the Trainer.

        Raises:
            RobustTuneError: The cache cannot be written, or an image is unreadable with ``unreadable`` set to
                ``error``.
        """
        if self.feature_cache is None:
            return
        cores = Processes.of(self.trainer).cores
        keep = not self.loaders.settings.workers  # Workers that the user asks for read the features from files.
        running = EncodingSettings.of(self.trainer, self.loaders.workers(cores), cores, keep)
        data_sets = [self._datasets[split] for split in STAGE_SPLITS[stage]]
        towers = [
            CachedEncoder("images", self.image_encoder, encoders["image_encoder"]),
            CachedEncoder("texts", self.text_encoder, encoders["text_encoder"]),
        ]
        for tower in towers:
            if tower.settings.is_adapted:
                rank_zero_info(f"the features of {tower.kind} are not cached, because lora changes their encoder")
        towers = [tower for tower in towers if not tower.settings.is_adapted]
        refuse = self._refuse_unreadable if self.unreadable == "error" else None
        self.feature_cache.replace_inputs(data_sets, towers, running, refuse)

    def train_dataloader(self) -> ResumableLoader | StreamLoader:
        """Return a loader of the training split, at the position of a resumed checkpoint if there is one."""
        loader = self._loader("train") if self._stream is None else self._streaming(self._stream)
        assert isinstance(loader, ResumableLoader | StreamLoader)
        self._train_loader = loader
        if self._resumed:
            if ("steps" in self._resumed) != isinstance(loader, StreamLoader):
                raise RobustTuneError(
                    "the training samples are a stream, and were none when the checkpoint was taken, or the other way "
                    "round: resume with the same data.source.stream"
                )
            self._train_loader.load_state_dict(self._resumed)
            self._resumed = {}
        return self._train_loader

    def complete_dataloader(self) -> DataLoader[Sample]:
        """Return a loader of the training split in the order of its rows, without modality dropout.

        Raises:
            RobustTuneError: The training samples are a stream.
        """
        if self._stream is not None:
            raise RobustTuneError(
                "model.fusion is fitted to all training samples at once, and data.source.stream reads them while "
                "training: leave it out, or give another model.fusion"
            )
        complete = self._datasets["train"].complete()
        return self.loaders.build(complete, "train", self.facts, Processes.of(self.trainer), shuffle=False)

    def held_out_dataloader(self) -> DataLoader[Sample] | None:
        """Return a loader of the validation split if its samples were held out of training; otherwise None.

        It is None, too, if the number of training samples is a setting.
        """
        if self._records.source_rows("val") is not None or self.splits.shots is not None:
            return None
        return self._loader("val")

    def val_dataloader(self) -> DataLoader[Sample]:
        """Return a loader of the validation split, in the order of its rows."""
        return self._loader("val")

    def test_dataloader(self) -> DataLoader[Sample]:
        """Return a loader of the test split, in the order of its rows."""
        return self._loader("test")

    def predict_dataloader(self) -> DataLoader[Sample]:
        """Return a loader of the samples to predict, in the order of their rows."""
        return self._loader("predict")

    def on_before_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Count the batch's unreadable images and cut texts, or stop the run on all ranks together.

        Workers find unreadable images, but only the main process can raise the error on all ranks.

        Raises:
            RobustTuneError: A rank has an unreadable image, and ``unreadable`` is ``error``.
        """
        loader = self._train_loader if batch.split == "train" else None
        if self.unreadable == "error" and any_over_ranks(bool(batch.unreadable)):
            if isinstance(loader, StreamLoader):
                refuse_streamed(batch.unreadable)
            self._refuse_unreadable(batch.unreadable)
        self.tally.add(batch)
        if isinstance(loader, StreamLoader):
            loader.used()
        return batch

    # Lightning restores the state of a loader too late: the learning rate schedule needs the number of steps, so the
    # loader exists before. Therefore the data module saves the state and passes it on.
    def state_dict(self) -> dict[str, Any]:
        """Return the state of the training loader; empty if there is no loader."""
        return {} if self._train_loader is None else self._train_loader.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
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
        names = list(dict.fromkeys(name for data in self._datasets.values() for name in data.records.all_images()))
        refuse_unreadable(names, self.source.images, found, threads=Processes.of(self.trainer).cores)

    def _streaming(self, stream: TrainingStream) -> StreamLoader:
        """Return the loader of streamed training samples.

        Raises:
            RobustTuneError: The Trainer is to overfit a few batches, which must then be the same ones in each epoch.
        """
        if getattr(self.trainer, "overfit_batches", 0) > 0:
            raise RobustTuneError("trainer.overfit_batches needs a table, and data.source.stream is set: leave one out")
        settings = (self.preprocessing, self.missing.train, self.facts, self.loaders, Processes.of(self.trainer))
        return stream_loader(stream, *settings, lambda: 0 if self.trainer is None else self.trainer.current_epoch)

    def _loader(self, split: Split) -> DataLoader[Sample]:
        """Return the loader of a split."""
        data, shuffle = self._datasets[split], split == "train"
        return self.loaders.build(data, split, self.facts, Processes.of(self.trainer), shuffle)
