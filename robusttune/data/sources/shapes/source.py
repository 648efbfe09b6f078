"""Generated scenes with captions as a data source: no files, and the best possible accuracy is known."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image

from robusttune.corruption import dropout
from robusttune.corruption.dropout import sample_generator
from robusttune.data.images import ImageReader
from robusttune.data.sources.base import Record, Source, to_table
from robusttune.data.sources.shapes.bayes import best_accuracy
from robusttune.data.sources.shapes.caption import caption, caption_lengths
from robusttune.data.sources.shapes.drawing import StyleName, draw
from robusttune.data.sources.shapes.world import World
from robusttune.errors import RobustTuneError
from robusttune.paths import code_hash
from robusttune.types import Split, View


@dataclass(frozen=True)
class Shapes(Source):
    """64 px scenes of shapes, and captions that tell of them; either may hide what the other shows.

    A sample is a function of the seed, its split and its index alone, and is drawn when it is asked for.

    Args:
        world: which scenes there are, what makes their classes, and what either side hides.
        style: how scenes are drawn: on ``paper``, or on a ``blackboard``, which shifts the domain.
        train: number of training samples, at least 1.
        val: number of validation samples, at least 1.
        test: number of test samples, at least 1.
        seed: at least 0; another one gives other samples of the same distribution.

    Raises:
        RobustTuneError: a split has no samples.
    """

    world: World = World()  # noqa: RUF009, it is frozen
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
        return Drawings(self)

    def read(self, split: Split) -> pa.Table | None:
        if split not in ("train", "val", "test"):
            return None
        return to_table(self._record(split, index) for index in range(getattr(self, split)))

    def class_names(self, train: pa.Table) -> list[str]:
        return self.world.class_names

    def draw(self, split: str, index: int) -> Image.Image:
        """The image of a sample, (64, 64) RGB."""
        return draw(self.world.scene(self.seed, split, index), self.style, self._rng(split, index, "image"))

    def tell(self, split: str, index: int) -> str:
        """The text of a sample."""
        return caption(self.world.scene(self.seed, split, index), self._rng(split, index, "text"))

    def best_accuracy(self, view: View) -> float | None:
        """That of Bayes' rule over all samples that might be drawn; None where a side is neither clean nor absent."""
        if not {view.image, view.text} <= {"clean", None}:
            return None
        return best_accuracy(self.world, caption_lengths(), view.image is not None, view.text is not None)

    def best_accuracy_when(
        self, image_missing: float = 0.0, text_missing: float = 0.0, word_dropout: float = 0.0
    ) -> float:
        """That of Bayes' rule, in [0, 1], where sides are missing at random and texts lack words.

        Args:
            image_missing: probability that a sample has no image.
            text_missing: probability that it has no text; never both, so the two add up to at most 1.
            word_dropout: probability that a word is left out, as in `ModalityDropout`.

        Raises:
            RobustTuneError: these are no such probabilities.
        """
        rates = (image_missing, text_missing)
        if not (min(rates) >= 0 and sum(rates) <= 1):  # not a number is none of it
            raise RobustTuneError(
                f"image_missing {image_missing} and text_missing {text_missing} do not work: "
                "give probabilities that add up to at most 1"
            )
        shares = {(False, True): image_missing, (True, False): text_missing, (True, True): 1 - sum(rates)}
        return sum(
            share * best_accuracy(self.world, caption_lengths(), *shown, word_dropout)
            for shown, share in shares.items()
        )

    def _record(self, split: str, index: int) -> Record:
        scene = self.world.scene(self.seed, split, index)
        text = caption(scene, self._rng(split, index, "text"))
        return Record(str(index), f"{split}/{index}", text, [self.world.class_names[scene.label]])

    def _rng(self, split: str, index: int, use: str) -> np.random.Generator:
        return sample_generator(self.seed, 0, f"{split}/{index}", use)


class Drawings(ImageReader):
    """The images of `Shapes`, by ``<split>/<index>``.

    Args:
        shapes: that they are of.
    """

    def __init__(self, shapes: Shapes) -> None:
        self.shapes = shapes
        self.about = f"{_code()} {shapes.world} {shapes.style} {shapes.seed}"

    def missing(self, names: Iterable[str | None]) -> list[str]:
        return []

    def read(self, name: str) -> Image.Image:
        split, _, index = name.partition("/")
        return self.shapes.draw(split, int(index))

    def digest(self, name: str) -> bytes:
        return hashlib.blake2b(f"{self.about} {name}".encode(), digest_size=16).digest()


@cache
def _code() -> str:
    """What draws: a hash of the code, and the version of the library whose random numbers it takes."""
    files = [*sorted(Path(__file__).parent.glob("*.py")), Path(dropout.__file__)]  # which has the generator
    return f"numpy {np.__version__} {code_hash(*files)}"
