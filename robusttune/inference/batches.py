"""Batches of samples that a caller passes, by the same preprocessing as in training and tests."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import pyarrow as pa
import torch

from robusttune.corruption.conditions import Conditions
from robusttune.corruption.noise import NoiseBySplit
from robusttune.data.dataset import Collate, SampleDataset
from robusttune.data.images import ImageReader
from robusttune.data.preprocessed import Preprocessing
from robusttune.data.rows import Rows
from robusttune.data.settings import TrainingSettings
from robusttune.data.sources.base import to_table
from robusttune.encoders import ImageEncoder, TextEncoder
from robusttune.errors import RobustTuneError
from robusttune.inference.given_images import GivenImages
from robusttune.inference.given_rows import GivenRows
from robusttune.models.classifier import ENCODERS, Classifier
from robusttune.ranks import cores
from robusttune.types import Batch, Facts, Sample

ALL_PRESENT = Conditions(["complete"])
READERS = min(cores(), 8)  # threads that read images
FEWEST_ROWS = 8  # of a batch for each thread


class Prepared(NamedTuple):
    """A batch that is ready for a model.

    Attributes:
        batch: Batch of ``B`` samples.
        unreadable: For each sample the reason why its image cannot be read, or None.
    """

    batch: Batch
    unreadable: list[str | None]


class Batches:
    """A builder of batches for classifiers with the same encoders.

    Args:
        classifier: Classifier whose encoders and facts determine the preprocessing.
    """

    def __init__(self, classifier: Classifier) -> None:
        self.facts: Facts = classifier.facts
        image, text = (classifier.encoder_settings[name] for name in ENCODERS)
        assert isinstance(image, ImageEncoder)
        assert isinstance(text, TextEncoder)
        self.preprocessing = Preprocessing(image, text, TrainingSettings(), NoiseBySplit(), views=None, seed=0)

    def of(
        self, given: GivenRows, batch_size: int, device: torch.device, unreadable_as_missing: bool
    ) -> Iterator[Prepared]:
        """Yield the batches of samples in their order. The next one is prepared ahead if a core is idle meanwhile.

        Args:
            given: Samples.
            batch_size: Number of samples per batch, at least 1.
            device: Device of the batches.
            unreadable_as_missing: True to treat an image that cannot be read as missing, False to raise an error.

        Raises:
            RobustTuneError: An image cannot be read, or the batch size is below 1.
        """
        if batch_size < 1:
            raise RobustTuneError(f"batch_size is {batch_size}: give at least 1")
        images = GivenImages(given.images)
        table = to_table(images.record(row, text, None) for row, text in enumerate(given.texts))
        yield from self.of_table(table, images, batch_size, device, unreadable_as_missing)

    def of_table(
        self, table: pa.Table, images: ImageReader, batch_size: int, device: torch.device, unreadable_as_missing: bool
    ) -> Iterator[Prepared]:
        """Yield the batches of a table with the columns of `SCHEMA`, whose images a reader knows; see `of`."""
        data = self.preprocessing.dataset(Rows(table), images, None, "predict", "predict", ALL_PRESENT)
        collate = Collate(data.images, data.texts, self.facts, "predict")
        starts = range(0, len(data), batch_size)

        with ThreadPoolExecutor(READERS) as readers:  # starts no thread before it has work

            def prepare(start: int) -> Prepared:
                rows = range(start, min(start + batch_size, len(data)))
                return _prepare(_read(data, rows, readers), collate, unreadable_as_missing)

            # On a CPU whose cores all compute, another thread would only take their time.
            idle = device.type != "cpu" or torch.get_num_threads() < cores()
            for prepared in _ahead(prepare, starts) if idle and len(starts) > 1 else map(prepare, starts):
                yield prepared._replace(batch=prepared.batch.to(device))


def _read(data: SampleDataset, rows: Sequence[int], readers: ThreadPoolExecutor) -> list[Sample]:
    """Read some rows in parallel: decoding and resizing release the lock of the interpreter."""
    parts = min(READERS, len(rows) // FEWEST_ROWS)
    if parts < 2:
        return [data[row] for row in rows]
    chunks = [rows[len(rows) * part // parts : len(rows) * (part + 1) // parts] for part in range(parts)]
    read = readers.map(lambda chunk: [data[row] for row in chunk], chunks)
    return [sample for samples in read for sample in samples]


def _prepare(samples: list[Sample], collate: Collate, unreadable_as_missing: bool) -> Prepared:
    """Collate samples, see `Batches.of`."""
    unreadable = ["; ".join(sample.unreadable) or None for sample in samples]
    first = next((reason for reason in unreadable if reason is not None), None)
    if first is not None and not unreadable_as_missing:
        raise RobustTuneError(f"{first}: give another image, or None where it is missing")
    return Prepared(collate(samples), unreadable)


def _ahead(prepare: Any, starts: Sequence[int]) -> Iterator[Prepared]:
    """Yield the result of a function for each start, computed one ahead in a thread."""
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(prepare, starts[0])
        for start in starts[1:]:
            ready, waiting = waiting.result(), pool.submit(prepare, start)
            yield ready
        yield waiting.result()
