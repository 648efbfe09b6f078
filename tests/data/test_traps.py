"""Broken copies of every data set: each ends in one sentence that names the place, the count and the remedy."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import datasets
import h5py
import huggingface_hub
import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from datasets import ClassLabel, Dataset, Features, List, Value
from datasets import Image as ImageFeature
from layouts import LAYOUTS, WNIDS, picture

from robusttune.data.images import UnreadableImageError, read_image
from robusttune.data.sources import HuggingFace, ImageNetVariant, Source, SplitNames, Table, compression, mmimdb_hdf5
from robusttune.data.sources.mmimdb import GENRES
from robusttune.data.sources.vocabulary import _Plain
from robusttune.errors import RobustTuneError

Spoil = Callable[[Path], object]

TITLES, PETS = "texts/train_titles.csv", "oxford_pets/split_zhou_OxfordPets.json"
HDF5 = "multimodal_imdb.hdf5"
DROPPED = object()
BAD_LABELS: tuple[Any, ...] = ("-", None, 0, True, ["neutral"], {}, "Neutral")
BAD_PETS: tuple[Any, ...] = (
    *(None, 7, "a.jpg", {}, [], ["a.jpg", 0], ["a.jpg", 0, "pug", 1], ["a.jpg", "0", "pug"]),
    *(["a.jpg", True, "pug"], ["a.jpg", 0.0, "pug"], ["a.jpg", None, "pug"], ["a.jpg", -1, "pug"]),
    *([0, 0, "pug"], ["a.jpg", 0, None], ["a.jpg", 0, " "], ["", 0, "pug"]),
    *(["\ud800.jpg", 0, "pug"], ["a.jpg", 0, "\udc00"], [["a.jpg"], 0, "pug"]),
)
BAD_IDS: tuple[Any, ...] = (None, 1.5, True, [], " ")
NOT_BINARY: tuple[Any, ...] = ("1", None, 2, -1, 0.5, [])
BAD_NAMES: tuple[Any, ...] = (None, "", "../../x", "/x", "a\0b", ["100"], {"id": 1})
LATIN_1 = (b"/\xe91.png", b"/\xe92.png")


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)


def line(file: str, number: int, content: bytes | str) -> Spoil:
    """Another line in the place of one."""

    def spoil(root: Path) -> None:
        lines = (root / file).read_bytes().split(b"\n")
        lines[number - 1] = content if isinstance(content, bytes) else content.encode()
        (root / file).write_bytes(b"\n".join(lines))

    return spoil


def cells(file: str, numbers: list[int], **values: Any) -> Spoil:
    """Other values in rows of a JSONL file."""

    def spoil(root: Path) -> None:
        for number in numbers:
            row = json.loads((root / file).read_text().splitlines()[number - 1]) | values
            left = {key: value for key, value in row.items() if value is not DROPPED}
            line(file, number, json.dumps(left))(root)

    return spoil


def content(file: str, text: str | bytes) -> Spoil:
    return lambda root: (root / file).write_bytes(text if isinstance(text, bytes) else text.encode())


def film(number: int, **values: Any) -> Spoil:
    path = f"dataset/{number:07}.json"
    return lambda root: (root / path).write_text(json.dumps(json.loads((root / path).read_text()) | values))


def films(ids: Any) -> Spoil:
    def spoil(root: Path) -> None:
        (root / "split.json").write_text(json.dumps(json.loads((root / "split.json").read_text()) | {"train": ids}))

    return spoil


def pet(numbers: list[int], row: Any) -> Spoil:
    """Other rows in the training split; where a row is a function, of what was there."""

    def spoil(root: Path) -> None:
        splits = json.loads((root / PETS).read_text())
        for number in numbers:
            old = splits["train"][number - 1]
            splits["train"][number - 1] = row(*old) if callable(row) else row
        (root / PETS).write_text(json.dumps(splits))

    return spoil


def hdf5(change: Callable[[h5py.File], object]) -> Spoil:
    def spoil(root: Path) -> None:
        with h5py.File(root / HDF5, "a") as file:
            change(file)

    return spoil


def instead(name: str, values: Any, **options: Any) -> Spoil:
    """Another data set in the place of one."""

    def change(file: h5py.File) -> None:
        names = file["genres"].attrs["target_names"]
        if name in file:
            del file[name]
        if values is not None:
            file.create_dataset(name, data=values, **options)
        if name == "genres" and values is not None:
            file["genres"].attrs["target_names"] = names

    return hdf5(change)


def genre_names(names: Any) -> Spoil:
    return hdf5(lambda file: file["genres"].attrs.__setitem__("target_names", names))


def arrays(count: int, kind: type) -> Any:
    """Arrays of one number each, as what has one in each cell."""
    found = np.empty(count, dtype=object)
    found[:] = [np.ones(1, dtype=kind) for _ in range(count)]
    return found


def words(numbers: dict[int, list[int]]) -> Spoil:
    return hdf5(lambda file: [file["sequences"].__setitem__(row, found) for row, found in numbers.items()])


def vocabulary(about: Any) -> Spoil:
    return lambda root: np.save(root / "metadata.npy", np.array(about, dtype=object), allow_pickle=True)


def cut(file: str) -> Spoil:
    """The file without its second half."""
    return lambda root: os.truncate(root / file, (root / file).stat().st_size // 2)


def folder(name: str) -> Spoil:
    return lambda root: (root / name).mkdir()


def link(name: str, to: str) -> Spoil:
    return lambda root: (root / name).symlink_to(root / to)


def refuses(source: Callable[[], Source], message: str, split: str = "train") -> None:
    with pytest.raises(RobustTuneError, match=message) as caught:
        source().read(split)  # type: ignore[arg-type]
    said = str(caught.value)
    assert "\n" not in said
    assert ": " in said  # what to do
    said.encode()


# Of each layout, the files and folders that it needs, and what reads them.
FILES = [
    ("food101", TITLES),
    ("mmimdb", "split.json"),
    ("mmimdb_hdf5", HDF5),
    ("mmimdb_hdf5", "metadata.npy"),
    ("snli_ve", "snli_ve_train.jsonl"),
    ("hateful_memes", "train.jsonl"),
    ("oxford_pets", PETS),
    ("fgvc_aircraft", "images_variant_train.txt"),
    ("fgvc_aircraft", "variants.txt"),
    ("imagenet", "classnames.txt"),
    ("table", "train.jsonl"),
]
TEXTS = [(layout, file) for layout, file in FILES if layout != "mmimdb_hdf5"]
FOLDERS = [
    ("food101", "images/train"),
    ("mmimdb", "dataset"),
    ("snli_ve", "images"),
    ("hateful_memes", "img"),
    ("oxford_pets", "oxford_pets/images"),
    ("fgvc_aircraft", "images"),
    ("imagenet", "images/train"),
    ("image_folder", "train"),
]


@pytest.mark.parametrize(("layout", "file"), FILES)
def test_a_file_that_is_not_there_is_named(tmp_path: Path, layout: str, file: str) -> None:
    """Nor is it a folder, or a link that leads nowhere."""
    LAYOUTS[layout].write(tmp_path)
    path = tmp_path / file
    path.unlink()
    refuses(lambda: LAYOUTS[layout].source(tmp_path), f"^{path} does not exist: ")
    path.symlink_to(path)
    refuses(lambda: LAYOUTS[layout].source(tmp_path), f"^{path}: Too many levels of symbolic links: check")
    path.unlink()
    path.symlink_to(tmp_path / "gone")
    refuses(lambda: LAYOUTS[layout].source(tmp_path), f"^{path} is no file: ")
    path.unlink()
    path.mkdir()
    problem = "is a folder without files" if layout == "table" else "is a folder"
    refuses(lambda: LAYOUTS[layout].source(tmp_path), f"^{path} {problem}: ")


@pytest.mark.parametrize(("layout", "folder"), FOLDERS)
def test_a_folder_that_is_not_there_is_named(tmp_path: Path, layout: str, folder: str) -> None:
    LAYOUTS[layout].write(tmp_path)
    path = tmp_path / folder
    shutil.rmtree(path)
    refuses(lambda: LAYOUTS[layout].source(tmp_path), f"^{path} does not exist: ")
    path.touch()
    refuses(lambda: LAYOUTS[layout].source(tmp_path), f"^{path} is no folder: ")


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    ("name", "message"), [("x" * 300, "File name too long"), ("n\0l", "does not exist|cannot be loaded .*")]
)
def test_a_root_that_no_folder_can_have_is_named(tmp_path: Path, layout: str, name: str, message: str) -> None:
    refuses(lambda: LAYOUTS[layout].source(tmp_path / name), f"^{tmp_path}/{name[:2]}.*({message}): ")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
@pytest.mark.parametrize(("layout", "file"), TEXTS)
def test_a_file_that_may_not_be_read_is_named(tmp_path: Path, layout: str, file: str) -> None:
    LAYOUTS[layout].write(tmp_path)
    path = tmp_path / file
    path.chmod(0)
    refuses(lambda: LAYOUTS[layout].source(tmp_path), rf"^{path} cannot be read \(Permission denied\): check the file")
    tmp_path.chmod(0)
    refuses(lambda: LAYOUTS[layout].source(tmp_path), rf"^{tmp_path}/.*: Permission denied: check the path")
    tmp_path.chmod(0o700)


@pytest.mark.parametrize(("layout", "file"), TEXTS)
def test_a_file_in_latin_1_is_named_with_the_byte(tmp_path: Path, layout: str, file: str) -> None:
    LAYOUTS[layout].write(tmp_path)
    path = tmp_path / file
    path.write_bytes(b"caf\xe9 " + path.read_bytes())
    refuses(lambda: LAYOUTS[layout].source(tmp_path), rf"^{path} is not UTF-8 \(byte 3\): convert it")


@pytest.mark.parametrize(("layout", "file"), TEXTS)
@pytest.mark.parametrize("blank", ["", "\n \n"])
def test_an_empty_file_is_named(tmp_path: Path, layout: str, file: str, blank: str) -> None:
    LAYOUTS[layout].write(tmp_path)
    (tmp_path / file).write_text(blank)
    message = r"is not JSON|has no rows|has no row that can be used|has no variants|names.txt has no lines"
    refuses(lambda: LAYOUTS[layout].source(tmp_path), f"^{tmp_path}.*({message})")


@pytest.mark.parametrize(("layout", "file"), TEXTS)
def test_marks_line_ends_and_blank_lines_do_not_matter(tmp_path: Path, layout: str, file: str) -> None:
    LAYOUTS[layout].write(tmp_path)
    path = tmp_path / file
    table = LAYOUTS[layout].source(tmp_path).read("train")
    blank = b"" if layout == "food101" else b"\n \n"
    path.write_bytes(b"\xef\xbb\xbf" + (path.read_bytes() + blank).replace(b"\n", b"\r\n"))
    assert LAYOUTS[layout].source(tmp_path).read("train").equals(table)  # type: ignore[union-attr]


def growing_stream(opened: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function that opens a text file as a stream, with a file that grows while it is read."""

    @contextmanager
    def stream(path: Path, codec: str | None) -> Iterator[Any]:
        with opened(path, codec) as binary:
            yield binary
        with path.open("ab") as growing:
            growing.write(b" ")

    return stream


