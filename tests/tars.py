"""Tar files of samples as the WebDataset format stores them, some without an image or a text."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable
from pathlib import Path

from PIL import Image

from robusttune.data.sources import HuggingFace, Stream

COLOURS = ("red", "lime", "blue")


def png(colour: str) -> bytes:
    """Return a plain image in PNG format."""
    content = io.BytesIO()
    Image.new("RGB", (32, 32), colour).save(content, "PNG")
    return content.getvalue()


def files_of(number: int) -> dict[str, bytes]:
    """Return the files of a sample by their endings. Every fourth has no image, every fifth no text."""
    colour = COLOURS[number % len(COLOURS)]
    found = {"cls": str(number % len(COLOURS)).encode()}
    if number % 4:
        found["png"] = png(colour)
    if number % 5:
        found["txt"] = f"a {colour} thing, number {number}".encode()
    return found


def write_tar(path: Path, samples: Iterable[dict[str, bytes]]) -> None:
    """Write samples to a tar file, one after the other.

    Args:
        path: Path of the file.
        samples: Files of each sample by their endings.
    """
    with tarfile.open(path, "w") as tar:
        for number, files in enumerate(samples):
            for ending, content in files.items():
                info = tarfile.TarInfo(f"{number:05d}.{ending}")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))


def streamed(folder: Path, sizes: Iterable[int], stream: Stream | None = Stream(buffer=7)) -> HuggingFace:  # noqa: B008
    """Write tar files of training samples and one of validation samples, and return their source.

    Args:
        folder: Folder of the files.
        sizes: Number of samples of each file of training samples.
        stream: Settings of the stream; None to load the training samples whole.
    """
    first = 0
    for number, size in enumerate(sizes):
        write_tar(folder / f"train-{number:02d}.tar", map(files_of, range(first, first + size)))
        first += size
    write_tar(folder / "val-0.tar", map(files_of, range(1000, 1030)))
    files: dict[str, list[str] | str] = {
        "train": str(folder / "train-*.tar"),
        "validation": [str(folder / "val-0.tar")],
    }
    columns = {"image_column": "png", "text_column": "txt", "label_column": "cls"}
    return HuggingFace("webdataset", files=files, stream=stream, **columns)  # type: ignore[arg-type]
