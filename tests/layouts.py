"""Small generated copies of every data set, in the layout in which the data set is distributed."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value
from datasets import Image as ImageFeature
from PIL import Image

from robusttune.data.sources import (
    SNLIVE,
    CoOp,
    FGVCAircraft,
    Food101,
    HatefulMemes,
    HuggingFace,
    ImageFolder,
    ImageNet,
    ImageNetVariant,
    MMIMDb,
    MMIMDbHDF5,
    Source,
    Table,
)
from robusttune.data.sources.mmimdb import GENRES

WNIDS = ("n01440764", "n02012849", "n03126707", "n03710637", "n03710721")
NAMES = ("tench", "crane", "crane", "maillot", "maillot")
VARIANTS = ("F-16A/B", "Boeing 737-200", "Spitfire")


class Layout(NamedTuple):
    """A generated copy of a data set.

    Attributes:
        write: Function that writes the copy into a folder.
        source: Function that returns the data source for the folder.
        samples: Numbers of samples in train, val and test; None for a split that the data set lacks.
    """

    write: Callable[[Path], None]
    source: Callable[[Path], Source]
    samples: tuple[int | None, int | None, int | None]


def picture(path: Path, number: int) -> str:
    """Write an image of 20 x 16 pixels that is different for each number, and return its file name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(number)
    pixels = np.kron(rng.integers(0, 256, (4, 5, 3), dtype=np.uint8), np.ones((4, 4, 1), dtype=np.uint8))
    Image.fromarray(pixels).save(path)
    return path.name