@pytest.mark.parametrize(("layout", "file"), FILES)
def test_a_file_that_grows_while_it_is_read_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, layout: str, file: str
) -> None:
    LAYOUTS[layout].write(tmp_path)
    path = tmp_path / file

    def grow(read: Callable[..., Any], *args: Any, **options: Any) -> Any:
        found = read(*args, **options)
        if path.name in (HDF5, "metadata.npy") or args[0] == path:
            with path.open("ab") as growing:
                growing.write(b" ")
        return found

    if path.suffix == ".jsonl":  # read as a stream
        monkeypatch.setattr(compression, "_open", growing_stream(compression._open))
    else:
        places = {HDF5: (mmimdb_hdf5, "_genres"), "metadata.npy": (_Plain, "load")}
        place, name = places.get(path.name, (Path, "read_text"))
        read = getattr(place, name)
        monkeypatch.setattr(place, name, lambda *args, **options: grow(read, *args, **options))
    refuses(lambda: LAYOUTS[layout].source(tmp_path), f"^{path} changed while it was read: wait")


# What is broken: the layout, how, and what is said.
TRAPS: dict[str, tuple[str, Spoil, str]] = {
    # UPMC Food-101
    "photos are a file": ("food101", lambda root: swap_for_file(root / "images/train"), "images/train is no folder"),
    "photos link to themselves": (
        "food101",
        link("images/train/loop", "images/train/loop"),
        "images/train: of 13 folders and files, 1 are links that lead nowhere .the first: 'loop'.: repair or remove",
    ),
    # MM-IMDb, raw
    "splits are a list": ("mmimdb", content("split.json", "[1]"), "split.json has no list 'train': fetch"),
    "splits are null": ("mmimdb", content("split.json", "null"), "split.json has no list 'train'"),
    "splits are cut": ("mmimdb", cut("split.json"), "split.json is not JSON .*: fetch it again"),
    "splits are nested deeply": ("mmimdb", content("split.json", "[" * 10**5), "split.json is not JSON"),
    "a split is a number": ("mmimdb", films(7), "split.json has no list 'train'"),
    "a split is empty": ("mmimdb", films([]), "split.json, train has no films: "),
    "ids of the wrong kind": (
        "mmimdb",
        films([0, None, True, 1.0, -1, [1], "../0000001", "0\0"]),
        "split.json, train: of 8 films, 7 have an id that is no number .the first: None.: repair",
    ),
    "an id twice": (
        "mmimdb",
        films([None, 0, "0000000"]),
        "of 3 films, 1 have an id .*, 1 repeat an id .the first: film 3, '0000000' of film 2.*make ids unique",
    ),
    "films that are not there": (
        "mmimdb",
        films([0, 77, 10**300]),
        "of 3 films, 2 have no JSON file that can be read .the first: .*0000077.json cannot be read",
    ),
    "a film is cut": ("mmimdb", cut("dataset/0000001.json"), "of 6 films, 1 have no JSON .*0000001.json is not JSON"),
    "a film is a list": ("mmimdb", content("dataset/0000001.json", "[]"), "1 have no list of known genres"),
    "a film is a folder": (
        "mmimdb",
        lambda root: ((root / "dataset/0000001.json").unlink(), folder("dataset/0000001.json")(root)),
        "1 have no JSON file .*0000001.json cannot be read .Is a directory",
    ),
    "genres are a text": ("mmimdb", film(1, genres="Drama"), "1 have no list of known genres .the first: 0000001, 'D"),
    "genres are null": ("mmimdb", film(1, genres=None), "1 have no list of known genres .the first: 0000001, None"),
    "genres hold lists": ("mmimdb", film(1, genres=[["Drama"], {}]), "of 6 films, 1 have no list of known genres"),
    "genres hold numbers": ("mmimdb", film(1, genres=["Drama", 3, None]), "of 6 films, 1 have no list of known"),
    "genres nobody knows": ("mmimdb", film(1, genres=["Drama", "drama"]), "of 6 films, 1 have no list of known"),
    "plots are numbers": ("mmimdb", film(1, plot=[1, 2]), "of 6 films, 1 have a plot that is no text .*: 0000001"),
    "a plot is an object": ("mmimdb", film(1, plot={"en": "x"}), "of 6 films, 1 have a plot that is no text"),
    "a plot is null": ("mmimdb", film(1, plot=None), "of 6 films, 1 have a plot that is no text"),
    "a plot is half a pair": ("mmimdb", film(1, plot=["\ud800"]), "of 6 films, 1 have a plot that is no text"),
    # MM-IMDb, HDF5
    "the file is cut": ("mmimdb_hdf5", cut(HDF5), f"{HDF5} is no whole HDF5 file .*: fetch it again"),
    "the file is empty": ("mmimdb_hdf5", content(HDF5, ""), f"{HDF5} is no whole HDF5 file"),
    "the file is text": ("mmimdb_hdf5", content(HDF5, "404"), f"{HDF5} is no whole HDF5 file"),
    "no genres": ("mmimdb_hdf5", instead("genres", None), f"{HDF5} has no genres as it ought to have, but None: "),
    "no plots": ("mmimdb_hdf5", instead("sequences", None), f"{HDF5} has no sequences as it ought to have"),
    "no posters": ("mmimdb_hdf5", instead("images", None), f"{HDF5} has no images as it ought to have"),
    "genres are a group": (
        "mmimdb_hdf5",
        hdf5(lambda file: (file.pop("genres"), file.create_group("genres"))),
        f"{HDF5} has no genres as it ought to have, but .*group",
    ),
    "22 genres": ("mmimdb_hdf5", instead("genres", np.zeros((10, 22))), r"no genres as it .*\(10, 22\)"),
    "genres are one number": ("mmimdb_hdf5", instead("genres", 3), "no genres as it ought to have"),
    "genres are texts": ("mmimdb_hdf5", instead("genres", np.full((10, 23), b"1")), "no genres as it ought to have"),
    "fewer genres": ("mmimdb_hdf5", instead("genres", np.zeros((9, 23))), "has 9 rows of genres, and .* says 10: "),
    "fewer plots": (
        "mmimdb_hdf5",
        instead("sequences", arrays(9, np.int32), dtype=h5py.vlen_dtype(np.int32)),
        "has 9 rows of sequences, and data.source.sizes says 10: fetch",
    ),
    "fewer posters": ("mmimdb_hdf5", instead("images", np.zeros((9, 3, 2, 2), dtype=int)), "has 9 rows of images"),
    "fewer ids": ("mmimdb_hdf5", instead("imdb_ids", np.full(9, b"1")), "has 9 rows of imdb_ids"),
    "posters end in colours": ("mmimdb_hdf5", instead("images", np.zeros((10, 2, 2, 3))), "has no images as it ought"),
    "posters are texts": ("mmimdb_hdf5", instead("images", np.full((10, 3, 2, 2), b"x")), "has no images as it ought"),
    "plots are texts": (
        "mmimdb_hdf5",
        instead("sequences", ["a film"] * 10, dtype=h5py.string_dtype()),
        "has no sequences as it ought",
    ),
    "words are halves": (
        "mmimdb_hdf5",
        instead("sequences", arrays(10, np.float32), dtype=h5py.vlen_dtype(np.float32)),
        "has no sequences as it ought",
    ),
    "ids are numbers": ("mmimdb_hdf5", instead("imdb_ids", np.arange(10)), "has no imdb_ids as it ought to have"),
    "ids in latin-1": ("mmimdb_hdf5", instead("imdb_ids", np.full(10, b"caf\xe9")), f"{HDF5} is damaged .*: fetch"),
    "ids twice": (
        "mmimdb_hdf5",
        instead("imdb_ids", np.array([b"7", b"8", b"7", b"7", *b"abcdef"], dtype="S7")),
        "of 6 rows, 2 repeat an id .the first: row 2, '7' of row 0.: make ids unique",
    ),
    "no names of genres": (
        "mmimdb_hdf5",
        hdf5(lambda file: file["genres"].attrs.pop("target_names")),
        "does not name the 23 genres .it says None.: fetch",
    ),
    "names of genres are no JSON": ("mmimdb_hdf5", genre_names("{'Drama'}"), "does not name the 23 genres"),
    "names of genres are deep": ("mmimdb_hdf5", genre_names("[" * 50_000), "does not name the 23 genres"),
    "names of genres are numbers": ("mmimdb_hdf5", genre_names(json.dumps([*range(23)])), "does not name the 23 g"),
    "names of 22 genres": ("mmimdb_hdf5", genre_names(json.dumps(GENRES[1:])), "does not name the 23 genres"),
    "names of genres are an array": ("mmimdb_hdf5", genre_names([1, 2]), "does not name the 23 genres"),
    "words nobody knows": (
        "mmimdb_hdf5",
        words({2: [1, 99, 98], 4: [-1], 9: [99]}),
        f"{HDF5}: of 6 rows, 2 have numbers of words that metadata.npy has not .the first: row 2, 99.: fetch both",
    ),
    "a vocabulary is cut": ("mmimdb_hdf5", cut("metadata.npy"), "metadata.npy holds no vocabulary .*: fetch it again"),
    "a vocabulary is empty": ("mmimdb_hdf5", content("metadata.npy", ""), "metadata.npy holds no vocabulary"),
    "a vocabulary is a bare pickle": (
        "mmimdb_hdf5",
        content("metadata.npy", pickle.dumps({"ix_to_word": {}})),
        "metadata.npy holds no vocabulary",
    ),
    "a vocabulary is numbers": (
        "mmimdb_hdf5",
        lambda root: np.save(root / "metadata.npy", np.arange(9)),
        "metadata.npy holds no vocabulary",
    ),
    "a vocabulary lacks its words": ("mmimdb_hdf5", vocabulary({"word_to_ix": {}}), "no vocabulary .'ix_to_word'"),
    "a vocabulary is many": ("mmimdb_hdf5", vocabulary([{"ix_to_word": {}}] * 2), "metadata.npy holds no vocabulary"),
    "a vocabulary the wrong way": ("mmimdb_hdf5", vocabulary({"ix_to_word": {"a": "b"}}), "holds no vocabulary"),
    "a vocabulary of lists": ("mmimdb_hdf5", vocabulary({"ix_to_word": {0: ["a"]}}), "its words are no texts"),
    "a vocabulary of half a pair": ("mmimdb_hdf5", vocabulary({"ix_to_word": {0: "\ud800"}}), "words are no texts"),
    # SNLI-VE
    "a row of SNLI-VE is cut": (
        "snli_ve",
        line("snli_ve_train.jsonl", 2, '{"sentence2": "A'),
        "of 9 rows, 1 are not JSON .the first: line 2, .*: repair or remove them",
    ),
    "a row of SNLI-VE is null": ("snli_ve", line("snli_ve_train.jsonl", 2, "null"), "1 are not JSON objects"),
    "a row of SNLI-VE holds NUL bytes": ("snli_ve", line("snli_ve_train.jsonl", 2, b"\0" * 9), "1 are not JSON"),
    "no sentences": (
        "snli_ve",
        cells("snli_ve_train.jsonl", [2, 4, 5], sentence2=DROPPED),
        "of 9 rows, 3 have no sentence2 .the first: line 2.: add it",
    ),
    "sentences are lists": (
        "snli_ve",
        cells("snli_ve_train.jsonl", [3], sentence2=["A", "cook"]),
        "of 9 rows, 1 have no text in the column sentence2 .the first: line 3, ..A', 'cook'.",
    ),
    "other labels": (
        "snli_ve",
        lambda root: [cells("snli_ve_train.jsonl", [n], gold_label=x)(root) for n, x in enumerate(BAD_LABELS, 1)],
        "of 9 rows, 7 have another gold_label than entailment, neutral, contradiction .the first: line 1, '-'",
    ),
    "photos without a name": (
        "snli_ve",
        lambda root: [cells("snli_ve_train.jsonl", [n], Flickr30K_ID=x)(root) for n, x in enumerate(BAD_NAMES, 1)],
        "of 9 rows, 7 name no photo .Flickr30K_ID, .* of the folder .*/images .the first: line 1, None",
    ),
    # Hateful Memes
    "a meme is a list": ("hateful_memes", line("train.jsonl", 2, "[]"), "of 8 rows, 1 are not JSON objects"),
    "memes outside": (
        "hateful_memes",
        lambda root: [cells("train.jsonl", [n], img=x)(root) for n, x in enumerate(BAD_NAMES, 1)],
        "of 8 rows, 7 name no img within .*the first: line 1, ''",
    ),
    "memes without ids": (
        "hateful_memes",
        lambda root: [cells("train.jsonl", [n], id=x)(root) for n, x in enumerate(BAD_IDS, 1)],
        "of 8 rows, 5 have no id that is a number or a text .the first: line 1, None.: give them ids",
    ),
    "a meme twice": (
        "hateful_memes",
        cells("train.jsonl", [3], id=1),
        "of 8 rows, 1 repeat an id .the first: line 3, '00001' of line 1.: make ids unique",
    ),
    "texts of memes are objects": (
        "hateful_memes",
        cells("train.jsonl", [3, 4], text={"en": "x"}),
        "of 8 rows, 2 have no text in the column text .the first: line 3, ",
    ),
    "no texts": ("hateful_memes", cells("train.jsonl", [3], text=DROPPED), "of 8 rows, 1 have no text .*line 3.: add"),
    "labels of memes": (
        "hateful_memes",
        lambda root: [cells("train.jsonl", [n], label=x)(root) for n, x in enumerate(NOT_BINARY, 1)],
        "of 8 rows, 6 have another label than 0 and 1 .the first: line 1, '1'",
    ),
    "a label is not there": (
        "hateful_memes",
        cells("train.jsonl", [3], label=DROPPED),
        "of 8 rows, 1 have another label than 0 and 1 .the first: line 3, None",
    ),
    # CoOp
    "no list of pets": (
        "oxford_pets",
        content(PETS, '{"train": [], "val": []}'),
        "has not the lists train, val and te",
    ),
    "pets are a list": ("oxford_pets", content(PETS, "[[]]"), "has not the lists train, val and test: fetch"),
    "pets are null": ("oxford_pets", content(PETS, '{"train": null, "val": [], "test": []}'), "has not the lists"),
    "no pets": ("oxford_pets", content(PETS, '{"train": [], "val": [], "test": []}'), "json.* has no rows: "),
    "pets are cut": ("oxford_pets", cut(PETS), f"{PETS} is not JSON .*: fetch it again"),
    **{
        f"a pet is {row!r}": (
            "oxford_pets",
            pet([2, 5], row),
            "of 27 rows, 2 are no .path, label from 0, name. .the first: train 2, .*: repair or remove them",
        )
        for row in BAD_PETS
    },
    "two names for a label": (
        "oxford_pets",
        pet([3], lambda path, label, name: [path, label, "beagle"]),
        "of 27 rows, 1 give a label another name .the first: train 3, 'beagle' after 'pug'",
    ),
    "pets twice": (
        "oxford_pets",
        pet([1, 3, 4], lambda path, label, name: ["a.jpg", label, name]),
        "json, train: of 12 rows, 2 repeat an id .the first: row 3, 'a.jpg' of row 1.: make ids unique",
    ),
    "pets outside": (
        "oxford_pets",
        pet([1, 3], lambda path, label, name: [f"../../{path}", label, name]),
        "json, train: of 12 rows, 2 name a file that is not within .*images .the first: row 1, '../../pug_train_0.jpg'",
    ),
    # FGVC Aircraft
    "planes of no variant": (
        "fgvc_aircraft",
        lambda root: [line("images_variant_train.txt", n, x)(root) for n, x in [(2, "0000001"), (3, "7 Concorde")]],
        "train.txt: of 12 rows, 2 name no variant of variants.txt .the first: line 2, '0000001'",
    ),
    "planes outside": (
        "fgvc_aircraft",
        lambda root: [line("images_variant_train.txt", n, f"{x} Spitfire")(root) for n, x in [(2, "../1"), (3, "/1")]],
        "of 12 rows, 2 name a file that is not within .*/images .the first: line 2, '../1'",
    ),
    "a plane twice": (
        "fgvc_aircraft",
        lambda root: line("images_variant_train.txt", 1, (root / "images_variant_train.txt").read_text()[:-1])(root),
        "of 23 rows, 11 repeat an id .the first: line 13, '0000001' of line 2",
    ),
    "a variant twice": (
        "fgvc_aircraft",
        line("variants.txt", 3, "F-16A/B"),
        "of 3 variants, 1 repeat a variant .the first: line 3, 'F-16A/B' of line 1.: make variants unique",
    ),
    # ImageNet
    "an id twice in the names": (
        "imagenet",
        line("classnames.txt", 2, f"{WNIDS[0]} tench"),
        "classnames.txt: of 5 lines, 1 are no new id and name .the first: line 2, ",
    ),
    "an id without a name": ("imagenet", line("classnames.txt", 2, WNIDS[1]), "of 5 lines, 1 are no new id and name"),
    "folders of no class": (
        "imagenet",
        lambda root: [folder("images/train/n00000001")(root), folder("images/train/new")(root)],
        "images/train: of 7 folders, 2 are those of no class of .*classnames.txt .the first: n00000001.: repair or",
    ),
    "folders without images": (
        "imagenet",
        lambda root: [
            shutil.rmtree(root / f"images/train/{x}") or folder(f"images/train/{x}")(root) for x in WNIDS[3:]
        ],
        f"images/train: of 5 folders, 2 have no images .the first: .*{WNIDS[3]}'.: fill or remove them",
    ),
    "no folders at all": (
        "imagenet",
        lambda root: [shutil.rmtree(root / "images/train"), folder("images/train")(root)],
        "images/train has no folders and files: ",
    ),
    # Image folder
    "images without classes": (
        "image_folder",
        lambda root: [shutil.rmtree(root / "train"), picture(root / "train/a.png", 0)],
        "train has no folders of classes: ",
    ),
    "hidden classes": (
        "image_folder",
        lambda root: [(root / f"train/{x}").rename(root / f"train/.{x}") for x in ("soup", "pie")],
        "train has no folders and files: ",
    ),
    "a class without images": ("image_folder", folder("train/cake"), "of 3 folders, 1 have no images .*train/cake"),
    "a class leads to its parent": ("image_folder", link("train/cake", "train"), "cake is a link that leads back to a"),
    "a class leads to itself": (
        "image_folder",
        link("train/cake", "train/cake"),
        "train: of 3 folders and files, 1 are links that lead nowhere .the first: 'cake'.: repair or remove them",
    ),
    "a class leads nowhere": ("image_folder", link("train/cake", "gone"), "train: .*1 are links that lead nowhere"),
    "a folder in a class leads nowhere": (
        "image_folder",
        link("train/soup/rest", "gone"),
        "train/soup/rest is a link that leads nowhere: repair or remove it",
    ),
    "names in latin-1": (
        "image_folder",
        lambda root: [
            shutil.copy(os.fsencode(root / "train/pie/0.png"), os.fsencode(root / "train/pie") + x) for x in LATIN_1
        ],
        r"train: of 10 image files, 2 have names that are not UTF-8 .the first: 'pie/\\udce91.png'.: rename them",
    ),
    # A table; test_table.py has the other traps
    "a table with a column twice": (
        "table",
        lambda root: parquet(root, pa.table([["a"], ["b"]], names=["label", "label"])),
        "train.parquet names the column 'label' twice: rename one of them",
    ),
    "a table is cut": (
        "table",
        lambda root: [parquet(root, pa.table({"label": ["x"] * 99})), cut("train.parquet")(root)],
        "train.parquet is no readable Parquet file .*: write it again",
    ),
    "a table of times": (
        "table",
        lambda root: parquet(root, pa.table({"image": [""], "text": pa.array([7], pa.timestamp("s")), "label": ["x"]})),
        "of 1 rows, 1 have no text in the column text .the first: row 1, datetime",
    ),
    "a table of images outside": (
        "table",
        lambda root: [cells("train.jsonl", [n], image=x)(root) for n, x in enumerate(["../a", "/a", "a\0", "."], 1)],
        "of 12 rows, 3 name an image outside of the folder of images, .*the first: line 1, '../a'",
    ),
}


