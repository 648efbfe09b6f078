"""Fetching of files over HTTP and HTTPS with the standard library: bounded in time, size and redirects."""

from __future__ import annotations

import base64
import http.client
import io
import socket
import time
import urllib.request
from email.message import Message
from functools import cache
from http import HTTPStatus
from typing import IO, Any
from urllib.error import HTTPError, URLError
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from robusttune import __version__

BLOCK = 1 << 16  # number of bytes per read
REDIRECTS = 5
BUSY = (408, 425, 429, 500, 502, 503, 504)  # answers after which another try may succeed
NOT_WEB = "the server redirects to something other than a web server"
LEFT_AS_THEY_ARE = "%/:=&?~#+!$,;'@()*[]"  # characters of a URL that are not quoted


class FetchError(Exception):
    """An error that says in a phrase why a file cannot be fetched."""


class TemporaryError(FetchError):
    """An error after which another try may succeed."""


def fetch_web(url: str, timeout: float, limit: int) -> bytes:
    """Return the content of a file on a web server, in one try.

    Args:
        url: URL with the scheme ``http`` or ``https``. A user name and password in it are sent to its own host alone.
        timeout: Number of seconds that the content may take, and each answer of a server on the way. `within_seconds`
            limits the sum, and the look-up of the server's name.
        limit: Number of bytes that are accepted.

    Raises:
        FetchError: The file cannot be fetched, is a web page, or has more than ``limit`` bytes.
        TemporaryError: The server does not answer in time, is busy, or breaks the connection off.
    """
    deadline = time.monotonic() + timeout
    try:
        with _opener().open(_request(url), timeout=timeout) as answer:
            expected = answer.headers.get("Content-Length")
            if expected is not None and expected.isdigit() and int(expected) > limit:
                raise too_large(int(expected), limit)
            content = _read(answer, deadline, timeout, limit)
    except HTTPError as error:
        raise _refusal(error) from None
    except (TimeoutError, URLError, http.client.HTTPException, ValueError, OSError) as error:
        raise _failure(error, timeout) from None
    if expected is not None and expected.isdigit() and len(content) < int(expected):
        raise TemporaryError(f"the server sent {len(content):,} of {int(expected):,} bytes")
    if answer.headers.get_content_type() == "text/html" or b"<html" in content[:512].lower():
        raise FetchError("the server sent a web page (HTML) instead")
    return content


def too_large(size: int | None, limit: int) -> FetchError:
    """Return the error for a file with more bytes than accepted; ``size`` is None if it is unknown."""
    what = "it has" if size is None else f"it has {size / 1e6:,.1f} MB,"
    return FetchError(f"{what} more than data.source.remote.max_megabytes {limit / 1e6:g}")


def without_secrets(url: str) -> str:
    """Return a URL without its user name, password, query and fragment, which may be secrets, for messages.

    Example:
        >>> without_secrets("https://me:secret@example.org/a.png?token=1")
        'https://example.org/a.png'
    """
    try:
        parts = urlsplit(url)
        return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
    except ValueError:  # an invalid host
        return f"{url.partition('://')[0]}://..."


class _Limited(io.RawIOBase):
    """The bytes that a server sends, which must all arrive within the socket's timeout.

    The socket itself allows that time for each byte, which a server can use to keep a connection forever.

    Args:
        stream: Stream of the socket.
        connection: Socket with a timeout.
    """

    def __init__(self, stream: io.RawIOBase, connection: socket.socket) -> None:
        self.stream = stream
        self.connection = connection
        self.deadline = time.monotonic() + (connection.gettimeout() or 0.0)

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: Any) -> int | None:
        """Fill a buffer with the next bytes.

        Raises:
            TimeoutError: The time is over.
        """
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self.connection.settimeout(left)
        return self.stream.readinto(buffer)

    def close(self) -> None:
        """Close the stream."""
        self.stream.close()
        super().close()


