"""Images on servers and in buckets: each is fetched once, and kept in the user's cache folder by its content."""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from typing import Any, TypeVar

from robusttune.data.images import UnreadableImageError, read_image
from robusttune.data.web import FetchError, TemporaryError, fetch_web, too_large, without_secrets
from robusttune.errors import RobustTuneError
from robusttune.paths import cache_home

Result = TypeVar("Result")
URL = re.compile(r"([a-z][a-z0-9+.-]+)://", re.IGNORECASE)
# URL schemes of images, and the package that reads them through fsspec; None for the standard library.
SCHEMES: dict[str, str | None] = {
    "http": None,
    "https": None,
    "s3": "s3fs",
    "s3a": "s3fs",
    "gs": "gcsfs",
    "gcs": "gcsfs",
    "az": "adlfs",
    "abfs": "adlfs",
    "abfss": "adlfs",
    "oss": "ossfs",
    "hf": "huggingface_hub",
}
WAIT = 0.5  # seconds before the second try; doubled for each further one
LEFTOVER = 86_400  # age in seconds from which a partial file is assumed to be abandoned


@dataclass(frozen=True)
class Remote:
    """Settings for images on servers and in buckets.

    Args:
        timeout: Number of seconds that one try to fetch an image may take, above 0.
        tries: Number of tries if a server does not answer or is busy, at least 1.
        max_megabytes: Size of the largest image that is fetched, in megabytes, above 0.

    Raises:
        RobustTuneError: A number is too small.

    Example:
        >>> Remote(timeout=10).tries
        3
    """

    timeout: float = 30.0
    tries: int = 3
    max_megabytes: float = 50.0

    def __post_init__(self) -> None:
        for name in ("timeout", "tries", "max_megabytes"):
            if not getattr(self, name) > 0:
                raise RobustTuneError(f"data.source.remote.{name} is {getattr(self, name)}: give more than 0")

    @property
    def limit(self) -> int:
        """The size of the largest image, in bytes."""
        return int(self.max_megabytes * 1e6)


def missing_package(scheme: str) -> str | None:
    """Return advice on how to install what reads URLs of a scheme in `SCHEMES`; None if it is installed.

    Example:
        >>> missing_package("https") is None
        True
    """
    package = SCHEMES[scheme]
    if package is None or (find_spec("fsspec") is not None and find_spec(package) is not None):
        return None
    return "pip install 'robusttune[remote]'" if package == "s3fs" else f"pip install fsspec {package}"


class Downloads:
    """The images that were fetched, by URL, and those that cannot be fetched.

    An image is kept for good. A failure is remembered by all processes of the run, and forgotten by the next run.

    Args:
        settings: Settings of the downloads.
    """

    def __init__(self, settings: Remote) -> None:
        self.settings = settings
        self.started = time.time()

    def path(self, url: str) -> Path:
        """Return the path of an image's file, whose name is the hash of its content. It is fetched if necessary.

        Raises:
            UnreadableImageError: The image cannot be fetched, or what the server sends is no image.
            RobustTuneError: The cache folder cannot be written.
        """
        note = _path("urls", hashlib.blake2b(url.encode(errors="surrogatepass"), digest_size=16).hexdigest())
        known = _load(note)
        if "digest" in known and (path := _path("files", known["digest"])).exists():
            return path
        if known.get("failed", 0.0) > self.started:
            raise UnreadableImageError(known["problem"])
        about = {"url": without_secrets(url)}
        try:
            content = self._fetch(url)
            read_image(BytesIO(content), about["url"])  # only whole images are kept
        except UnreadableImageError as error:
            _keep(note, json.dumps(about | {"problem": str(error), "failed": time.time()}).encode())
            raise
        digest = hashlib.blake2b(content, digest_size=16).hexdigest()
        path = _path("files", digest)
        _keep(path, content)
        _keep(note, json.dumps(about | {"digest": digest}).encode())
        return path

    def _fetch(self, url: str) -> bytes:
        """Return the content of an image, after several tries if necessary."""
        settings = self.settings
        for attempt in range(settings.tries):
            try:
                return within_seconds(settings.timeout, lambda: self._fetch_once(url))
            except FetchError as error:
                if attempt + 1 == settings.tries or not isinstance(error, TemporaryError):
                    reason = f"{error}"
                    break
            time.sleep(WAIT * 2**attempt)
        raise UnreadableImageError(f"{without_secrets(url):.300} cannot be read as an image ({reason})")

    def _fetch_once(self, url: str) -> bytes:
        """Return the content of an image, in one try.

        Raises:
            FetchError: The image cannot be fetched.
        """
        if url.lower().startswith(("http:", "https:")):
            return fetch_web(url, self.settings.timeout, self.settings.limit)
        return _fetch_from_store(url, self.settings.limit)


def within_seconds(timeout: float, work: Callable[[], Result]) -> Result:
    """Return the result of a function that runs in a thread of its own, whose time cannot be limited otherwise.

    Raises:
        TemporaryError: The function takes longer. Its thread is left behind.
        Exception: The function raises it.
    """
    results: list[Result] = []
    errors: list[BaseException] = []

    def run() -> None:
        """Run the function and keep what it returns or raises."""
        try:
            results.append(work())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(timeout)
    if errors:
        raise errors[0]
    if not results:
        raise TemporaryError(f"no answer within {timeout:g} seconds")
    return results[0]


def _fetch_from_store(url: str, limit: int) -> bytes:
    """Return the content of a file in a store that fsspec reads, such as a bucket.

    Raises:
        FetchError: The file cannot be fetched.
    """
    advice = missing_package(url.partition("://")[0].lower())
    if advice is not None:
        raise FetchError(f"a package is missing: {advice}")
    import fsspec

    try:
        system, path = fsspec.core.url_to_fs(url)
        size = system.info(path).get("size")
        if size is not None and size > limit:
            raise too_large(size, limit)
        content: bytes = system.cat_file(path, start=0, end=limit + 1)
    except FetchError:
        raise
    except FileNotFoundError as error:
        reason = "no such bucket" if "bucket" in str(error).lower() else "it does not exist"
        raise FetchError(reason) from None
    except PermissionError:
        raise FetchError("access is denied: check the credentials") from None
    except Exception as error:  # each library raises types of its own
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        kind = TemporaryError if isinstance(error, OSError) else FetchError
        raise kind(reason) from None
    if len(content) > limit:
        raise too_large(None, limit)
    return content


def _path(kind: str, key: str) -> Path:
    """Return the path of a file in the cache folder: ``files`` by content, or ``urls`` by URL."""
    return cache_home() / "images" / kind / key[:2] / key


def _load(note: Path) -> dict[str, Any]:
    """Load what is known about a URL; an empty dictionary if nothing is."""
    try:
        known = json.loads(note.read_bytes())
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def _keep(path: Path, content: bytes) -> None:
    """Write a file of the cache folder atomically. Several threads and processes may write it at the same time.

    Raises:
        RobustTuneError: The file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for partial in path.parent.glob(".*.partial"):
            with suppress(FileNotFoundError):
                if time.time() - partial.stat().st_mtime > LEFTOVER:
                    partial.unlink()
        descriptor, name = tempfile.mkstemp(prefix=".", suffix=".partial", dir=path.parent)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            Path(name).replace(path)
        finally:
            Path(name).unlink(missing_ok=True)
    except OSError as error:
        raise RobustTuneError(
            f"images cannot be kept in {cache_home()} ({error.strerror or error}): make room, or set XDG_CACHE_HOME to "
            "another folder"
        ) from None