def swap_for_file(path: Path) -> None:
    shutil.rmtree(path)
    path.touch()


def parquet(root: Path, table: pa.Table) -> None:
    pa.parquet.write_table(table, root / "train.parquet")
    (root / "train.jsonl").unlink()


@pytest.mark.parametrize("trap", TRAPS)
def test_a_broken_copy_is_refused(tmp_path: Path, trap: str) -> None:
    layout, spoil, message = TRAPS[trap]
    LAYOUTS[layout].write(tmp_path)
    spoil(tmp_path)
    parquet = tmp_path / "train.parquet"
    make = LAYOUTS[layout].source if not parquet.exists() else lambda root: Table(train=str(parquet))
    refuses(lambda: make(tmp_path), message)


@pytest.mark.parametrize("name", ["01", "1000", "-1", "+1", "\u0661", "n01440764"])
def test_folders_of_v2_are_numbers_of_classes(tmp_path: Path, name: str) -> None:
    LAYOUTS["imagenet_v2"].write(tmp_path)
    picture(tmp_path / "v2" / name / "a.jpeg", 0)
    message = rf"v2: of 6 folders, 1 are those of no class of .*names.txt .the first: {name.replace('+', '.')}.: repair"
    refuses(lambda: LAYOUTS["imagenet_v2"].source(tmp_path), message, "test")


