"""Predict with an exported model, by onnxruntime, Pillow, NumPy and tokenizers alone.

    python example.py --image photo.jpg --text "a caption"

Leave out --image or --text where there is none.
"""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
import tokenizers
from PIL import Image

# <<< The source of these functions takes the place of their import.
from robusttune.data.images import _as_rgb, _formats, _turn_upright
from robusttune.encoders.preprocessing import resize_and_crop

# >>>


class Model:
    """A model that predicts class probabilities from images and texts, of which either may be missing.

    Args:
        folder: Folder with model.onnx and the files beside it.
    """

    def __init__(self, folder: Path) -> None:
        settings = json.loads((folder / "preprocessing.json").read_text(encoding="utf-8"))
        self.image: Any = SimpleNamespace(**settings["image"])
        self.text: Any = SimpleNamespace(**settings["text"])
        # In multi-label data, the probability from which each class is predicted: with both modalities, with the image
        # alone, with the text alone, and with neither.
        self.thresholds: list[list[float]] | None = settings["thresholds"]
        self.classes: list[str] = json.loads((folder / "classes.json").read_text(encoding="utf-8"))
        self.tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
        self.inputs = {given.name for given in self.session.get_inputs()}

    def predict(self, images: Sequence[str | Path | None], texts: Sequence[str | None]) -> np.ndarray[Any, Any]:
        """Return class probabilities, shape (N, C).

        Args:
            images: Paths of N images, None where one is missing.
            texts: N texts, None where one is missing.
        """
        texts = [text if text and text.strip() else None for text in texts]
        pixels = np.stack([self.pixels(image) for image in images])
        ids, mask = self.tokens(texts)
        inputs = {"image": pixels, "input_ids": ids, "attention_mask": mask}
        inputs["image_present"] = np.array([image is not None for image in images])
        inputs["text_present"] = np.array([text is not None for text in texts])
        # A model that reads one modality alone has no inputs for the other one.
        used = {name: value for name, value in inputs.items() if name in self.inputs}
        found: np.ndarray[Any, Any] = self.session.run(["probabilities"], used)[0]
        return found

    def pixels(self, path: str | Path | None) -> np.ndarray[Any, Any]:
        """Return the pixels of an image, shape (3, size, size), uint8; zeros if it is missing."""
        if path is None:
            return np.zeros((3, self.image.size, self.image.size), dtype=np.uint8)
        with warnings.catch_warnings(), Image.open(path, formats=_formats()) as image:
            warnings.simplefilter("ignore")
            image.load()
            _turn_upright(image)
            resized = resize_and_crop(_as_rgb(image), self.image)
        return np.asarray(resized).transpose(2, 0, 1)

    def tokens(self, texts: Sequence[str | None]) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        """Return token ids, shape (N, n), int64, and their mask, bool; zeros where a text is missing."""
        room = self.text.max_length - len(self.text.before) - len(self.text.after)
        rows: list[list[int]] = []
        for text in texts:
            own = [] if text is None else self.tokenizer.encode(text, add_special_tokens=False).ids[:room]
            whole = [*self.text.before, *own, *self.text.after] or [self.text.pad_id]
            rows.append([] if text is None else whole)
        length = max(self.text.least_tokens, *map(len, rows))
        ids = np.full((len(rows), length), self.text.pad_id, dtype=np.int64)
        for number, row in enumerate(rows):
            ids[number, : len(row)] = row
            ids[number] *= bool(row)
        return ids, np.arange(length) < np.array([len(row) for row in rows])[:, None]


def main() -> None:
    """Print the probability of each class, the most probable first; in multi-label data with a star if predicted."""
    parser = argparse.ArgumentParser(description="Predict with an exported model.")
    parser.add_argument("--image", help="Path of an image.")
    parser.add_argument("--text", help="A text.")
    given = parser.parse_args()
    model = Model(Path(__file__).resolve().parent)
    probabilities = model.predict([given.image], [given.text])[0]
    cuts = None
    if model.thresholds is not None:
        cuts = model.thresholds[3 - 2 * (given.image is not None) - bool(given.text and given.text.strip())]
    for number in probabilities.argsort()[::-1]:
        star = "" if cuts is None else "* " if probabilities[number] >= cuts[number] else "  "
        sys.stdout.write(f"{star}{probabilities[number]:.4f} {model.classes[number]}\n")


if __name__ == "__main__":
    main()
