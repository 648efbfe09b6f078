"""Pooled features of the suite's tables, computed once and kept beside the tables."""

from __future__ import annotations

import hashlib
import json
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml
from experiments.encoding import Encoders, encoded_batches
from experiments.small_tables.splits import SPLITS
from experiments.small_tables.writing import ALL, DESCRIPTION
from numpy.typing import NDArray

from robusttune.paths import atomic_write

LINKED = "data/small_tables/"  # where the encoders' configurations look for the suite


class TableFeatures(NamedTuple):
    """Features of the N samples of a table, in the order of their ids.

    Attributes:
        ids: Id of each sample, shape (N,).
        image: Pooled features of the images, (N, d).
        text: Pooled features of the texts, (N, d'); zeros where the text is missing.
        has_text: Whether there is a text, shape (N,).
        label: Class of each sample, shape (N,), or 0 and 1 for each class, (N, K).
    """

    ids: NDArray[np.str_]
    image: NDArray[np.float32]
    text: NDArray[np.float32]
    has_text: NDArray[np.bool_]
    label: NDArray[np.int64]


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
    made_by = [described["packages"], encoder_file(described["encoders"]).read_text(encoding="utf-8")]
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
    parts: list[tuple[Any, ...]] = []
    encoders, multilabel = encoders_of(root, described["encoders"]), described["task"] == "multi-label"
    for batch, image, text in encoded_batches(encoders, table, table.parent, multilabel):
        assert batch.label is not None
        parts.append((batch.sample_id, image.pooled, text.pooled, batch.text_present, batch.label))
    ids, *columns = (np.concatenate([np.asarray(part[place]) for part in parts]) for place in range(5))
    order = np.argsort(ids)
    return TableFeatures(ids[order], *(column[order] for column in columns))


def split_places(root: Path, name: str, split: int, ids: NDArray[np.str_]) -> tuple[NDArray[np.int64], ...]:
    """Return the places of the training samples and of the test samples of a split among sorted ids."""
    assert split in SPLITS
    parts = []
    for part in ("train", "test"):
        lines = (root / name / f"{split}-{part}.jsonl").read_text(encoding="utf-8").splitlines()
        parts.append(np.searchsorted(ids, sorted(json.loads(line)["id"] for line in lines)))
    return tuple(parts)
