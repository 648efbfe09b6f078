"""A check of data with several images a sample, for models that change the layers which compute features of images."""

from __future__ import annotations

from typing import Any

from robusttune.errors import RobustTuneError


def refuse_averaged_images(data: Any, what: str) -> None:
    """Check that the data do not average the features of several images.

    Args:
        data: Data module of any kind.
        what: Model that adapts the image encoder, for the message.

    Raises:
        RobustTuneError: They do.
    """
    if hasattr(data, "source") and data.source.averages_images:
        raise RobustTuneError(
            f"{what} adapts the image encoder itself, and cannot average features of several images: set "
            "data.source.several_images to first, or choose another model"
        )
