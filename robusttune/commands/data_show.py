"""The command ``data show``: draw samples with their texts and labels, clean and with each kind of noise."""

from __future__ import annotations

from typing import get_args

from jsonargparse import ArgumentParser
from PIL import Image
from torchvision.transforms.v2.functional import to_pil_image

from robusttune.commands.data_config import read_data
from robusttune.corruption.noise import SEVERITIES, ImageNoise, ImageNoiseKind, TextNoise, TextNoiseKind
from robusttune.data import ImageTextDataModule
from robusttune.data.image_modality import Images, Pixels, SampleImages, unreadable_parts
from robusttune.data.images import UnreadableImageError
from robusttune.data.modalities import Texts
from robusttune.data.rows import Rows
from robusttune.encoders import ImageTransform
from robusttune.errors import RobustTuneError
from robusttune.evaluation.contact_sheet import Strip, draw_strips
from robusttune.evaluation.drawing import tiled
from robusttune.evaluation.sample_text import evenly_spaced, names_or_none
from robusttune.paths import atomic_write, user_path
from robusttune.terminal import print_line
from robusttune.types import Split

CLEAN = "clean"


def run(args: list[str]) -> None:
    """Run the command.

    Args:
        args: Arguments of the command line after ``data show``.

    Raises:
        RobustTuneError: The data cannot be read, or an option is invalid.
    """
    given, data = read_data("data show", "Draw samples of a data set.", args, _add)
    if given.severity not in SEVERITIES or given.samples < 1:
        raise RobustTuneError(f"--severity is {given.severity}, --samples {given.samples}: give 1 to 5, and at least 1")
    out = user_path(given.out)
    if out.is_dir():
        raise RobustTuneError(f"--out {given.out} is a folder: give a path of a PNG file")
    samples = data.rows(given.split)
    if samples is None:
        is_stream = given.split == "train" and data.source.training_stream is not None
        has = "reads the train split as a stream" if is_stream else f"has no {given.split} split"
        raise RobustTuneError(f"the data {has}: give another --split")
    rows = evenly_spaced(len(samples), given.samples)
    sheet = draw_strips(
        [strip_of(data, samples, row, given.severity) for row in rows],
        title=f"{given.split}: {len(rows)} of {len(samples):,} samples, noise of severity {given.severity}",
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(out) as partial:
        sheet.save(partial, format="PNG")
    print_line(f"Drawn in {out}")


def _add(parser: ArgumentParser) -> None:
    parser.add_argument("--split", type=Split, default="train", help="Split to draw samples from.")
    parser.add_argument("--samples", type=int, default=8, help="Number of samples, spread evenly over the split.")
    parser.add_argument("--severity", type=int, default=3, help="Severity of the noise, 1 to 5.")
    parser.add_argument("--out", type=str, default="samples.png", help="PNG file to write.")


def strip_of(data: ImageTextDataModule, samples: Rows, row: int, severity: int) -> Strip:
    """Return one sample as encoders receive it in a test, clean and with each kind of noise.

    Args:
        data: Data module of the sample.
        samples: Samples of a split.
        row: Row of the sample.
        severity: Severity of the noise, 1 to 5.
    """
    images, problem = _images(data, samples, row, severity)
    texts = _texts(data, samples, row, severity)
    return Strip(samples.value("id", row), names_or_none(samples.value("labels", row)), images, texts, problem)


def _images(
    data: ImageTextDataModule, samples: Rows, row: int, severity: int
) -> tuple[dict[str, Image.Image], str | None]:
    """Return the image of a sample by kind of noise, and the reason why a file cannot be read, or None.

    Several images of a sample are tiled.
    """
    pixels = Pixels(samples, data.source.images, ImageTransform(data.image_encoder.preprocessing(), None))
    images: dict[str, Image.Image] = {}
    problem: str | None = None
    if samples.value("image", row) is None:
        return images, None
    for kind in (CLEAN, *get_args(ImageNoiseKind)):
        noise = None if kind == CLEAN else ImageNoise([kind], [severity])
        try:
            image = Images(samples, pixels, noise, data.seed, 1).read(row, 0)
        except UnreadableImageError as error:
            return {}, str(error)
        problem = "; ".join(unreadable_parts(image)) or None
        images[kind] = tiled([*map(to_pil_image, image.pixels if isinstance(image, SampleImages) else [image])])
    return images, problem


def _texts(data: ImageTextDataModule, samples: Rows, row: int, severity: int) -> dict[str, str]:
    """Return the texts of a sample by kind of noise."""
    texts: dict[str, str] = {}
    if samples.value("text", row) is None:
        return texts
    tokenizer = data.text_encoder.tokenizer()
    for kind in (CLEAN, *get_args(TextNoiseKind)):
        noise = None if kind == CLEAN else TextNoise([kind], [severity])
        texts[kind] = Texts(samples, tokenizer, noise, data.seed, 1).read(row, 0)
    return texts
