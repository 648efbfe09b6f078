"""The Hugging Face hub: whether it may be asked, and where its client keeps what it has fetched."""

from __future__ import annotations

import re
from pathlib import Path

from huggingface_hub import constants

PREFETCH = (
    "run `robusttune prefetch --config ...` with this configuration where there is a network, and set the environment "
    "that it prints"
)


def offline() -> bool:
    """Whether the Hugging Face hub must not be asked, by ``HF_HUB_OFFLINE=1``."""
    return constants.HF_HUB_OFFLINE


def hub_folder(name: str, kind: str = "model") -> Path:
    """The folder that the hub's client keeps a repository in, whether or not it exists.

    Args:
        name: of the repository.
        kind: ``model`` or ``dataset``.
    """
    return Path(constants.HF_HUB_CACHE) / "--".join([f"{kind}s", *name.split("/")])


def cached_commit(name: str, revision: str | None, kind: str = "model") -> str | None:
    """The commit that a revision of a repository was when it was last fetched, or None where it never was.

    Args:
        name: of the repository.
        revision: branch, tag or commit; None for ``main``.
        kind: see `hub_folder`.
    """
    if revision is not None and re.fullmatch("[0-9a-f]{40}", revision):
        return revision
    ref = hub_folder(name, kind) / "refs" / (revision or "main")
    return ref.read_text(encoding="utf-8").strip() if ref.is_file() else None
