"""The loading of requested inputs: a data set that reads them, and their batches."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset

from robusttune.data.cache.requests import Requests
from robusttune.data.image_modality import unreadable_parts
from robusttune.data.images import UnreadableImageError
from robusttune.data.modalities import Inputs
from robusttune.data.workers import share

BATCH = 64  # number of inputs per forward pass


class RequestedInputs(Dataset[Any]):
    """A data set of requested inputs: their numbers, the inputs, and the reasons why images are unreadable.

    An unreadable input is None. An input of several images, of which some are unreadable, has a reason, too.

    Args:
        requests: All requested inputs.
        numbers: Numbers of the inputs of the data set, at least one.
    """

    def __init__(self, requests: Requests, numbers: NDArray[np.int64]) -> None:
        self.requests = requests
        self.numbers = numbers

    def __getitem__(self, index: int) -> tuple[int, Any, str | None]:
        number = int(self.numbers[index])
        item = self.requests[number]
        try:
            value = item.modality.read(item.row, item.view)
        except UnreadableImageError as error:
            return number, None, str(error)
        return number, value, "; ".join(unreadable_parts(value)) or None

    def __len__(self) -> int:
        return len(self.numbers)

    def collate(self, read: list[tuple[int, Any, str | None]]) -> tuple[list[int], Inputs, dict[int, str]]:
        """Collate inputs.

        Args:
            read: Items of the data set.

        Returns:
            Numbers of the readable inputs, these inputs in shared memory, and the reasons by number.
        """
        good = [(number, value) for number, value, _ in read if value is not None]
        problems = {number: problem for number, _, problem in read if problem is not None}
        modality = self.requests.modalities[0]  # all modalities of an encoder collate its inputs in the same way
        inputs = modality.collate([value for _, value in good])
        return [number for number, _ in good], inputs._replace(values=share(inputs.values)), problems


class Loading(NamedTuple):
    """A batch that is being loaded.

    Attributes:
        size: Number of inputs.
        is_last: Whether it is the last of its chunk.
    """

    size: int
    is_last: bool


class ChunkBatches:
    """The batches of some chunks for a loader: lists of indices into the inputs of all chunks.

    Args:
        chunks: Numbers of the requests of each chunk.
        skip: Function that returns whether a chunk is skipped. It is called when the loader reaches the chunk, so that
            a chunk which another job has computed in the meantime is not computed again.

    Attributes:
        loading: Batches that the loader has asked for. It returns them in the same order.
    """

    def __init__(self, chunks: list[NDArray[np.int64]], skip: Callable[[NDArray[np.int64]], bool]) -> None:
        self.chunks = chunks
        self.skip = skip
        self.loading: deque[Loading] = deque()

    def __iter__(self) -> Iterator[list[int]]:
        ends = itertools.accumulate(map(len, self.chunks))
        for chunk, end in zip(self.chunks, ends, strict=True):
            if self.skip(chunk):
                continue
            for first in range(end - len(chunk), end, BATCH):
                batch = list(range(first, min(first + BATCH, end)))
                self.loading.append(Loading(len(batch), is_last=first + BATCH >= end))
                yield batch
