"""Warnings that are ignored while images are read, by any number of threads."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

_lock = Lock()
_readers = 0
_caught = warnings.catch_warnings()


@contextmanager
def ignored_warnings() -> Iterator[None]:
    """Ignore all warnings of the process within the context.

    `warnings.catch_warnings` saves and restores the filters of the whole process, so threads that overlap would restore
    each other's. Here the first thread saves them, and the last one restores them.

    Example:
        >>> with ignored_warnings():
        ...     warnings.warn("odd metadata")
    """
    global _readers, _caught
    with _lock:
        if _readers == 0:
            _caught = warnings.catch_warnings()
            _caught.__enter__()
            warnings.simplefilter("ignore")
        _readers += 1
    try:
        yield
    finally:
        with _lock:
            _readers -= 1
            if _readers == 0:
                _caught.__exit__(None, None, None)
