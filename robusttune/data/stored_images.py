"""A reader of images wherever they are: in files, in cells of tables, on servers."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from typing import Any

from PIL import Image

from robusttune.data.images import ImageReader, UnreadableImageError, missing_files, read_content, read_image
from robusttune.data.packs import Pack, Packed
from robusttune.data.remote import URL, Downloads, Remote
from robusttune.data.web import without_secrets
from robusttune.ranks import rank, world_size

CONNECTIONS = 16  # number of images that are fetched at the same time


class StoredImages(ImageReader):
    """A reader of images whose names are paths, URLs, or references to the packed images of a table.

    Args:
        remote: Settings for images on servers.

    Example:
        >>> StoredImages().missing(["/no/such/image.png", "https://example.org/1.png"])
        ['/no/such/image.png']
    """

    def __init__(self, remote: Remote = Remote()) -> None:  # noqa: B008, it is frozen
        self.downloads = Downloads(remote)
        self._packs: dict[str, Pack] = {}

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_packs": {}}

    def missing(self, names: Iterable[str | None]) -> list[str]:
        """Return the paths that do not exist, in order. Nothing is asked of servers."""
        return missing_files(name for name in names if name is not None and _is_path(name))

    def read(self, name: str) -> Image.Image:
        """Read an image as RGB, see `read_image`. An image on a server is fetched first."""
        if _is_path(name):
            return read_image(name)
        if URL.match(name):
            return read_image(self.downloads.path(name), without_secrets(name))
        return read_image(BytesIO(self.content(name)), name)

    def content(self, name: str) -> bytes:
        """Return the encoded image."""
        if _is_path(name):
            return read_content(name)
        if URL.match(name):
            return read_content(str(self.downloads.path(name)))
        pack, number = self._find(name)
        return pack.read(number)

    def digest(self, name: str) -> bytes | None:
        """Return the hash of the content, or None for a file of its own. An image on a server is fetched first."""
        if _is_path(name):
            return None
        try:
            if URL.match(name):
                return bytes.fromhex(self.downloads.path(name).name)
            pack, number = self._find(name)
            return pack.digest(number)
        except UnreadableImageError:
            return hashlib.blake2b(name.encode(errors="surrogatepass"), digest_size=16).digest()

    def digests(self, names: Sequence[str]) -> dict[str, bytes | None]:
        """Return the digest of each image by name. Images on servers are fetched in parallel."""
        urls = [name for name in names if URL.match(name)]
        first = len(urls) * rank() // world_size()  # each rank begins elsewhere, and finds what others have fetched
        with ThreadPoolExecutor(CONNECTIONS) as pool:
            ordered = urls[first:] + urls[:first]
            fetched = dict(zip(ordered, pool.map(self.digest, ordered), strict=True))
        return {name: fetched[name] if name in fetched else self.digest(name) for name in names}

    def _find(self, name: str) -> tuple[Pack, int]:
        """Return the pack of an image and the image's number.

        Raises:
            UnreadableImageError: The pack was removed.
        """
        packed = Packed.parse(name)
        assert packed is not None, name
        try:
            if packed.pack not in self._packs:
                self._packs[packed.pack] = Pack(packed.pack)
        except OSError:
            reason = "its copy in the cache folder was removed: start again"
            raise UnreadableImageError(f"{name:.300} cannot be read ({reason})") from None
        return self._packs[packed.pack], packed.number


def _is_path(name: str) -> bool:
    """Return whether the name of an image is a path."""
    return name.startswith("/") or not (URL.match(name) or Packed.parse(name))
