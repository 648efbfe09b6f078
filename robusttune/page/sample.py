"""The sample that a visitor of the page gives: reading it within limits, and adding noise to it."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from io import BytesIO
from typing import cast

import numpy as np
from PIL import Image
from torchvision.transforms.v2 import functional

from robusttune.corruption.noise import (
    IMAGE_NOISE,
    SEVERITIES,
    TEXT_NOISE,
    ImageNoiseKind,
    TextNoiseKind,
    corrupt_image,
    corrupt_text,
)
from robusttune.data.images import open_image, read_image
from robusttune.encoders.preprocessing import Preprocessing
from robusttune.errors import RobustTuneError

UPLOAD_BYTES = 10 * 1024 * 1024
TEXT_CHARACTERS = 10_000
PIXELS = 40_000_000  # A camera has 24 to 50 million; decoded, these take 120 MB.
ASPECT = 20  # A picture of one row could otherwise become gigantic when its height is set.
MODES = ("keep", "noise", "remove")
NOISE_SEED = 0  # The same noise for the same sample, so that a changed severity is the only difference.


@dataclass(frozen=True)
class Change:
    """What the visitor does to a modality.

    Args:
        mode: ``keep`` to leave it as it is, ``noise`` to corrupt it, ``remove`` to predict without it.
        kind: Kind of noise, a key of `IMAGE_NOISE` or `TEXT_NOISE`.
        severity: Severity of the noise, from 1 (mild) to 5.

    Example:
        >>> Change.read({"text_mode": "noise", "text_kind": "typos", "text_severity": "3"}, "text")
        Change(mode='noise', kind='typos', severity=3)
    """

    mode: str = "keep"
    kind: str = ""
    severity: int = 3

    @classmethod
    def read(cls, form: Mapping[str, str], modality: str) -> Change:
        """Read the change of a modality from the fields of a form, which may come from anywhere.

        Raises:
            RobustTuneError: A field has an unknown value.
        """
        mode = form.get(f"{modality}_mode", "keep")
        _check(f"{modality}_mode", mode, MODES)
        if mode != "noise":
            return cls(mode)
        kinds = IMAGE_NOISE if modality == "image" else TEXT_NOISE
        kind, severity = (form.get(f"{modality}_{name}", "") for name in ("kind", "severity"))
        _check(f"{modality}_kind", kind, kinds)
        _check(f"{modality}_severity", severity, map(str, SEVERITIES))
        return cls(mode, kind, int(severity))


@dataclass(frozen=True)
class Sample:
    """An image and a text, either of which may be missing, and what is done to them.

    Attributes:
        image: Image as RGB, with the noise already added; None if none was given.
        text: Text, with the noise already added; None if none was given.
        removed: Modalities that the visitor has switched off.
    """

    image: Image.Image | None
    text: str | None
    removed: frozenset[str] = frozenset()


def read_sample(
    image: bytes | None, image_name: str, form: Mapping[str, str], preprocessing: Preprocessing, other: str | None
) -> Sample:
    """Read a sample from an upload, and add the noise that the form asks for.

    Args:
        image: Content of an image file, or None.
        image_name: Name of the image in error messages.
        form: Fields ``text`` and those of `Change.read`.
        preprocessing: Preprocessing of the image encoder.
        other: Text of another sample, for the noise ``other_text``.

    Raises:
        RobustTuneError: The text is too long, the image is too large, or a field has an unknown value.
        UnreadableImageError: The file is no image, or is damaged.
    """
    text = form.get("text", "").replace("\r\n", "\n").strip() or None
    if text is not None and len(text) > TEXT_CHARACTERS:
        raise RobustTuneError(
            f"the text has {len(text):,} characters, more than the {TEXT_CHARACTERS:,} that this page takes: shorten it"
        )
    changes = {modality: Change.read(form, modality) for modality in ("image", "text")}
    picture = read_upload(image, image_name) if image else None
    if picture is not None and changes["image"].mode == "noise":
        picture = noisy_image(picture, changes["image"], preprocessing)
    if text is not None and changes["text"].mode == "noise":
        kind = cast(TextNoiseKind, changes["text"].kind)
        text = corrupt_text(text, kind, changes["text"].severity, np.random.default_rng(NOISE_SEED), other)
    return Sample(picture, text, frozenset(name for name, change in changes.items() if change.mode == "remove"))


def read_upload(content: bytes, name: str) -> Image.Image:
    """Read an image file of unknown origin as RGB. Its size is checked before its pixels are decoded.

    Args:
        content: Content of the file.
        name: Name of the image in error messages.

    Raises:
        RobustTuneError: The image has too many pixels, or is far longer than wide.
        UnreadableImageError: The file is no image, or is damaged.

    Example:
        >>> read_upload(b"<svg xmlns='http://www.w3.org/2000/svg'/>", "logo.svg")
        Traceback (most recent call last):
        robusttune.data.images.UnreadableImageError: logo.svg cannot be read as an image (its format is SVG, which \
is not read; convert it to JPEG or PNG)
    """
    size = (1, 1)
    with suppress(Exception), open_image(BytesIO(content)) as opened:  # read_image gives the reason.
        size = opened.size
    if size[0] * size[1] > PIXELS:
        raise RobustTuneError(
            f"{name} has {size[0]} x {size[1]} pixels, more than the {PIXELS // 1_000_000} million that this page "
            "takes: make it smaller"
        )
    if max(size) > ASPECT * min(size):
        raise RobustTuneError(f"{name} has {size[0]} x {size[1]} pixels, which is too long and narrow: crop it")
    return read_image(BytesIO(content), name)


def noisy_image(image: Image.Image, change: Change, preprocessing: Preprocessing) -> Image.Image:
    """Add noise to an image at the size to which the encoder resizes it, where a test adds it too.

    On the full photo, noise on single pixels would vanish when the photo is made smaller afterwards.

    Args:
        image: Image of any size.
        change: Kind and severity of the noise.
        preprocessing: Preprocessing of the image encoder.

    Returns:
        Image whose shorter edge is that of the encoder's resized image, before its crop.
    """
    resized = round(preprocessing.size / preprocessing.crop)
    size = (resized, resized)
    if preprocessing.crop_mode == "center":
        size = (int(resized * image.width / min(image.size)), int(resized * image.height / min(image.size)))
    small = image.resize(size, Image.Resampling[preprocessing.interpolation.upper()])
    pixels = functional.pil_to_tensor(small)
    kind = cast(ImageNoiseKind, change.kind)
    noisy = corrupt_image(pixels, kind, change.severity, np.random.default_rng(NOISE_SEED))
    return Image.fromarray(noisy.permute(1, 2, 0).numpy())


def _check(name: str, value: str, known: object) -> None:
    """Raise an error for a field with an unknown value."""
    choice = [*known]  # type: ignore[misc]
    if value not in choice:
        raise RobustTuneError(f"{name} is {value!r:.50}: give {', '.join(choice)}")
