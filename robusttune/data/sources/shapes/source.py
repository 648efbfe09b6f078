"""The data source `Shapes`: generated scenes with captions, without files and with a known Bayes accuracy."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image

from robusttune.code_hash import code_hash
from robusttune.corruption import dropout
from robusttune.corruption.dropout import sample_generator
from robusttune.data.images import ImageReader
from robusttune.data.sources.base import Record, Source, to_table
from robusttune.data.sources.shapes.bayes import bayes_accuracy
from robusttune.data.sources.shapes.caption import caption, caption_lengths
from robusttune.data.sources.shapes.drawing import StyleName, draw
from robusttune.data.sources.shapes.world import World
from robusttune.errors import RobustTuneError
from robusttune.types import Split, View


@dataclass(frozen=True)
class Shapes(Source):
    """A generated data set of scenes with shapes, each an image of 64 x 64 pixels with a caption.

    Each modality may hide values that the other one shows. A sample depends only on the seed, its split and its index,
    and is drawn when it is read.

    Args:
        world: Distribution of the scenes: their classes, and the values that each modality hides.
        style: Style of drawing: ``paper``, or ``blackboard``, which shifts the domain.
        train: Number of training samples, at least 1.
        val: Number of validation samples, at least 1.
        test: Number of test samples, at least 1.
        seed: Random seed, at least 0. Another seed gives other samples of the same distribution.

    Raises:
        RobustTuneError: If a split has no samples, or the seed is negative.

    Example:
        >>> shapes = Shapes(train=4)
        >>> len(shapes.read("train")), shapes.draw("train", 0).size
        (4, (64, 64))
    """

    world: World = World()  # noqa: RUF009, a frozen default can be shared
    style: StyleName = "paper"
    train: int = 4000
    val: int = 1000
    test: int = 2000
    seed: int = 0

    def __post_init__(self) -> None:
        least = {"train": 1, "val": 1, "test": 1, "seed": 0}
        for name, value in least.items():
            if getattr(self, name) < value:
                raise RobustTuneError(f"data.source.{name} is {getattr(self, name)}: give at least {value}")

    @property
    def images(self) -> ImageReader:
        """Return a reader that draws the images."""
        return Drawings(self)

    def read(self, split: Split) -> pa.Table | None:
        """Return the records of ``train``, ``val`` or ``test``, or None for ``predict``."""
        if split not in ("train", "val", "test"):
            return None
        return to_table(self._record(split, index) for index in range(getattr(self, split)))

    def class_names(self, train: pa.Table) -> list[str]:
        """Return the names of all classes of the world, also those without a sample in the table."""
        return self.world.class_names

    def draw(self, split: str, index: int) -> Image.Image:
        """Draw the image of a sample, RGB, 64 x 64 pixels.

        Args:
            split: Name of the split.
            index: Index of the sample within the split.
        """
        return draw(self.world.scene(self.seed, split, index), self.style, self._rng(split, index, "image"))

    def caption(self, split: str, index: int) -> str:
        """Return the caption of a sample.

        Args:
            split: Name of the split.
            index: Index of the sample within the split.
        """
        return caption(self.world.scene(self.seed, split, index), self._rng(split, index, "text"))

    def bayes_accuracy(self, view: View) -> float | None:
        """Return the Bayes accuracy, in [0, 1], over the whole distribution, not the samples drawn from it.

        Returns:
            Accuracy, or None where a modality is neither clean nor missing.
        """
        if not {view.image, view.text} <= {"clean", None}:
            return None
        return bayes_accuracy(self.world, caption_lengths(), view.image is not None, view.text is not None)

    def bayes_accuracy_when(
        self, image_missing: float = 0.0, text_missing: float = 0.0, word_dropout: float = 0.0
    ) -> float:
        """Return the Bayes accuracy, in [0, 1], if modalities are missing at random and words are dropped from texts.

        Args:
            image_missing: Probability that a sample has no image.
            text_missing: Probability that a sample has no text. No sample lacks both, so the two sum to at most 1.
            word_dropout: Probability that a word is dropped from a text, independently of other words.

        Raises:
            RobustTuneError: If a number is no probability, or the two rates sum to more than 1.
        """
        rates = (image_missing, text_missing)
        if not (min(rates) >= 0 and sum(rates) <= 1):  # written so that NaN fails, too
            raise RobustTuneError(
                f"image_missing {image_missing} and text_missing {text_missing} do not work: "
                "give probabilities that add up to at most 1"
            )
        conditions = {(False, True): image_missing, (True, False): text_missing, (True, True): 1 - sum(rates)}
        return sum(
            probability * bayes_accuracy(self.world, caption_lengths(), *present, word_dropout)
            for present, probability in conditions.items()
        )

    def _record(self, split: str, index: int) -> Record:
        scene = self.world.scene(self.seed, split, index)
        text = caption(scene, self._rng(split, index, "text"))
        return Record(str(index), f"{split}/{index}", text, [self.world.class_names[scene.label]])

    def _rng(self, split: str, index: int, use: str) -> np.random.Generator:
        return sample_generator(self.seed, 0, f"{split}/{index}", use)


class Drawings(ImageReader):
    """A reader that draws the images of a `Shapes` source, whose names are ``<split>/<index>``.

    Args:
        shapes: Data source that the images belong to.

    Example:
        >>> Drawings(Shapes()).read("train/0").mode
        'RGB'
    """

    def __init__(self, shapes: Shapes) -> None:
        self.shapes = shapes
        self.about = f"{_code()} {shapes.world} {shapes.style} {shapes.seed}"

    def missing(self, names: Iterable[str | None]) -> list[str]:
        """Return an empty list: every image can be drawn."""
        return []

    def read(self, name: str) -> Image.Image:
        """Draw an image as RGB."""
        split, _, index = name.partition("/")
        return self.shapes.draw(split, int(index))

    def digest(self, name: str) -> bytes:
        """Return a 16-byte hash of the name and everything that the pixels depend on, without drawing."""
        return hashlib.blake2b(f"{self.about} {name}".encode(), digest_size=16).digest()


@cache
def _code() -> str:
    """Return the NumPy version, which defines the random numbers, and a hash of the code that draws."""
    files = [*sorted(Path(__file__).parent.glob("*.py")), Path(dropout.__file__)]  # dropout has the random generator
    return f"numpy {np.__version__} {code_hash(*files)}"
