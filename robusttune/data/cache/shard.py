"""A shard: one safetensors file with the features of some inputs, checked by checksums and read by the input."""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save
from torch import Tensor

from robusttune.errors import RobustTuneError
from robusttune.paths import whole_file
from robusttune.types import Encoded, Widths

Array = NDArray[Any]
SUFFIX = ".safetensors"
BLOCK = 1 << 22  # bytes read at once for a checksum
NUMPY = {"BF16": "<u2", "F32": "<f4", "U8": "u1", "I32": "<i4"}  # numpy has no bfloat16: its bits


class DamagedShardError(Exception):
    """Says what is wrong with a shard."""


class Row(NamedTuple):
    """The features of one input.

    Attributes:
        key: of the input, 16 bytes.
        numbers: the pooled embedding, then the real tokens of one layer after the other; flat.
        counts: number of real tokens in each layer.
        cut: whether the input was longer than the encoder takes.
    """

    key: bytes
    numbers: Tensor
    counts: list[int]
    cut: bool


def rows_of(encoded: Encoded, keys: list[bytes], cut: list[bool], dtype: torch.dtype) -> Iterator[Row]:
    """The rows of an encoder's output, without padding."""
    kept = encoded.map(lambda tensor: (tensor.to(dtype) if tensor.is_floating_point() else tensor).cpu())
    for i, (key, was_cut) in enumerate(zip(keys, cut, strict=True)):
        real = [tokens[i][mask[i]] for tokens, mask in zip(kept.tokens, kept.mask, strict=True)]
        numbers = torch.cat([kept.pooled[i], *(tokens.flatten() for tokens in real)])
        yield Row(key, numbers, [len(tokens) for tokens in real], was_cut)


def write_shard(path: Path, fingerprint: str, rows: list[Row]) -> None:
    """Write a shard, so that it is whole or not there.

    Raises:
        OSError: it cannot be written.
    """
    tensors = {
        "numbers": torch.cat([row.numbers for row in rows]),
        "keys": torch.frombuffer(bytearray(b"".join(row.key for row in rows)), dtype=torch.uint8).view(len(rows), -1),
        "counts": torch.tensor([row.counts for row in rows], dtype=torch.int32),
        "cut": torch.tensor([row.cut for row in rows], dtype=torch.uint8),
    }
    about = {name: str(zlib.crc32(tensor.view(torch.uint8).numpy().data)) for name, tensor in tensors.items()}
    with whole_file(path) as partial:
        partial.write_bytes(save(tensors, {"fingerprint": fingerprint, **about}))


@dataclass
class Shard:
    """Where the numbers of a shard's inputs lie.

    Attributes:
        path: of the file.
        keys: of the inputs.
        counts: (E, M) number of real tokens of each input in each layer.
        cut: (E,) whether the input was cut.
        start: byte at which the numbers begin.
        dtype: of the numbers, as numpy has it.
        offsets: (E + 1,) where each input's numbers begin.
        spans: byte range and checksum of each tensor in the file.
    """

    path: Path
    keys: list[bytes]
    counts: Array
    cut: Array
    start: int
    dtype: str
    offsets: Array
    spans: list[tuple[int, int, int]]

    @classmethod
    def read(cls, path: Path, fingerprint: str, widths: Widths) -> Shard:
        """Read what a shard holds, not the numbers themselves.

        Raises:
            DamagedShardError: the file is torn, or of another encoder.
            OSError: it cannot be read; it may be whole.
        """
        try:
            with path.open("rb") as file:
                header = _header(file)
                about = header.pop("__metadata__")
                if about["fingerprint"] != fingerprint:
                    raise DamagedShardError("it holds features of something else")
                keys, counts, cut = (_array(file, header[name]) for name in ("keys", "counts", "cut"))
            sizes = widths.pooled + counts.astype(np.int64) @ np.array(widths.layers, dtype=np.int64)
            offsets = np.concatenate([[0], sizes.cumsum()])
            if header["numbers"]["shape"] != [int(offsets[-1])] or not len(keys) == len(counts) == len(cut):
                raise DamagedShardError("its parts do not fit together")
            start = header["numbers"]["data_offsets"][0]
            spans = [(*entry["data_offsets"], int(about[name])) for name, entry in header.items()]
            dtype = NUMPY[header["numbers"]["dtype"]]
            return cls(path, [key.tobytes() for key in keys], counts, cut != 0, start, dtype, offsets, spans)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DamagedShardError("it is torn") from error

    def verify(self) -> None:
        """Compare the whole file with its checksums.

        Raises:
            DamagedShardError: it is not as it was written.
        """
        with self.path.open("rb") as file:
            for start, end, expected in self.spans:
                file.seek(start)
                checksum, left = 0, end - start
                while left and (block := file.read(min(left, BLOCK))):
                    checksum, left = zlib.crc32(block, checksum), left - len(block)
                if left or checksum != expected:
                    raise DamagedShardError("its checksum does not match")

    def read_into(self, file: BinaryIO, row: int, parts: list[Array]) -> None:
        """Read an input's numbers.

        Not by mapping the file: what was touched of a map counts as resident memory, whole folios of it.

        Args:
            file: the shard's.
            row: of the input.
            parts: where the numbers go to, one after the other.

        Raises:
            RobustTuneError: the file is shorter than it was.
        """
        size = sum(part.nbytes for part in parts)
        start = self.start + int(self.offsets[row]) * parts[0].itemsize
        if os.preadv(file.fileno(), [part.data for part in parts], start) != size:
            raise RobustTuneError(f"{self.path} of the feature cache was changed while it was read: start again")


def _header(file: BinaryIO) -> dict[str, Any]:
    """What a safetensors file says of its tensors, with offsets from the beginning of the file."""
    size = int.from_bytes(file.read(8), "little")
    if not 0 < size < 1 << 20:
        raise ValueError(size)
    header: dict[str, Any] = json.loads(file.read(size))
    for name, entry in header.items():
        if name != "__metadata__":
            entry["data_offsets"] = [8 + size + offset for offset in entry["data_offsets"]]
    return header


def _array(file: BinaryIO, entry: dict[str, Any]) -> Array:
    start, end = entry["data_offsets"]
    file.seek(start)
    return np.frombuffer(file.read(end - start), NUMPY[entry["dtype"]]).reshape(entry["shape"])