def test_ids_in_the_present_folder_are_those_in_any_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    LAYOUTS["imagenet_v2"].write(tmp_path)
    monkeypatch.chdir(tmp_path / "v2")
    table = ImageNetVariant(".", "../classnames.txt", numbered=True).read("test")
    assert table is not None
    assert table["id"].to_pylist() == [f"{folder}/{number}.jpeg" for folder in range(5) for number in range(2)]


def test_two_labels_of_one_name_stay_distinct(tmp_path: Path) -> None:
    LAYOUTS["oxford_pets"].write(tmp_path)
    splits = json.loads((tmp_path / PETS).read_text().replace('leonberger"]', 'pug"]'))
    (tmp_path / PETS).write_text(json.dumps(splits))
    source = LAYOUTS["oxford_pets"].source(tmp_path)
    table = source.read("train")
    assert table is not None
    assert source.class_names(table) == ["pug [0]", "Abyssinian cat", "pug [2]"]


def test_links_to_images_that_lead_nowhere_are_unreadable(tmp_path: Path) -> None:
    """Not passed over."""
    LAYOUTS["image_folder"].write(tmp_path)
    (tmp_path / "train/soup/loop.png").symlink_to(tmp_path / "train/soup/loop.png")
    (tmp_path / "train/soup/gone.png").symlink_to(tmp_path / "gone.png")
    source = LAYOUTS["image_folder"].source(tmp_path)
    table = source.read("train")
    assert table is not None
    found = [name for name in table["image"].to_pylist() if Path(name).name in ("loop.png", "gone.png")]
    assert len(found) == 2
    for name in found:
        with pytest.raises(UnreadableImageError, match=f"^{name} cannot be read as an image "):
            source.images.read(name)


