"""Files in the cache folder that are made from other files: their names, their locks, and their removal."""

from __future__ import annotations

import fcntl
import hashlib
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from robusttune.errors import RobustTuneError

SETTLED = 2_000_000_000  # age in ns from which a further change of a file certainly gives another change time


def key_of_files(name: Path, files: Sequence[Path], settings: str) -> str:
    """Return a key for what is made from some files: a hash of their name, and one of their state and the settings.

    The state is the size, the times and the inode of each file. Programs cannot set the change time, so a file that was
    changed has another state.

    Args:
        name: Path of the files, which may be a folder or a pattern.
        files: Paths of all files.
        settings: Everything else that the result depends on.

    Returns:
        Two hashes of 16 hexadecimal digits, joined by a hyphen.

    Raises:
        RobustTuneError: A file cannot be examined.
    """
    state = settings
    for file in files:
        try:
            stat = file.stat()
        except OSError as error:
            raise RobustTuneError(f"{file} cannot be read ({error.strerror}): check the file") from None
        state += f" {stat.st_size} {stat.st_mtime_ns} {stat.st_ctime_ns} {stat.st_ino}"
    return f"{_hash(str(name.absolute()))}-{_hash(state)}"


def settled(files: Iterable[Path]) -> bool:
    """Return whether a further change of any file would certainly give it another state.

    File systems count time in steps: right after a change, another one may leave the same times.
    """
    return all(time.time_ns() - file.stat().st_ctime_ns > SETTLED for file in files)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock of a file during a ``with`` block. The system releases it if the process ends."""
    with path.open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def remove_unused(files: Iterable[Path], seconds: float) -> None:
    """Remove the files whose modification time, which is set whenever they are used, is older than an age.

    Args:
        files: Paths of the files. Some may have been removed meanwhile.
        seconds: Age from which a file is removed.
    """
    for file in files:
        with suppress(FileNotFoundError):
            if time.time() - file.stat().st_mtime > seconds:
                file.unlink()


def _hash(text: str) -> str:
    return hashlib.blake2b(text.encode(errors="surrogateescape"), digest_size=8).hexdigest()
