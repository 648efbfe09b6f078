"""Standard output and error that cannot fail a command: its work is done, whoever reads of it."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO, cast


class LenientStream:
    """A text stream that is silent from the first write on that fails.

    Characters that its encoding lacks are written as escapes.

    Attributes:
        error: Reason why it is silent, or None.
    """

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.error: OSError | ValueError | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def write(self, text: str) -> int:
        if self.error is None:
            try:
                self._write(text)
            except (OSError, ValueError) as error:  # a ValueError where it is closed
                self.error = error
        return len(text)

    def flush(self) -> None:
        if self.error is None:
            try:
                self.stream.flush()
            except (OSError, ValueError) as error:
                self.error = error

    def finish(self) -> None:
        """Write what is left, or have it go nowhere: the interpreter would fail on it when it ends."""
        self.flush()
        if self.error is not None:
            with suppress(OSError, ValueError):
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, self.stream.fileno())
                os.close(nowhere)

    def _write(self, text: str) -> None:
        try:
            self.stream.write(text)
        except UnicodeEncodeError:
            encoding = self.stream.encoding or "ascii"
            self.stream.write(text.encode(encoding, "backslashreplace").decode(encoding))


@contextmanager
def lenient_output() -> Iterator[LenientStream | None]:
    """Within it neither standard output nor standard error fails; yields standard output, None where there is none."""
    before = sys.stdout, sys.stderr
    out, err = (None if stream is None else LenientStream(stream) for stream in before)
    sys.stdout, sys.stderr = cast(TextIO, out), cast(TextIO, err)
    try:
        yield out
    finally:
        for stream in (out, err):
            if stream is not None:
                stream.finish()
        sys.stdout, sys.stderr = before


def problem_with(stream: LenientStream | None) -> str | None:
    """Return why a stream could not be written; None where it could, or where its reader wanted no more."""
    error = None if stream is None else stream.error
    if error is None or (isinstance(error, OSError) and error.errno == errno.EPIPE):
        return None
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