def test_a_poster_that_is_damaged_is_unreadable_and_has_a_digest(tmp_path: Path) -> None:
    LAYOUTS["mmimdb_hdf5"].write(tmp_path)

    def checked(file: h5py.File) -> None:
        pixels = file["images"][:]
        del file["images"]
        file.create_dataset("images", data=pixels, chunks=(1, *pixels.shape[1:]), fletcher32=True)

    hdf5(checked)(tmp_path)
    with h5py.File(tmp_path / HDF5) as file:
        place = file["images"].id.get_chunk_info_by_coord((3, 0, 0, 0)).byte_offset
    with (tmp_path / HDF5).open("r+b") as raw:
        raw.seek(place + 1000)
        raw.write(b"damaged")
    images = LAYOUTS["mmimdb_hdf5"].source(tmp_path).images
    with pytest.raises(UnreadableImageError, match=f"the poster in row 3 of {tmp_path / HDF5} cannot be read"):
        images.read("3")
    assert images.read("2").size == (160, 256)
    assert images.digest("3") not in (None, images.digest("2"))


def test_a_file_that_goes_while_it_is_read_is_unreadable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.png"
    path.write_text("no image")

    def gone(path: Path) -> None:
        raise FileNotFoundError(path)

    with monkeypatch.context() as meanwhile:
        meanwhile.setattr(Path, "stat", gone)
        with pytest.raises(UnreadableImageError) as caught:
            read_image(path)
    assert str(caught.value).startswith(f"{path} cannot be read as an image (")


