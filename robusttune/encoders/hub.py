"""The Hugging Face hub: offline mode, and the cache folders of its client."""

from __future__ import annotations

import re
from pathlib import Path

from huggingface_hub import constants

PREFETCH = (
    "run `robusttune prefetch --config ...` with this configuration where there is a network, and set the environment "
    "that it prints"
)


def offline() -> bool:
    """Return True if ``HF_HUB_OFFLINE=1`` forbids requests to the Hugging Face hub."""
    return constants.HF_HUB_OFFLINE


def hub_folder(name: str, kind: str = "model") -> Path:
    """Return the cache folder of a repository of the Hugging Face hub, even if the folder does not exist.

    Args:
        name: Name of the repository, such as ``openai/clip-vit-base-patch16``.
        kind: ``model`` or ``dataset``.

    Example:
        >>> hub_folder("openai/clip-vit-base-patch16").name
        'models--openai--clip-vit-base-patch16'
    """
    return Path(constants.HF_HUB_CACHE) / "--".join([f"{kind}s", *name.split("/")])


def cached_commit(name: str, revision: str | None, kind: str = "model") -> str | None:
    """Return the commit that a revision of a repository pointed to when it was last fetched, or None if it never was.

    Args:
        name: Name of the repository.
        revision: Branch, tag or commit; None for ``main``.
        kind: ``model`` or ``dataset``.
    """
    if revision is not None and re.fullmatch("[0-9a-f]{40}", revision):
        return revision
    ref = hub_folder(name, kind) / "refs" / (revision or "main")
    return ref.read_text(encoding="utf-8").strip() if ref.is_file() else None
