"""Packages that the tables are built from: pinned versions and checksums, fetched from the npm registry by npm."""

from __future__ import annotations

import base64
import hashlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from experiments.emoji_data import pack, unpack

Packages = Callable[[str], Path]  # name of a package -> folder with its content
PINNED = Path(__file__).with_suffix(".json")


class Pin(NamedTuple):
    """A package as it is pinned in `packages.json`.

    Attributes:
        version: Version of the package.
        license: License as the package states it.
        integrity: Hash of the archive in the notation of npm's lock files, `sha512-<base64>`.
    """

    version: str
    license: str
    integrity: str


def pins() -> dict[str, Pin]:
    """Return the pinned packages by name."""
    return {name: Pin(**fields) for name, fields in json.loads(PINNED.read_text(encoding="utf-8")).items()}


def integrity_of(archive: Path) -> str:
    """Return the hash of an archive as npm's lock files have it."""
    digest = hashlib.sha512(archive.read_bytes()).digest()
    return f"sha512-{base64.b64encode(digest).decode()}"


def fetch(package: str, archives: Path, unpacked: Path) -> Path:
    """Return the folder with the content of a pinned package.

    Args:
        package: Name of the package.
        archives: Folder that keeps the archives; one that is there is not fetched again.
        unpacked: Folder to unpack into.

    Raises:
        SystemExit: The archive is not the pinned one.
    """
    pin = pins()[package]
    archive = archives / f"{package.removeprefix('@').replace('/', '-')}-{pin.version}.tgz"
    if not archive.exists():
        archives.mkdir(parents=True, exist_ok=True)
        pack(package, pin.version, archives)
    found = integrity_of(archive)
    if found != pin.integrity:
        sys.exit(f"{archive} has the checksum {found}, expected {pin.integrity}: delete the file to fetch it again")
    return unpack(archive, unpacked / package)
