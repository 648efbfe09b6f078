"""Stratified samples of large tables in the user's cache folder, so that the next run does not draw them again."""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray

from robusttune.data.class_indices import ClassIndices
from robusttune.data.kept_files import remove_unused
from robusttune.data.record_files import UNUSED
from robusttune.data.stratification import stratified_sample
from robusttune.paths import atomic_write, cache_home

LARGE = 1_000_000  # number of rows from which a draw takes seconds
VERSION = 1  # of the draw: raise it if the same seed draws other rows


def kept_stratified_sample(classes: ClassIndices, size: int, seed: int) -> NDArray[np.int64]:
    """Draw a stratified sample as `stratified_sample` does, or read the draw of an earlier run with equal arguments.

    Args:
        classes: Class indices of each row.
        size: Number of rows to draw, from 0 to the number of rows.
        seed: Seed of the random order of the rows.

    Returns:
        Row numbers, ascending.
    """
    if len(classes) < LARGE:
        return stratified_sample(classes, size, seed)
    path = cache_home() / "samples" / f"{_key(classes, size, seed)}.bits"
    with suppress(OSError):  # There is none yet.
        bits = np.fromfile(path, np.uint8)
        if 8 * len(bits) >= len(classes):  # A damaged file may be shorter, or have another number of rows.
            rows = np.flatnonzero(np.unpackbits(bits, count=len(classes)))
            if len(rows) == size:
                os.utime(path)  # it is in use
                return rows
    rows = stratified_sample(classes, size, seed)
    drawn = np.zeros(len(classes), dtype=bool)
    drawn[rows] = True
    with suppress(OSError):  # The folder cannot be written: the next run draws again.
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_unused(path.parent.glob("*.bits"), UNUSED)
        with atomic_write(path) as partial:
            np.packbits(drawn).tofile(partial)
    return rows


def _key(classes: ClassIndices, size: int, seed: int) -> str:
    """Return a hash of everything that a draw depends on, 32 hexadecimal digits."""
    digest = hashlib.blake2b(f"{VERSION} {np.__version__} {len(classes)} {size} {seed}".encode(), digest_size=16)
    digest.update(classes.flat.data)
    if classes.offsets is not None:
        digest.update(classes.offsets.data)
    return digest.hexdigest()