CLASSES = ClassLabel(names=["soup", "pie"])
TEXT = {"text": ["a", "b", "c"]}
HUGGING_FACE: dict[str, tuple[dict[str, list[Any]], dict[str, Any], dict[str, Any], str]] = {
    "no such column": (TEXT | {"y": [0, 1, 0]}, {}, {}, "own, train has no column label .it has text, y.: set data"),
    "numbers for images": (
        TEXT | {"label": ["x", "y", "x"], "size": [1, 2, 3]},
        {},
        {"image_column": "size"},
        "the column size of .*own, train is of Value.*, not of images: give another image_column",
    ),
    "no such split": (
        TEXT | {"label": ["x", "y", "x"]},
        {},
        {"split_names": SplitNames(train="training")},
        "own has no split 'training' .it has train.: correct data.source.split_names",
    ),
    "no rows": (
        {"text": [], "label": []},
        {"text": Value("string"), "label": CLASSES},
        {},
        "own.*(cannot be loaded|has no rows).*: ",
    ),
    "lists of labels": (
        TEXT | {"label": [["x"], [], None]},
        {},
        {},
        "own, train: of 3 rows, 2 have a list as label .the first: row 0.: set data.source.multilabel to true",
    ),
    "no lists of labels": (
        TEXT | {"label": ["x", "y", None]},
        {},
        {"multilabel": True},
        "of 3 rows, 2 have no list as label .the first: row 0.: set data.source.multilabel to false",
    ),
    "lists with labels that are none": (
        TEXT | {"label": [[0, -1], [None], [1]]},
        {"text": Value("string"), "label": List(CLASSES)},
        {"multilabel": True},
        "of 3 rows, 2 have an entry that is no class in the list of label .the first: row 0, .0, -1..: repair",
    ),
    "lists of lists of labels": (
        TEXT | {"label": [[[0]], [], [[1]]]},
        {"text": Value("string"), "label": List(List(CLASSES))},
        {"multilabel": True},
        "of 3 rows, 2 have an entry that is no class in the list of label .the first: row 0, ..0..",
    ),
    "labels that are objects": (TEXT | {"label": [{"a": 1}] * 3}, {}, {}, "of 3 rows, 3 have no class as label"),
    "texts that are lists": (
        {"text": [["a"], None, ["c"]], "label": ["x"] * 3},
        {},
        {},
        "of 3 rows, 2 have no text where it ought to be .the first: row 0, ..a..",
    ),
    "images for texts": (
        {"text": [{"bytes": b"no image", "path": None}] * 3, "label": ["x"] * 3},
        {"text": ImageFeature(), "label": Value("string")},
        {},
        "of 3 rows, 3 have no text where it ought to be",
    ),
    "ids that are not there": (
        TEXT | {"label": ["x"] * 3, "id": ["1", None, " "]},
        {},
        {"id_column": "id"},
        "of 3 rows, 2 have no id .the first: row 1.: give them ids, or set data.source.id_column to null",
    ),
    "ids twice": (
        TEXT | {"label": ["x"] * 3, "id": [7, 7, 7]},
        {},
        {"id_column": "id"},
        "of 3 rows, 2 repeat an id .the first: row 1, '7' of row 0.: make ids unique",
    ),
}


