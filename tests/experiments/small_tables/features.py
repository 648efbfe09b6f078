"""Features of the suite's tables, computed once and kept beside the tables."""

from __future__ import annotations

import hashlib
import json
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import yaml
from experiments.encoding import Encoders, encoded_batches
from experiments.small_tables.splits import SPLITS
from experiments.small_tables.writing import ALL, DESCRIPTION
from numpy.typing import NDArray

from robusttune.models.attention import masked_mean
from robusttune.models.fitted import TrainingFeatures
from robusttune.paths import atomic_write
from robusttune.types import Encoded, Widths

LINKED = "data/small_tables/"  # where the encoders' configurations look for the suite


class TableFeatures(NamedTuple):
    """Features of the ``N`` samples of a table, in the order of their ids.

    Attributes:
        ids: Ids of the samples, shape (N,).
        image: Pooled features of the images, then the mean token of each layer, shape (N, d).
        text: Features of the texts, in the same order, shape (N, d'), arbitrary where the text is missing.
        present: Flags that the sample has an image and that it has a text, shape (N, 2).
        label: Class indices, shape (N,), or 0/1 per class, shape (N, C).
        image_widths: Widths of the parts of ``image``.
        text_widths: Widths of the parts of ``text``.
    """

    ids: NDArray[np.str_]
    image: NDArray[np.float32]
    text: NDArray[np.float32]
    present: NDArray[np.bool_]
    label: NDArray[np.int64]
    image_widths: NDArray[np.int64]
    text_widths: NDArray[np.int64]

    @property
    def widths(self) -> tuple[Widths, Widths]:
        """Widths of the encoders' outputs, as networks are built with."""
        image, text = self.image_widths.tolist(), self.text_widths.tolist()
        return Widths(tuple(image[1:]), image[0]), Widths(tuple(text[1:]), text[0])

    def samples(self, rows: NDArray[np.int64]) -> TrainingFeatures:
        """Return some samples, as networks are fitted to."""
        columns = (self.image, self.text, self.present, self.label)
        image, text, present, label = (torch.tensor(column[rows]) for column in columns)
        return TrainingFeatures(image, text, present, label, self.ids[rows].tolist())


def descriptions(root: Path) -> list[dict[str, Any]]:
    """Return the descriptions of all tables in a folder, by name."""
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(root.glob(f"*/{DESCRIPTION}"))]


def encoder_file(name: str) -> Path:
    """Return the configuration of encoders."""
    return Path(__file__).parent / f"encoders/{name}.yaml"


def encoders_of(root: Path, name: str) -> Encoders:
    """Return the settings of encoders that the protocol names."""
    configuration = yaml.safe_load(encoder_file(name).read_text(encoding="utf-8").replace(LINKED, f"{root.resolve()}/"))
    found = []
    for side in ("image_encoder", "text_encoder"):
        module, _, name = configuration[side]["class_path"].rpartition(".")
        found.append(getattr(import_module(module), name)(**configuration[side]["init_args"]))
    return Encoders(*found)


def features(root: Path, described: dict[str, Any]) -> TableFeatures:
    """Return the features of a table, and compute them if they are not in `features/`.

    Args:
        root: Folder of the suite.
        described: Description of the table.
    """
    table = root / described["name"] / ALL
    encoders = encoder_file(described["encoders"]).read_text(encoding="utf-8")
    made_by = [described["packages"], encoders, TableFeatures._fields]
    key = hashlib.sha256(table.read_bytes() + json.dumps(made_by).encode())
    path = root / "features" / f"{key.hexdigest()[:16]}.npz"
    if not path.exists():
        path.parent.mkdir(exist_ok=True)
        found = _computed(root, described, table)
        with atomic_write(path) as temporary, temporary.open("wb") as file:
            np.savez(file, **found._asdict())
    with np.load(path) as stored:
        return TableFeatures(**stored)


def _computed(root: Path, described: dict[str, Any], table: Path) -> TableFeatures:
    parts, widths = list[tuple[Any, ...]](), list[list[int]]()
    encoders, multilabel = encoders_of(root, described["encoders"]), described["task"] == "multi-label"
    for batch, *outputs in encoded_batches(encoders, table, table.parent, multilabel):
        assert batch.label is not None
        pieces = [_pieces(output) for output in outputs]
        widths = [[part.shape[1] for part in of_one] for of_one in pieces]
        present = torch.stack([batch.image_present, batch.text_present], 1)
        parts.append((batch.sample_id, *(torch.cat(of_one, 1) for of_one in pieces), present, batch.label.long()))
    ids, *columns = (np.concatenate([np.asarray(part[place]) for part in parts]) for place in range(5))
    order = np.argsort(ids)
    return TableFeatures(ids[order], *(column[order] for column in columns), *map(np.array, widths))


def _pieces(output: Encoded) -> list[torch.Tensor]:
    """Return the pooled features and the mean token of each layer."""
    layers = zip(output.tokens, output.mask, strict=True)
    return [output.pooled, *(masked_mean(tokens, mask) for tokens, mask in layers)]


def split_places(root: Path, name: str, split: int, ids: NDArray[np.str_]) -> tuple[NDArray[np.int64], ...]:
    """Return the places of the training samples and of the test samples of a split among sorted ids."""
    assert split in SPLITS
    parts = []
    for part in ("train", "test"):
        lines = (root / name / f"{split}-{part}.jsonl").read_text(encoding="utf-8").splitlines()
        parts.append(np.searchsorted(ids, sorted(json.loads(line)["id"] for line in lines)))
    return tuple(parts)