class _Answer(http.client.HTTPResponse):
    """An answer whose headers and content arrive within the socket's timeout; see `_Limited`."""

    def __init__(self, sock: socket.socket, *args: Any, **settings: Any) -> None:
        super().__init__(sock, *args, **settings)
        self.fp = io.BufferedReader(_Limited(self.fp.detach(), sock))


class _Connection(http.client.HTTPConnection):
    response_class = _Answer


class _SecureConnection(http.client.HTTPSConnection):
    response_class = _Answer


class _Web(urllib.request.HTTPHandler):
    def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(_Connection, req)


class _SecureWeb(urllib.request.HTTPSHandler):
    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(_SecureConnection, req)


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follow few redirects, and only to web servers."""

    max_redirections = REDIRECTS

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Message, newurl: str
    ) -> urllib.request.Request | None:
        if urlsplit(newurl).scheme.lower() not in ("http", "https"):
            raise FetchError(NOT_WEB)
        return super().redirect_request(req, fp, code, msg, headers, newurl)  # type: ignore[arg-type]


@cache
def _opener() -> urllib.request.OpenerDirector:
    """Return an opener that knows web servers and proxies alone, not files or FTP."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        _Web(),
        _SecureWeb(),
        urllib.request.HTTPDefaultErrorHandler(),
        _Redirects(),
        urllib.request.HTTPErrorProcessor(),
    ):
        opener.add_handler(handler)
    return opener


def _request(url: str) -> urllib.request.Request:
    """Return the request for a URL.

    Raises:
        ValueError: The URL is invalid.
    """
    parts = urlsplit(quote(url, safe=LEFT_AS_THEY_ARE))
    user, _, host = parts.netloc.rpartition("@")
    request = urllib.request.Request(urlunsplit(parts._replace(netloc=host, fragment="")))
    # Some servers refuse Python's default user agent.
    request.add_header("User-Agent", f"robusttune/{__version__}")
    request.add_header("Accept-Encoding", "identity")
    if user:  # it is not sent to where the server redirects to
        request.add_unredirected_header("Authorization", f"Basic {base64.b64encode(unquote(user).encode()).decode()}")
    return request


def _read(answer: Any, deadline: float, timeout: float, limit: int) -> bytes:
    """Return the body of an answer. It is read piece by piece, since a slow server may send a byte at a time."""
    blocks, size = [], 0
    while block := answer.read1(BLOCK):
        size += len(block)
        if size > limit:
            raise too_large(None, limit)
        if time.monotonic() > deadline:
            raise TimeoutError
        blocks.append(block)
    return b"".join(blocks)


def _refusal(error: HTTPError) -> FetchError:
    """Return the error for an answer with a status other than success."""
    error.close()
    if 300 <= error.code < 400:
        if "is not allowed" in str(error.msg):  # urllib refuses other schemes, such as file
            return FetchError(NOT_WEB)
        return FetchError(f"the server redirects more than {REDIRECTS} times, or in a circle")
    known = {status.value: status.phrase for status in HTTPStatus}
    phrase = f"the server answers {error.code} {known.get(error.code, '')}".rstrip()
    return TemporaryError(phrase) if error.code in BUSY else FetchError(phrase)


def _failure(error: Exception, timeout: float) -> FetchError:
    """Return the error for a connection that failed."""
    cause = error.reason if isinstance(error, URLError) and isinstance(error.reason, Exception) else error
    if isinstance(cause, TimeoutError):
        return TemporaryError(f"no answer within {timeout:g} seconds")
    if isinstance(cause, http.client.InvalidURL | ValueError | UnicodeError):
        return FetchError("its URL is not valid")
    if isinstance(cause, http.client.IncompleteRead):
        return TemporaryError("the server broke the connection off")
    reason = (isinstance(cause, OSError) and cause.strerror) or type(cause).__name__
    return TemporaryError(f"{reason}")
