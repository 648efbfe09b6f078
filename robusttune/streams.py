"""Standard output and error that never raise: a command's work is done even if nobody can read its output."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO, cast

from robusttune.escaping import visible


class LenientStream:
    """A text stream that discards its output after the first write that fails.

    Characters that its encoding lacks are written as escapes.

    Args:
        stream: Text stream to write to.

    Attributes:
        error: First error of a write or flush, or None.
    """

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.error: OSError | ValueError | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def write(self, text: str) -> int:
        """Write a text, unless an earlier write has failed; return its length."""
        if self.error is None:
            try:
                self._write(text)
            except (OSError, ValueError) as error:  # A closed stream raises ValueError.
                self.error = error
        return len(text)

    def flush(self) -> None:
        """Flush the stream, unless an earlier write has failed."""
        if self.error is None:
            try:
                self.stream.flush()
            except (OSError, ValueError) as error:
                self.error = error

    def finish(self) -> None:
        """Flush the buffer. After an error, redirect the stream to the null device.

        The interpreter flushes its streams when it ends, and would fail on a broken one.
        """
        self.flush()
        if self.error is not None:
            with suppress(OSError, ValueError):
                null = os.open(os.devnull, os.O_WRONLY)
                os.dup2(null, self.stream.fileno())
                os.close(null)

    def _write(self, text: str) -> None:
        try:
            self.stream.write(text)
        except UnicodeEncodeError:
            encoding = self.stream.encoding or "ascii"
            self.stream.write(text.encode(encoding, "backslashreplace").decode(encoding))


def print_error(sentence: str) -> None:
    """Print the error of a command to standard error, as one line.

    Example:
        >>> print_error("--steps is 0: give at least 1")  # robusttune: error: --steps is 0: give at least 1
    """
    print(f"robusttune: error: {visible(sentence)}", file=sys.stderr)  # noqa: T201


@contextmanager
def lenient_output() -> Iterator[LenientStream | None]:
    """Replace standard output and standard error with `LenientStream` inside this context.

    Yields:
        Standard output, or None if the process has none.
    """
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
    """Return why writing to a stream failed, or None.

    A broken pipe is no problem: the reader, such as ``head``, has closed it.

    Args:
        stream: Stream from `lenient_output`, or None.
    """
    error = None if stream is None else stream.error
    if error is None or (isinstance(error, OSError) and error.errno == errno.EPIPE):
        return None
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
