"""A shard: one safetensors file with the features of many inputs, protected by checksums and read input by input."""

from __future__ import annotations

import hashlib
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

from robusttune.data.cache.keys import Keys
from robusttune.paths import atomic_write
from robusttune.types import Encoded, Widths

Array = NDArray[Any]
SUFFIX = ".safetensors"
BLOCK = 1 << 22  # number of bytes per read for a checksum
NUMPY = {"BF16": "<u2", "F32": "<f4", "U8": "u1", "I32": "<i4"}  # NumPy has no bfloat16, so its bits are read


class DamagedShardError(Exception):
    """An error that describes the damage of a shard."""


class Row(NamedTuple):
    """The features of one input.

    Attributes:
        key: Key of the input, 16 bytes.
        numbers: Pooled embedding, followed by the tokens of each layer without padding, as one flat tensor.
        counts: Number of tokens in each of the M layers, without padding.
        cut: True for an input that was longer than the encoder accepts.
    """

    key: bytes
    numbers: Tensor
    counts: list[int]
    cut: bool


def shard_name(keys: Keys) -> str:
    """Return the name of the shard of some inputs in this order, as hexadecimal digits.

    Args:
        keys: Keys of the inputs, shape (E, 2).

    Example:
        >>> shard_name(np.zeros((1, 2), np.uint64))[:8]
        '463be1d5'
    """
    return hashlib.blake2b(keys.tobytes(), digest_size=16).hexdigest()


def rows_of(encoded: Encoded, keys: list[bytes], cut: list[bool], dtype: torch.dtype) -> Iterator[Row]:
    """Yield the rows of an encoder's output without padding.

    Args:
        encoded: Output of the encoder for P inputs.
        keys: P keys of the inputs, 16 bytes each.
        cut: P flags, True for an input that was longer than the encoder accepts.
        dtype: Number format of the features in the rows.
    """
    kept = encoded.map(lambda tensor: (tensor.to(dtype) if tensor.is_floating_point() else tensor).cpu())
    for i, (key, was_cut) in enumerate(zip(keys, cut, strict=True)):
        real = [tokens[i][mask[i]] for tokens, mask in zip(kept.tokens, kept.mask, strict=True)]
        numbers = torch.cat([kept.pooled[i], *(tokens.flatten() for tokens in real)])
        yield Row(key, numbers, [len(tokens) for tokens in real], was_cut)


def write_shard(path: Path, fingerprint: str, rows: list[Row]) -> None:
    """Write a shard atomically: afterwards the file is complete, or it does not exist.

    Args:
        path: Path of the file.
        fingerprint: Fingerprint of the encoder and the settings that the features depend on.
        rows: Features of the inputs, at least one.

    Raises:
        OSError: The file cannot be written.
    """
    tensors = {
        "numbers": torch.cat([row.numbers for row in rows]),
        "keys": torch.frombuffer(bytearray(b"".join(row.key for row in rows)), dtype=torch.uint8).view(len(rows), -1),
        "counts": torch.tensor([row.counts for row in rows], dtype=torch.int32),
        "cut": torch.tensor([row.cut for row in rows], dtype=torch.uint8),
    }
    about = {name: str(zlib.crc32(tensor.view(torch.uint8).numpy().data)) for name, tensor in tensors.items()}
    with atomic_write(path) as partial:
        partial.write_bytes(save(tensors, {"fingerprint": fingerprint, **about}))


@dataclass
class Shard:
    """The index of a shard file: the keys of its E inputs, and the positions of their features.

    Attributes:
        path: Path of the file.
        keys: Keys of the inputs, shape (E, 2), uint64.
        counts: Number of tokens of each input in each of M layers, shape (E, M), int32.
        cut: Flags of the inputs that were cut, shape (E,), bool.
        dtype: NumPy type of the features.
        positions: Position of each input's features in the file, in bytes, shape (E,), int64.
        spans: Begin, end and checksum of each tensor in the file, in bytes.
    """

    path: Path
    keys: Keys
    counts: Array
    cut: Array
    dtype: str
    positions: Array
    spans: list[tuple[int, int, int]]

    @classmethod
    def read(cls, path: Path, fingerprint: str, widths: Widths) -> Shard:
        """Read the index of a shard file, without the features.

        Args:
            path: Path of the file.
            fingerprint: Fingerprint that the file must have.
            widths: Widths of the encoder's outputs.

        Raises:
            DamagedShardError: The file is incomplete or has another fingerprint.
            OSError: The file cannot be read. It may be intact.
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
            positions = start + offsets[:-1] * np.dtype(dtype).itemsize
            return cls(path, keys.view(np.uint64), counts, cut != 0, dtype, positions, spans)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DamagedShardError("it is torn") from error

    def verify(self) -> None:
        """Compare the whole file with its checksums.

        Raises:
            DamagedShardError: The content of the file has changed since it was written.
        """
        with self.path.open("rb") as file:
            for start, end, expected in self.spans:
                file.seek(start)
                checksum, left = 0, end - start
                while left and (block := file.read(min(left, BLOCK))):
                    checksum, left = zlib.crc32(block, checksum), left - len(block)
                if left or checksum != expected:
                    raise DamagedShardError("its checksum does not match")


def read_features(file: BinaryIO, position: int, parts: list[Array]) -> bool:
    """Read the features of one input into arrays.

    The file is not mapped into memory, because the accessed pages of a map count as resident memory.

    Args:
        file: Open shard file.
        position: Position of the features in the file, in bytes.
        parts: Arrays to fill, in the order of the file: the pooled embedding, then the tokens of each layer.

    Returns:
        False if the file is too short.
    """
    return os.preadv(file.fileno(), [part.data for part in parts], position) == sum(part.nbytes for part in parts)


def _header(file: BinaryIO) -> dict[str, Any]:
    """Read the header of a safetensors file, with offsets counted from the beginning of the file.

    Raises:
        ValueError: The header is too long or is not valid JSON.
    """
    size = int.from_bytes(file.read(8), "little")
    if not 0 < size < 1 << 20:
        raise ValueError(size)
    header: dict[str, Any] = json.loads(file.read(size))
    for name, entry in header.items():
        if name != "__metadata__":
            entry["data_offsets"] = [8 + size + offset for offset in entry["data_offsets"]]
    return header


def _array(file: BinaryIO, entry: dict[str, Any]) -> Array:
    """Read the tensor of a header entry as a NumPy array."""
    start, end = entry["data_offsets"]
    file.seek(start)
    return np.frombuffer(file.read(end - start), NUMPY[entry["dtype"]]).reshape(entry["shape"])