@pytest.mark.parametrize("trap", HUGGING_FACE)
def test_a_hugging_face_data_set_that_does_not_fit_is_refused(tmp_path: Path, trap: str) -> None:
    """Saved as one data set, without splits."""
    rows, features, settings, message = HUGGING_FACE[trap]
    Dataset.from_dict(rows, features=Features(features) if features else None).save_to_disk(tmp_path / "own")
    refuses(lambda: HuggingFace(str(tmp_path / "own"), **{"image_column": None, **settings}), message)


def arrow(root: Path) -> str:
    return str(next((root / "saved/train").glob("*.arrow")).relative_to(root))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda root: shutil.rmtree(root / "saved"),
        lambda root: shutil.rmtree(root / "saved/train"),
        content("saved/dataset_dict.json", '{"splits": '),
        content("saved/dataset_dict.json", "[]"),
        content("saved/train/state.json", "null"),
        content("saved/train/dataset_info.json", ""),
        lambda root: cut(arrow(root))(root),
        lambda root: content(arrow(root), b"")(root),
        lambda root: content(arrow(root), b"\xff" * 99)(root),
        lambda root: (shutil.rmtree(root / "saved"), folder("saved")(root)),
    ],
    ids=["nothing", "no split", "cut", "a list", "null", "empty", "cut arrow", "empty arrow", "no arrow", "no files"],
)
def test_a_hugging_face_data_set_that_is_damaged_is_refused(tmp_path: Path, spoil: Spoil) -> None:
    LAYOUTS["hugging_face"].write(tmp_path)
    spoil(tmp_path)
    refuses(lambda: LAYOUTS["hugging_face"].source(tmp_path), f"^{tmp_path}/saved cannot be loaded .*: correct data")