def jsonl(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Write rows as JSON lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def write_mmimdb(root: Path) -> None:
    """Write MM-IMDb as JSON and JPEG files: twelve films, where the second one of each split has only rare genres."""
    splits = {"train": range(6), "dev": range(6, 9), "test": range(9, 12)}
    for split in splits.values():
        for index, number in enumerate(split):
            genres = ["News", "Adult"] if index == 1 else [GENRES[number], GENRES[-number - 1]]
            metadata = {"plot": ["Short.", f"Film {number} tells of a dish."], "genres": genres, "title": "x"}
            picture(root / "dataset" / f"{number:07}.jpeg", number)
            (root / "dataset" / f"{number:07}.json").write_text(json.dumps(metadata))
    ids = {name: [f"{number:07}" for number in numbers] for name, numbers in splits.items()}
    (root / "split.json").write_text(json.dumps(ids))


def write_mmimdb_hdf5(root: Path, centred: bool = True) -> None:
    """Write MM-IMDb as the HDF5 file in circulation: ten films, with genres sorted by frequency.

    Args:
        root: Folder to write to.
        centred: Flag for images as in the file in circulation, with channel means subtracted and in the order blue,
            green, red. Otherwise the images are plain RGB.
    """
    root.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    by_frequency = [GENRES[index] for index in rng.permutation(len(GENRES))]
    images = np.full((10, 3, 256, 160), 200, dtype=np.int32)
    images[:, 0], images[:, 1] = np.arange(10)[:, None, None], 10
    if centred:  # the channels change from RGB to BGR
        images = (images[:, ::-1] - np.array([103.939, 116.779, 123.68])[None, :, None, None]).astype(np.int32)
    genres = np.zeros((10, 23), dtype=np.int32)
    for row in range(10):
        genres[row, [row, row + 1]] = 1
    words = ["_UNK_", "a", "film", "of", "dishes", *(str(number) for number in range(10))]
    with h5py.File(root / "multimodal_imdb.hdf5", "w") as file:
        file["images"] = images
        sequences = file.create_dataset("sequences", (10,), dtype=h5py.vlen_dtype(np.int32))
        for row in range(10):
            sequences[row] = [1, 2, 3, 4, 5 + row]
        file["genres"] = genres
        file["genres"].attrs["target_names"] = json.dumps(by_frequency)
        file["imdb_ids"] = np.array([f"{row:07}" for row in range(10)], dtype="S7")
    metadata = {"ix_to_word": dict(enumerate(words)), "vocab_size": len(words), "lookup": np.zeros((2, 3))}
    np.save(root / "metadata.npy", np.array(metadata, dtype=object), allow_pickle=True)


def write_snli_ve(root: Path, key: str = "Flickr30K_ID", folder: str = "images") -> None:
    """Write SNLI-VE: 9 training, 6 dev and 6 test samples about four photos.

    Args:
        root: Folder to write to.
        key: Name of the field with the photo; with another name than ``Flickr30K_ID`` its value has a suffix.
        folder: Name of the folder with the photos.
    """
    for number in range(4):
        picture(root / folder / f"{100 + number}.jpg", number)
    labels = ("entailment", "neutral", "contradiction")
    for split_index, (split, size) in enumerate({"train": 9, "dev": 6, "test": 6}.items()):
        photo = {"train": 0, "dev": 2, "test": 3}[split]
        rows = (
            {
                "sentence1": "unused",
                "sentence2": f"A cook makes dish {number} of {split}.",
                "gold_label": labels[number % 3],
                key: f"{100 + photo + number % (2 - (split_index > 0))}{'' if key == 'Flickr30K_ID' else '.jpg'}",
            }
            for number in range(size)
        )
        jsonl(root / f"snli_ve_{split}.jsonl", rows)


def write_hateful_memes(root: Path, padded: bool = True, labelled: bool = True) -> None:
    """Write Hateful Memes.

    Args:
        root: Folder to write to.
        padded: Flag for ids as texts with leading zeros, else as numbers.
        labelled: Flag for labels in the test splits.
    """
    sizes = {"train": 8, "dev_seen": 4, "dev_unseen": 2, "test_seen": 4, "test_unseen": 4}
    number = 0
    for split, size in sizes.items():
        rows = []
        for _ in range(size):
            number += 1
            name = f"img/{number:05}.png"
            picture(root / name, number)
            row = {"id": f"{number:05}" if padded else number, "img": name, "text": f"words {number}"}
            rows.append(row | ({} if split.startswith("test") and not labelled else {"label": number % 2}))
        jsonl(root / f"{split}.jsonl", rows)


def write_coop(root: Path) -> None:
    """Write Oxford Pets with a split file of CoOp, with three classes whose indices are not in alphabetical order."""
    names = ["pug", "Abyssinian cat", "leonberger"]
    splits: dict[str, list[list[Any]]] = {}
    for split_index, (split, each) in enumerate({"train": 4, "val": 2, "test": 3}.items()):
        splits[split] = []
        for label, name in enumerate(names):
            for number in range(each):
                file = f"{name}_{split}_{number}.jpg"
                picture(root / "oxford_pets/images" / file, 100 * split_index + 10 * label + number)
                splits[split].append([file, label, name])
    (root / "oxford_pets/split_zhou_OxfordPets.json").write_text(json.dumps(splits))


def write_aircraft(root: Path) -> None:
    """Write FGVC-Aircraft with three variants."""
    for split_index, (split, each) in enumerate({"train": 4, "val": 2, "test": 2}.items()):
        lines = []
        for label, variant in enumerate(VARIANTS):
            for number in range(each):
                name = f"{split_index}{label}{number:05}"
                picture(root / "images" / f"{name}.jpg", 100 * split_index + 10 * label + number)
                lines.append(f"{name} {variant}\n")
        (root / f"images_variant_{split}.txt").write_text("".join(lines))
    (root / "variants.txt").write_text("".join(f"{variant}\n" for variant in VARIANTS))


def write_classnames(root: Path, newline: str = "\n") -> None:
    """Write CoOp's file of ImageNet class names, in which two names occur twice."""
    root.mkdir(parents=True, exist_ok=True)
    lines = (f"{wnid} {name}{newline}" for wnid, name in zip(WNIDS, NAMES, strict=True))
    (root / "classnames.txt").write_text("".join(lines), newline="")


def write_imagenet(root: Path) -> None:
    """Write ImageNet with five classes, 4 training and 2 validation images each."""
    write_classnames(root)
    for label, wnid in enumerate(WNIDS):
        for number in range(4):
            picture(root / "images/train" / wnid / f"{wnid}_{number}.JPEG", 10 * label + number)
        for number in range(2):
            picture(root / "images/val" / wnid / f"ILSVRC2012_val_{label}{number}.JPEG", 1000 + 10 * label + number)


def write_imagenet_a(root: Path) -> None:
    """Write ImageNet-A with three of the five classes, a README beside their folders, and spaces in file names."""
    write_classnames(root)
    for label, wnid in enumerate(WNIDS[1:4]):
        for number in range(2):
            picture(root / "imagenet-a" / wnid / f"0.001_a {wnid} _ b {number}.jpg", 2000 + 10 * label + number)
    (root / "imagenet-a/README.txt").write_text("Read me.")


def write_imagenet_v2(root: Path) -> None:
    """Write ImageNetV2, whose folders are named by class index."""
    write_classnames(root)
    for label in range(len(WNIDS)):
        for number in range(2):
            picture(root / "v2" / str(label) / f"{number}.jpeg", 3000 + 10 * label + number)


def write_image_folder(root: Path) -> None:
    """Write a folder per split and class, with images at two depths and a file that is not an image."""
    for split_index, split in enumerate(("train", "val", "test")):
        for label, name in enumerate(("soup", "pie")):
            for number in range(4):
                inner = "more" if number % 2 else "."
                picture(root / split / name / inner / f"{number}.png", 100 * split_index + 10 * label + number)
            (root / split / name / "notes.txt").write_text("no image")


def write_hugging_face(root: Path) -> None:
    """Write a saved data set of Hugging Face, in which every fourth sample has no image and every fifth no text."""
    features = Features({"photo": ImageFeature(), "title": Value("string"), "dish": ClassLabel(names=["soup", "pie"])})
    splits = {}
    for split_index, (split, size) in enumerate({"train": 12, "validation": 6, "test": 6}.items()):
        files = [root / "files" / f"{split}{number}.png" for number in range(size)]
        for number, path in enumerate(files):
            picture(path, 100 * split_index + number)
        rows: dict[str, list[Any]] = {
            "photo": [None if number % 4 == 3 else path.read_bytes() for number, path in enumerate(files)],
            "title": ["" if number % 5 == 4 else f"dish {number} of {split}" for number in range(size)],
            "dish": [number % 2 for number in range(size)],
        }
        rows["photo"] = [None if data is None else {"bytes": data, "path": None} for data in rows["photo"]]
        splits[split] = Dataset.from_dict(rows, features=features)
    DatasetDict(splits).save_to_disk(root / "saved")


def write_food101_copy(root: Path) -> None:
    """Write UPMC Food-101 with 4 training and 2 test samples per class."""
    from dishes import write_food101

    write_food101(root, {"train": 4, "test": 2}, seed=0, size=24)


def write_table_copy(root: Path) -> None:
    """Write JSONL tables, in which every fourth sample has no image and every fifth no text."""
    for split_index, (split, size) in enumerate({"train": 12, "val": 6, "test": 6}.items()):
        rows = [
            {
                "id": f"{split} {number}",
                "image": "" if number % 4 == 3 else f"photos/{split}{number}.png",
                "text": "" if number % 5 == 4 else f"dish {number} of {split}",
                "label": ["soup", "pie"][number % 2],
            }
            for number in range(size)
        ]
        for number in range(size):
            picture(root / f"photos/{split}{number}.png", 100 * split_index + number)
        jsonl(root / f"{split}.jsonl", rows)


def coop_source(root: Path) -> CoOp:
    """Return the source for the files of `write_coop`."""
    return CoOp(str(root), "oxford_pets/split_zhou_OxfordPets.json", "oxford_pets/images")


def variant(folder: str, numbered: bool = False) -> Callable[[Path], Source]:
    """Return a function that returns the source for an ImageNet variant.

    Args:
        folder: Name of the folder with the images.
        numbered: Flag for folders that are named by class index, else by WordNet id.
    """
    return lambda root: ImageNetVariant(str(root / folder), str(root / "classnames.txt"), numbered)


def table_source(root: Path) -> Table:
    """Return the source for the files of `write_table_copy`."""
    train, val, test = (str(root / f"{split}.jsonl") for split in ("train", "val", "test"))
    return Table(train=train, val=val, test=test)


def folder_source(root: Path) -> ImageFolder:
    """Return the source for the files of `write_image_folder`."""
    return ImageFolder(**{split: str(root / split) for split in ("train", "val", "test")})


LAYOUTS = {
    "food101": Layout(write_food101_copy, lambda root: Food101(str(root)), (48, None, 24)),
    "mmimdb": Layout(write_mmimdb, lambda root: MMIMDb(str(root)), (6, 3, 3)),
    "mmimdb_hdf5": Layout(write_mmimdb_hdf5, lambda root: MMIMDbHDF5(str(root), (6, 2, 2)), (6, 2, 2)),
    "snli_ve": Layout(write_snli_ve, lambda root: SNLIVE(str(root)), (9, 6, 6)),
    "hateful_memes": Layout(write_hateful_memes, lambda root: HatefulMemes(str(root)), (8, 4, 4)),
    "oxford_pets": Layout(write_coop, coop_source, (12, 6, 9)),
    "fgvc_aircraft": Layout(write_aircraft, lambda root: FGVCAircraft(str(root)), (12, 6, 6)),
    "imagenet": Layout(
        write_imagenet, lambda root: ImageNet(str(root / "images"), str(root / "classnames.txt")), (20, 10, 10)
    ),
    "imagenet_v2": Layout(write_imagenet_v2, variant("v2", numbered=True), (None, None, 10)),
    "imagenet_a": Layout(write_imagenet_a, variant("imagenet-a"), (None, None, 6)),
    "image_folder": Layout(write_image_folder, folder_source, (8, 8, 8)),
    "hugging_face": Layout(
        write_hugging_face,
        lambda root: HuggingFace(str(root / "saved"), image_column="photo", text_column="title", label_column="dish"),
        (12, 6, 6),
    ),
    "table": Layout(write_table_copy, table_source, (12, 6, 6)),
}