def test_a_name_that_is_not_at_hand_offline_is_refused() -> None:
    refuses(lambda: HuggingFace("nobody/nothing"), "^nobody/nothing cannot be loaded .*: correct data.source.path")


def test_hugging_face_labels_of_none_are_unlabelled(tmp_path: Path) -> None:
    rows = TEXT | {"label": [-1, None, 1]}
    features = Features({"text": Value("string"), "label": CLASSES})
    Dataset.from_dict(rows, features=features).save_to_disk(tmp_path / "own")
    table = HuggingFace(str(tmp_path / "own"), image_column=None).read("train")
    assert table is not None
    assert table["labels"].to_pylist() == [None, None, ["pie"]]


@pytest.mark.parametrize("labels", [["x", "", " "], ["x", None, None], [1.0, float("nan"), float("nan")]])
def test_hugging_face_labels_that_are_blank_are_unlabelled(tmp_path: Path, labels: list[Any]) -> None:
    Dataset.from_dict(TEXT | {"label": labels}).save_to_disk(tmp_path / "own")
    table = HuggingFace(str(tmp_path / "own"), image_column=None).read("train")
    assert table is not None
    assert table["labels"].to_pylist() == [[str(labels[0])], None, None]


def test_hugging_face_images_that_cannot_be_read_say_where(tmp_path: Path) -> None:
    """A cell with nothing in it is an absent image."""
    gone = str(tmp_path / "gone.png")
    images = [(b"no image", None), (None, gone), (b"", None), (None, None), (b"RIFF", gone)]
    rows = {
        "image": [{"bytes": data, "path": path} for data, path in images],
        "label": ["x"] * len(images),
    }
    features = Features({"image": {"bytes": Value("binary"), "path": Value("string")}, "label": Value("string")})
    data = Dataset.from_dict(rows, features=features).cast_column("image", ImageFeature())
    source = HuggingFace(str(tmp_path / "own"), text_column=None)
    source.__dict__["data"] = {"train": data}  # which to save would put files into cells
    table = source.read("train")
    assert table is not None
    names = table["image"].to_pylist()
    assert names == ["train/0", "train/1", "train/2", None, "train/4"]
    said = [f"the image in train/{row} of {tmp_path}/own cannot be read as an image" for row in (0, 2, 4)]
    for name, message in zip(["train/0", "train/2", "train/4", "train/1"], [*said, f"{gone} cannot be"], strict=True):
        with pytest.raises(UnreadableImageError, match=f"^{message}"):
            source.images.read(name)
    assert len({source.images.digest(name) for name in names if name is not None}) == 4


def test_a_parquet_file_that_grows_while_it_is_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "train.parquet"
    (tmp_path / "train.jsonl").touch()
    parquet(tmp_path, pa.table({"image": [""], "text": ["t"], "label": ["x"]}))

    class Growing(pyarrow.parquet.ParquetFile):  # type: ignore[misc]
        def iter_batches(self, *args: Any, **options: Any) -> Iterator[Any]:
            yield from super().iter_batches(*args, **options)
            path.write_bytes(path.read_bytes() * 2)

    monkeypatch.setattr(pyarrow.parquet, "ParquetFile", Growing)
    refuses(lambda: Table(train=str(path)), f"^{path} changed while it was read: wait")
