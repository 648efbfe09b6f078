"""Wrong input: one sentence that names the mistake and the remedy, and no file changes.

Mistakes in data, images, encoders, checkpoints and names of runs are checked where these are read, all others by running
the command.

`pytest tests/commands/test_wrong_input.py -rP` shows the sentences.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import torch
import yaml
from dishes import write_text_encoder
from fakes import tiny_flags, word_tokenizer, write_bomb, write_image, write_model, write_table
from PIL import Image

from robusttune.checkpoint_file import KEY, read_checkpoint, seal
from robusttune.cli import main
from robusttune.commands.data_config import read_data
from robusttune.data import ImageTextDataModule
from robusttune.errors import RobustTuneError
from robusttune.run_names import run_folders

CONFIGS = Path(__file__).parents[2] / "configs"


@pytest.fixture(scope="module")
def trained(food101: Path, text_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a finished run."""
    root = tmp_path_factory.mktemp("runs")
    flags = [*tiny_flags(food101, text_folder), "--data.splits.val_fraction=0.2", f"--run_root={root}"]
    assert main(["fit", f"--config={CONFIGS}/food101.yaml", *flags]) == 0
    return root / "food101/0"


@dataclass
class Place:
    """A user's folder with a mistake in it; its methods return arguments of the command line.

    Attributes:
        root: The folder, empty at first.
        original: Folder of data in the layout of UPMC Food-101, shared with other tests.
        trained: Folder of a finished run.
        text_folder: Folder of a text encoder.
    """

    root: Path
    original: Path
    trained: Path
    text_folder: Path

    @property
    def food101(self) -> Path:
        """A copy of the data that may be changed."""
        if not (self.root / "food101").exists():
            shutil.copytree(self.original, self.root / "food101")
        return self.root / "food101"

    def fit(self, *flags: str) -> list[str]:
        changed = self.root / "food101"
        tiny = tiny_flags(changed if changed.exists() else self.original, self.text_folder)
        return ["fit", f"--config={CONFIGS}/food101.yaml", *tiny, f"--run_root={self.root}/runs", *flags]

    def on_table(self, path: Path, *flags: str, verb: str = "fit") -> list[str]:
        tiny = [flag for flag in tiny_flags(Path("none"), self.text_folder) if "source.root" not in flag]
        tiny += [f"--data.source.train={path}", f"--run_root={self.root}/runs"]
        return [verb, f"--config={CONFIGS}/table.yaml", *tiny, *flags]

    def shapes(self, *flags: str) -> list[str]:
        return ["fit", f"--config={CONFIGS}/demo.yaml", f"--run_root={self.root}/runs", *flags]

    def mmrl(self, *flags: str, verb: str = "fit") -> list[str]:
        sizes = [f"--data.source.{split}=24" for split in ("train", "val", "test")]
        sizes += ["--data.cache.folder=null", "--data.loader.workers=0"]
        return [verb, f"--config={CONFIGS}/demo_mmrl.yaml", *sizes, f"--run_root={self.root}/runs", *flags]

    def mmrl_classes(self, *names: str) -> list[str]:
        """Fit MMRL on texts whose classes have these names."""
        rows = [{"text": "a red circle", "label": name} for name in names * 4]
        source = {"train": str(write_table(self.root, "train", rows)), "image_column": None}
        config = yaml.safe_load((CONFIGS / "demo_mmrl.yaml").read_text())
        config["data"]["source"] = {"class_path": "robusttune.data.sources.Table", "init_args": source}
        config["data"]["splits"] = {"val_fraction": 0.5}
        (self.root / "config.yaml").write_text(yaml.safe_dump(config))
        return ["fit", f"--config={self.root}/config.yaml", f"--run_root={self.root}/runs"]

    def published(self, content: bytes | object | None, *flags: str) -> list[str]:
        path = self.root / "model.pth.tar-10"
        if isinstance(content, bytes):
            path.write_bytes(content)
        elif content is not None:
            torch.save(content, path)
        mmrl = [flag for flag in self.mmrl(verb="import") if "run_root" not in flag]
        return [*mmrl, f"--published={path}", f"--out={self.root}/imported.ckpt", *flags]

    def rows(self, *last: dict[str, Any]) -> list[dict[str, Any]]:
        """Return twenty valid rows with images, followed by ``last``."""
        names = [write_image(self.root / "images" / f"{i}.png").name for i in range(20)]
        good = [{"image": f"images/{name}", "text": "soup", "label": "ab"[i % 2]} for i, name in enumerate(names)]
        return [*good, *last]

    def table(self, *last: dict[str, Any], **flags: str) -> list[str]:
        given = [f"--data.source.{name}={value}" for name, value in flags.items()]
        return self.on_table(write_table(self.root, "train", self.rows(*last)), *given)

    def text_table(self, name: str, content: str | bytes) -> list[str]:
        path = self.root / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return self.on_table(path)

    def val_table(self, *rows: dict[str, Any]) -> list[str]:
        return self.table(val=str(write_table(self.root, "val", list(rows))))

    def image(self, spoil: Callable[[Path], Any], *flags: str, name: str = "3.png") -> list[str]:
        """Fit on a table with one bad image, which the first epoch reads."""
        rows = self.rows({"image": f"images/{name}", "text": "t", "label": "a"})
        val = write_table(self.root, "val", rows[4:8])
        spoil(self.root / "images" / name)
        args = self.on_table(write_table(self.root, "train", rows), f"--data.source.val={val}")
        return [*args, "--data.training.modality_dropout.image_dropout=0", "--data.batch_size=8", *flags]

    def unusual_images(self) -> list[str]:
        """Fit on a table with images whose format or size few data sets have."""
        rows = self.rows()
        folder = self.root / "images"
        usual = {*folder.iterdir()}
        unusual_images(folder)
        added = sorted({*folder.iterdir()} - usual)
        rows += [{"image": f"images/{path.name}", "text": "t", "label": "a"} for path in added]
        val = write_table(self.root, "val", rows[4:8])
        args = self.on_table(write_table(self.root, "train", rows), f"--data.source.val={val}")
        return [*args, "--data.training.modality_dropout.image_dropout=0", "--data.batch_size=8"]

    def cached(self, root: Path) -> None:
        """Cache the features of a table's images, then change one of the images."""
        fit = self.on_table(write_table(root, "train", self.rows()), "--trainer.fast_dev_run=true")
        assert main([*fit, f"--data.cache.folder={self.root}/cache"]) == 0
        write_image(root / "images/3.png", colour="lime")

    def yaml(self, content: str | bytes) -> list[str]:
        path = self.root / "mine.yaml"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return self.fit(f"--config={path}")

    def test(self, *flags: str, checkpoint: Path | None = None) -> list[str]:
        checkpoint = checkpoint or self.trained / "checkpoints/best.ckpt"
        return ["test", f"--config={self.trained}/config.yaml", f"--ckpt_path={checkpoint}", *flags]

    def checkpoint(self, content: bytes | object, verb: str = "test") -> list[str]:
        path = self.root / "other.ckpt"
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            torch.save(content, path)
        return self.fit(f"--ckpt_path={path}") if verb == "fit" else self.test(checkpoint=path)

    def loaded(self) -> dict[str, Any]:
        loaded: dict[str, Any] = torch.load(self.trained / "checkpoints/best.ckpt", weights_only=True)
        return loaded

    def good_checkpoint(self) -> bytes:
        return (self.trained / "checkpoints/best.ckpt").read_bytes()

    def text_model(self, model_type: str = "bert", words: bool = True, **changes: Any) -> str:
        """Return the flag that names a new text model, with or without a tokenizer."""
        folder = write_model(self.root / model_type, model_type, **changes)
        if words:
            word_tokenizer().save_pretrained(folder)
        return f"--text_encoder.name={folder}"

    def other_text_encoder(self) -> list[str]:
        write_text_encoder(self.root / "other", width=16, layers=2)
        return self.test(f"--text_encoder.name={self.root}/other")

    def test_on_table(self, *rows: dict[str, Any], **settings: Any) -> list[str]:
        config = yaml.safe_load((self.trained / "config.yaml").read_text())
        source = {"test": str(write_table(self.root, "test", list(rows))), "image_column": None, **settings}
        config["data"]["source"] = {"class_path": "robusttune.data.sources.Table", "init_args": source}
        (self.root / "config.yaml").write_text(yaml.safe_dump(config))
        return ["test", f"--config={self.root}/config.yaml", f"--ckpt_path={self.trained}/checkpoints/best.ckpt"]


Row = tuple[Callable[[Place], list[str]], str]  # how the arguments are made, and the message


def sealed(checkpoint: dict[str, Any]) -> dict[str, Any]:
    seal(checkpoint)
    return checkpoint


def with_classes_reversed(checkpoint: dict[str, Any]) -> dict[str, Any]:
    checkpoint[KEY]["facts"]["class_names"].reverse()
    return checkpoint


class Evil:
    """A pickle that runs code when it is loaded."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Path("/tmp/robusttune-was-executed").touch, ()


def write_text(path: Path, content: str) -> Path:
    path.write_text(content)
    return path


def parquet(place: Place) -> list[str]:
    path = place.root / "train.parquet"
    pyarrow.parquet.write_table(pa.table({"image": [None] * 9, "text": ["t"] * 9, "label": list("ababababa")}), path)
    path.write_bytes(path.read_bytes()[:-9])
    return place.on_table(path)


def float_image(path: Path) -> None:
    Image.fromarray(np.ones((4, 4), dtype=np.float32)).save(path, "tiff")


def halve(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def instead(make: Callable[[Path], Any]) -> Callable[[Path], Any]:
    """Return a function that replaces a file by what ``make`` creates."""

    def spoil(path: Path) -> None:
        path.unlink(missing_ok=True)
        make(path)

    return spoil


def pipe(path: Path) -> Path:
    os.mkfifo(path)
    return path


def postscript(path: Path) -> None:
    Image.new("RGB", (4, 4)).save(path, "EPS")


def bomb(name: str) -> str:
    """Return ten lines of YAML that expand to ten thousand million values."""
    lines = ["a0: &a0 [0]", *(f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 11))]
    return "\n".join([*lines, f"{name}: *a10"])


def removed(root: Path, part: str) -> None:
    shutil.rmtree(root / part) if (root / part).is_dir() else (root / part).unlink()


def without(place: Place, part: str) -> list[str]:
    removed(place.food101, part)
    return place.fit()


def titles(place: Place, content: bytes) -> list[str]:
    (place.food101 / "texts/train_titles.csv").write_bytes(content)
    return place.fit()


READ = "cannot be read: .*3.png cannot be read as an image"
MEND = "repair or remove them, or set data.unreadable to absent"

DATA_CASES: dict[str, Row] = {
    # Generated data
    "visibility off the simplex": (
        lambda p: p.shapes("--data.source.world.visibility.image=0.5"),
        r"visibility \(image, text, both\) 0.5, 0.2, 0.6 sums to 1.3: give",
    ),
    "more classes than there are": (
        lambda p: p.shapes("--data.source.world.classes=25"),
        "classes 25 do not fit the base combinations of 8 colour x 6 shape, of which there are 24: give",
    ),
    "a prior of others": (
        lambda p: p.shapes("--data.source.world.prior=[0.5,0.5]"),
        "prior has 2 numbers for 24 classes: give one each",
    ),
    "nothing to test on": (lambda p: p.shapes("--data.source.test=0"), "data.source.test is 0: give at least 1"),
    "an unknown factor": (
        lambda p: p.shapes("--data.source.world.factors=[smell]"),
        "factors smell do not work: give 1 to 4 different ones of size",
    ),
    "an unknown style": (
        lambda p: p.shapes("--data.source.style=chalk"),
        "data.source.style is 'chalk', not one of 'paper', 'blackboard'",
    ),
    # Folders, files, columns
    "root missing": (lambda p: p.fit("--data.source.root=/nowhere"), "/nowhere/images/train does not exist: set"),
    "images missing": (lambda p: without(p, "images/test"), "images/test does not exist: set data.source.root"),
    "titles missing": (lambda p: without(p, "texts/train_titles.csv"), "train_titles.csv does not exist: set"),
    "titles not UTF-8": (lambda p: titles(p, b"\xff\xfe"), r"not UTF-8 \(byte 0\): convert it"),
    "titles empty": (lambda p: titles(p, b""), "train_titles.csv has no row that can be used: give"),
    "titles of something else": (
        lambda p: titles(p, b"what is this\n"),
        "train_titles.csv has no row that can be used: give",
    ),
    "table missing": (lambda p: p.on_table(Path("/nowhere.csv")), "/nowhere.csv does not exist: set data.source.train"),
    "table is a folder": (lambda p: p.on_table(p.root), "is a folder without files: give a table, a folder of tables"),
    "table of another kind": (lambda p: p.text_table("train.docx", "PK"), r"is no table \(.jsonl, "),
    "no table": (lambda p: p.on_table(Path("null")), "set data.source.train"),
    "image root missing": (
        lambda p: p.table(image_root="/nowhere"),
        "/nowhere is no folder: set data.source.image_root",
    ),
    "column missing": (
        lambda p: p.table(text_column="title"),
        r"has no column title \(it has image, label, text\): set",
    ),
    "image files missing": (
        lambda p: p.table({"image": "gone.png", "text": "t", "label": "a"}, val=str(p.root / "train.jsonl")),
        r"1 image file of the 21 train samples does not exist, the first is .*/gone.png: check",
    ),
    # Rows
    "broken JSONL": (
        lambda p: p.text_table("train.jsonl", '{"a": 1}\n{"a": \n{\n'),
        "of 3 rows, 2 are not JSON .*line 2",
    ),
    "a JSON list": (
        lambda p: p.text_table("train.jsonl", '["a", "b"]'),
        "are not JSON objects .*: write one object a line",
    ),
    "broken CSV": (lambda p: p.text_table("train.csv", "image,text,label\n,a,b,c\n,a\n"), "2 have not as many cells"),
    "unclosed quote in CSV": (lambda p: p.text_table("train.csv", 'image,text,label\n,"a,b\n'), "are not CSV .*line 2"),
    "CSV without header": (
        lambda p: p.text_table("train.csv", "a.png,t,x\nb.png,t,y\n"),
        "has no column image, text, label",
    ),
    "half of UTF-16": (
        lambda p: p.text_table("train.csv", "a,b\n".encode("utf-16")[:-1]),
        r"no whole UTF-16 text \(truncated data\): convert it to UTF-8",
    ),
    "broken Parquet": (parquet, "train.parquet is no readable Parquet file .*: write it again"),
    "text is a list": (lambda p: p.table({"text": ["t"], "label": "a"}), "1 have no text in the column text .*line 21"),
    "half a character": (lambda p: p.table({"text": "\ud800", "label": "a"}), "1 have no text in the column text"),
    "ids repeat": (
        lambda p: p.table(*[{"id": 7, "text": "t", "label": "a"}] * 3, id_column="id"),
        "of 23 rows, 20 have no id .*2 repeat an id .*: give them ids.*; make ids unique",
    ),
    "table without rows": (lambda p: p.text_table("train.csv", "image,text,label\n"), "train.csv has no rows: give"),
    "nothing but blanks": (
        lambda p: p.text_table("train.csv", "image,text,label\n" + ",,a\n,,b\n" * 9),
        "none of the 16 train samples has an image or a text: check the columns",
    ),
    # Labels and splits
    "empty label": (
        lambda p: p.table(*[{"text": "t", "label": ""}] * 4),
        r"have no label \(the first: '2\d'\): label them",
    ),
    "unknown label": (
        lambda p: p.val_table({"text": "t", "label": "c", "image": ""}, {"text": "t", "label": "d", "image": ""}),
        "val split: of 2 samples, 2 have a label that training does not know .*'c' of '1'.*: correct it, or train with it",
    ),
    "label list in multi-class data": (
        lambda p: p.table({"text": "t", "label": ["a", "b"]}, {"text": "t", "label": ["a"]}),
        "of 22 rows, 2 have a list as label .*: set data.source.multilabel to true",
    ),
    "one class only": (
        lambda p: p.text_table("train.csv", "image,text,label\n" + ",t,a\n" * 20),
        r"has 1 class \(a\), and 2 are needed: check the labels",
    ),
    "too few samples to hold any out": (
        lambda p: p.text_table("train.csv", "image,text,label\n,t,a\n"),
        "leaves a split empty: give more samples, or a validation split",
    ),
    # Settings of the data
    "separator is empty": (
        lambda p: p.table(multilabel="true", label_separator=""),
        "data.source.label_separator is empty: set the separator between",
    ),
    "table never ends": (
        lambda p: p.on_table(Path("/dev/zero")),
        "/dev/zero is no file: set data.source.train to a table",
    ),
    "wrong crop": (
        lambda p: p.fit("--data.training.augmentation.scale=[1.0,0.2]"),
        "augmentation scale .*: give 0 < least",
    ),
    "impossible rates": (
        lambda p: p.fit("--data.training.modality_dropout.image_dropout=0.9"),
        "add up to more than 1",
    ),
    "seed below 0": (lambda p: p.fit("--data.seed=-1"), "data.seed is -1: give at least 0"),
    "unknown home": (lambda p: p.fit("--data.source.root=~nobody-here"), "~nobody-here/images/train does not exist"),
    "endless path": (lambda p: p.fit(f"--data.source.root=/{'a' * 500}"), "File name too long: check the path"),
    "no batch": (lambda p: p.fit("--data.batch_size=0"), "data.batch_size is 0: give at least 1"),
    "no such condition": (
        lambda p: p.test("--data.evaluation.conditions=[complete,no_audio]"),
        "'no_audio' is no condition: give complete, no_image, no_text, missing_.*, or several joined by",
    ),
    "a condition of noise that does not exist": (
        lambda p: p.fit("--data.evaluation.conditions=[noisy_image_fog_3]"),
        "'noisy_image_fog_3' is no condition: the kinds of image noise are gaussian, .*, and severities go from 1 to 5",
    ),
    "a condition of all and more samples": (
        lambda p: p.test("--data.evaluation.conditions=[missing_both_101]"),
        "'missing_both_101' is no condition: give one missing rate, of more than 0 to 100 percent",
    ),
    "a condition that contradicts itself": (
        lambda p: p.test("--data.evaluation.conditions=[no_text+noisy_text_typos_3]"),
        "'no_text.noisy_text_typos_3' is no condition: it has two parts about the text",
    ),
    "a condition twice": (
        lambda p: p.test("--data.evaluation.conditions=[no_text,complete,no_text]"),
        "'no_text' comes twice in data.evaluation.conditions: leave one out",
    ),
    "no conditions": (
        lambda p: p.test("--data.evaluation.conditions=[]"),
        "there is no condition in data.evaluation.conditions: give one or",
    ),
    "cache of random views": (
        lambda p: p.fit(
            f"--data.cache.folder={p.root}",
            "--data.training.augmentation.flip=0.5",
            "--data.noise.train.image.kinds=[jpeg]",
        ),
        "data.noise.train.image and data.training.augmentation make new inputs in every epoch, .*: set data.cache.views",
    ),
    "views without cache": (
        lambda p: p.fit("--data.cache.views=3"),
        "data.cache.views is 3, and there is no cache: give",
    ),
    "new classes of several labels": (
        lambda p: p.on_table(
            write_table(p.root, "t", p.rows()), "--data.source.multilabel=true", "--data.evaluation.classes=all"
        ),
        "data.evaluation.classes is all, for samples of one class each: leave it at training",
    ),
}
# An image is read when its batch is loaded.
IMAGE_CASES: dict[str, Row] = {
    "broken image": (
        lambda p: p.image(lambda path: path.write_text("<html>")),
        f"{READ} .its format is not known.: {MEND}",
    ),
    "truncated image": (lambda p: p.image(halve), f"1 of 20 image files {READ} .*: {MEND}"),
    "empty image": (lambda p: p.image(lambda path: path.write_bytes(b"")), f"{READ} .it is empty.: {MEND}"),
    "decompression bomb": (lambda p: p.image(write_bomb), f"{READ} .it has more than .* pixels.*: {MEND}"),
    "32-bit image": (lambda p: p.image(float_image), f"{READ} .*32-bit numbers.*: {MEND}"),
    "image in PostScript": (
        lambda p: p.image(postscript),
        f"{READ} .its format is EPS, which is not read; convert it to JPEG or PNG.: {MEND}",
    ),
    "image is a pipe": (lambda p: p.image(instead(pipe)), f"{READ} .it is a pipe.: {MEND}"),
    "truncated image in base64": (
        lambda p: p.table({"image": "iVBORw0K" * 1000, "text": "t", "label": "a"}, val=str(p.root / "train.jsonl")),
        r"2 of 22 image files cannot be read: line 21 of .*train.jsonl .* cannot be read as an image .*: repair or remove",
    ),
}
ENCODER_CASES: dict[str, Row] = {
    "weights never end": (
        lambda p: p.fit("--image_encoder.weights=/dev/zero"),
        "weights: /dev/zero is a device: give a file, a folder, 'pretrained' or 'random'",
    ),
    "no grid": (lambda p: p.fit("--image_encoder.grid=0"), "image_encoder.grid is 0: give at least 1"),
    "size that does not fit": (
        lambda p: p.fit("--image_encoder.size=33"),
        "'test_vit' has patches of 16 pixels, which do not fit images of 33: set image_encoder.size to a multiple",
    ),
    "argument of no model": (lambda p: p.fit("--image_encoder.model_args={a: 1}"), "'a'.: correct model_args"),
    "no such model": (lambda p: p.fit("--image_encoder.name=vit_bse_patch16_224"), "did you mean vit_base_patch16_224"),
    "no such text encoder": (
        lambda p: p.fit("--text_encoder.name=./nowhere"),
        "folder ./nowhere does not exist: check",
    ),
    "text encoder is empty": (
        lambda p: p.fit(f"--text_encoder.name={p.food101}"),
        "food101.*: (check that it is whole, and fits|choose)",  # transformers 4 guesses from the folder's name
    ),
    "texts too long for the encoder": (lambda p: p.fit("--text_encoder.max_length=999"), "give a number from 3 to"),
    "a text model without a tokenizer": (
        lambda p: p.fit(p.text_model(words=False)),
        r"has no tokenizer .it lacks tokenizer.json or vocab.txt.: save it there .tokenizer.save_pretrained",
    ),
    "more tokens than embeddings": (
        lambda p: p.fit(p.text_model(vocab_size=20)),
        "has 6 tokens beyond the 20 that the model has embeddings of, the first is",
    ),
    "texts too long for positions that begin later": (
        lambda p: p.fit(p.text_model("roberta", max_position_embeddings=34), "--text_encoder.max_length=34"),
        "max_length 34 does not fit .*: give a number from 3 to 32",
    ),
    "a text model with code of its own": (
        lambda p: p.fit(p.text_model(auto_map={"AutoModel": "code.Model"})),
        "needs code of its own, which is not run: choose another model",
    ),
    "a text model with a decoder": (
        lambda p: p.fit(p.text_model("t5", d_model=32)),
        "an encoder with a decoder: choose",
    ),
    "images of one channel": (
        lambda p: p.fit("--image_encoder.model_args={in_chans: 1}"),
        "model_args.in_chans must be 3, or left out",
    ),
    "no room for text": (lambda p: p.fit("--text_encoder.max_length=2"), "give a number from 3 to"),
}
CHECKPOINT_CASES: dict[str, Row] = {
    "checkpoint missing": (lambda p: p.test(checkpoint=Path("/no.ckpt")), "/no.ckpt does not exist: give the path"),
    "checkpoint never ends": (
        lambda p: p.test(checkpoint=Path("/dev/zero")),
        "the checkpoint /dev/zero is a device: give the path of a checkpoint",
    ),
    "checkpoint empty": (lambda p: p.checkpoint(b""), "other.ckpt is damaged or no checkpoint: use another one"),
    "checkpoint truncated": (lambda p: p.checkpoint(p.good_checkpoint()[:5000]), "is damaged or no checkpoint: use"),
    "checkpoint of something else": (
        lambda p: p.checkpoint({"state_dict": {}}),
        "is no checkpoint of robusttune: give",
    ),
    "checkpoint with classes in another order": (
        lambda p: p.checkpoint(with_classes_reversed(p.loaded())),
        "other.ckpt is not as it was written .*: use an unchanged copy",
    ),
    "checkpoint of an older version": (
        lambda p: p.checkpoint({"state_dict": {}, "robusttune": {"task": "FusionTask"}}),
        r"other.ckpt was written by an older version of robusttune \(checkpoint format .*\): train again",
    ),
    "checkpoint without facts": (lambda p: p.checkpoint({"state_dict": {}, "robusttune": {}}), "is no checkpoint of"),
    "checkpoint is text": (lambda p: p.checkpoint(b"hello"), "other.ckpt .*: use a"),
    "checkpoint hostile": (lambda p: p.checkpoint({"robusttune": Evil()}), "holds more than tensors and plain data"),
}
NAME_CASES: dict[str, Row] = {
    "empty name": (lambda p: p.fit("--name="), "--name '' is empty: give a name such as mmrl or sweep/lr1"),
    "name of the folder itself": (lambda p: p.fit("--name=."), "--name '.' has a part . or .., which is .*: give"),
    "absolute name": (lambda p: p.fit(f"--name={p.root}/x"), "--name '/.*/x' is an absolute path: give"),
    "name that ends in a slash": (lambda p: p.fit("--name=sweep/"), "--name 'sweep/' has an empty part, .*: give"),
    "name of a run's own folder": (lambda p: p.fit("--name=a/0"), "--name 'a/0' has a number after a slash, .*: give"),
}
# These also run as a command, which proves that such an error becomes one sentence and status 1.
AS_COMMANDS = ("visibility off the simplex", "root missing", "ids repeat", "unknown label", "no such condition")

CASES: dict[str, Row] = {
    **{name: DATA_CASES[name] for name in AS_COMMANDS},
    "broken image": IMAGE_CASES["broken image"],
    "checkpoint truncated": CHECKPOINT_CASES["checkpoint truncated"],
    "checkpoint hostile": CHECKPOINT_CASES["checkpoint hostile"],
    "empty name": NAME_CASES["empty name"],
    "no such model": ENCODER_CASES["no such model"],
    "more tokens than embeddings": ENCODER_CASES["more tokens than embeddings"],
    "nothing ships by that name": (
        lambda p: p.shapes("--image_encoder.name=robusttune:other"),
        "the encoder folder robusttune:other does not exist: check the name",
    ),
    "nothing to correlate": (
        lambda p: p.shapes("--model.fusion=robusttune.models.Concatenation"),
        "Concatenation has nothing to correlate: set model.beta to 0",
    ),
    "no test split": (
        lambda p: p.test_on_table(test=None, train=str(p.root / "test.jsonl")),
        "the data has no test split",
    ),
    # Images
    "image never ends": (
        lambda p: p.image(instead(lambda path: path.symlink_to("/dev/zero")), "--data.loader.workers=1"),
        f"{READ} .it is a device.: {MEND}",
    ),
    "image found by a worker": (lambda p: p.image(halve, "--data.loader.workers=2"), f"{READ} .*: {MEND}"),
    # Settings
    "configuration missing": (lambda p: p.fit("--config=/nowhere.yaml"), "configuration /nowhere.yaml does not exist"),
    "configuration not YAML": (lambda p: p.yaml("data: {seed: [\n"), r"mine.yaml, line 2 is not YAML"),
    "configuration binary": (lambda p: p.yaml(b"\xff\xd8"), r"mine.yaml is no UTF-8 text \(byte 0\): give a YAML file"),
    "configuration with a control character": (lambda p: p.yaml("name: \x07"), "mine.yaml is not YAML"),
    "configuration empty": (lambda p: p.yaml(""), "mine.yaml has no settings: give a YAML file such as"),
    "key given twice": (
        lambda p: p.yaml("data: {seed: 1}\ndata: {seed: 2}\n"),
        "line 2 is not YAML .data is given twice",
    ),
    "date that there is not": (lambda p: p.yaml("name: 2024-13-45"), "mine.yaml is not YAML"),
    "aliases without end": (
        lambda p: p.yaml(bomb("name")),
        "mine.yaml, line 1 is not YAML .its aliases stand for more than 100,000 values.: correct it",
    ),
    "merges without end": (
        lambda p: p.yaml(re.sub(r"\[(.*\*.*)\]", r"{<<: [\1]}", bomb("name")).replace("[0]", "{x: 0}")),
        "its aliases stand for more than 100,000 values",
    ),
    "an alias of itself": (
        lambda p: p.yaml("data: &data {source: *data}"),
        "mine.yaml, line 1 is not YAML .an alias contains itself.: correct it",
    ),
    "an alias of itself in a flag": (
        lambda p: p.fit("--data.evaluation.conditions=&a [*a]"),
        r"data.evaluation.conditions is '&a \[\*a\]', which is not YAML \(an alias contains itself\): correct it",
    ),
    "aliases without end in a flag": (
        lambda p: p.fit(f"--data={bomb('source')}"),
        r"data is 'a0: .*'..., which is not YAML \(its aliases stand for more than 100,000 values\): correct it",
    ),
    "nested without end": (lambda p: p.yaml("name: " + "[" * 9000 + "]" * 9000), "nested more than 100 levels deep"),
    "nested without end in a flag": (
        lambda p: p.fit(f"--data.evaluation.conditions={'[' * 50_000}"),
        r"data.evaluation.conditions is '\[{100}'..., which is not YAML \(it is nested more than 100 levels deep\): correct it",
    ),
    "configuration is a pipe": (
        lambda p: p.fit(f"--config={pipe(p.root / 'pipe')}"),
        "the configuration .*/pipe is a pipe: give the path of a YAML file",
    ),
    "configuration never ends": (
        lambda p: p.fit("--config=/dev/zero"),
        "the configuration /dev/zero is a device: give the path of a YAML file",
    ),
    "setting is a pipe": (
        lambda p: p.fit(f"--data.source={pipe(p.root / 'pipe')}"),
        "/pipe is a pipe: write what it gives to a file, and name that",
    ),
    "setting in a configuration is a pipe": (
        lambda p: p.yaml(f"trainer: {{callbacks: [{pipe(p.root / 'pipe')}]}}"),
        "/pipe is a pipe: write what it gives to a file, and name that",
    ),
    "configuration is a folder": (lambda p: p.fit(f"--config={p.root}"), "is a folder: give the path of a YAML file"),
    "wrong key": (
        lambda p: p.yaml("data: {sauce: 3}"),
        "data.sauce is no setting .did you mean data.source..: correct the --config",
    ),
    "wrong key inside": (lambda p: p.fit("--model.fusion.widht=3"), "model.fusion.widht is no setting: correct"),
    "misspelt flag": (
        lambda p: p.fit("--data.batch_sise=3"),
        "data.batch_sise is no setting .did you mean data.batch_size",
    ),
    "misspelt flag inside": (lambda p: p.fit("--model.fusion.common_with=3"), "did you mean model.fusion.common_width"),
    "misspelt source": (lambda p: p.fit("--data.source.rot=/data"), "did you mean data.source.root"),
    "configuration left out": (lambda p: ["fit", "--config"], "--config has no value: give the path"),
    "wrong flag": (
        lambda p: p.fit("--data.sauce=3"),
        "data.sauce is no setting .did you mean data.source..: correct the --config",
    ),
    "wrong type": (
        lambda p: p.yaml("data: {batch_size: many}"),
        "data.batch_size is 'many', not a whole number: correct",
    ),
    "wrong type in a file, and a flag of the right type": (
        lambda p: [*p.yaml("data: {batch_size: many}"), "--data.batch_size=16"],
        "data.batch_size is 'many', not a whole number: correct",
    ),
    "a bomb in a text of a configuration": (
        lambda p: p.yaml("data: {batch_size: '&a [*a]'}"),
        r"data.batch_size is '&a \[\*a\]', which is not YAML \(an alias contains itself\): correct it",
    ),
    "a bomb in a file of settings": (
        lambda p: p.fit(f"--data={write_text(p.root / 'data.yaml', bomb('seed'))}"),
        "data.*its aliases stand for more than 100,000 values.*: correct",
    ),
    "a class without a name": (
        lambda p: p.fit("--data.source.class_path=null"),
        "data.source.class_path is null: leave it out, or give the import path of a class",
    ),
    "a class of another kind": (
        lambda p: p.fit("--data.source=robusttune.models.MoLT"),
        "data.source.*robusttune.models.MoLT.*: correct the --config or the flags",
    ),
    "wrong type inside": (
        lambda p: p.fit("--model.fusion.cca_dim=x"),
        "model.fusion.cca_dim is 'x', not a whole number",
    ),
    "wrong type of an optimiser's": (
        lambda p: p.fit("--model.optimizer.weight_decay=x"),
        "model.optimizer.weight_decay is 'x', not a number: correct",
    ),
    "learning rate in words": (lambda p: p.fit("--model.optimizer.lr=abc"), "optimizer.lr is 'abc', not a number"),
    "weight not a number": (lambda p: p.fit("--model.alpha=.nan"), "alpha nan, .* do not work: give weights of at"),
    "wrong choice": (lambda p: p.fit("--data.unreadable=skip"), "is 'skip', not one of 'error', 'absent': correct"),
    "wrong schedule": (lambda p: p.fit("--model.schedule.name=cosin"), "'cosin', not one of 'cosine', 'linear'"),
    "wrong class": (lambda p: p.fit("--data.source=Fod101"), "data.source is 'Fod101', not a class that is known"),
    "wrong optimiser": (
        lambda p: p.fit("--model.optimizer=Adm"),
        "model.optimizer is 'Adm', not a class that is known",
    ),
    "wrong learning rate": (lambda p: p.fit("--model.optimizer.lr=-1"), r"cannot be made \(Invalid learning rate"),
    "no time between checkpoints": (
        lambda p: p.fit("--checkpoint_minutes=0"),
        "checkpoint_minutes is 0.0: give a time",
    ),
    "other ways to resume": (lambda p: p.fit("--resume=yes"), "resume"),
    "endless": (lambda p: p.fit("--trainer.max_epochs=-1", "--trainer.max_time=00:00:00:01"), "set trainer.max_epochs"),
    "unmeasured": (
        lambda p: p.fit("--monitor=val/mean/f1"),
        "val/mean/f1 is not measured: monitor val/<condition>/<metric>, of the metrics accuracy, .*, under complete, no_i",
    ),
    "seed of everything below 0": (lambda p: p.fit("--seed_everything=-1"), "seed_everything -1 is not in bounds"),
    "no heads": (lambda p: p.fit("--model.fusion.fusion_heads=0"), "fusion_heads is 0: give at least 1"),
    "two numbers too few": (lambda p: p.fit("--image_encoder.mean=[1]"), r"image_encoder.mean is .*, not a list of 3"),
    "unwritable": (
        lambda p: p.fit("--run_root=/proc/runs"),
        "/proc/runs/food101 cannot be written .*: give another run_root",
    ),
    "no devices": (
        lambda p: p.fit("--trainer.devices=0"),
        "is not a valid input using cpu .*: correct the settings of the trainer",
    ),
    "no such accelerator": (
        lambda p: p.fit("--trainer.accelerator=foo"),
        "invalid accelerator name.*: correct the settings",
    ),
    "no such strategy": (
        lambda p: p.fit("--trainer.strategy=foo"),
        "invalid strategy name.*: correct the settings of the",
    ),
    "no batches to accumulate": (
        lambda p: p.fit("--trainer.accumulate_grad_batches=0"),
        "accumulate_grad_batches is 0: give",
    ),
    "validation too rare": (
        lambda p: p.fit("--trainer.val_check_interval=1000"),
        "must be less than or equal to .*: correct",
    ),
    "unmeasured by a callback": (
        lambda p: p.fit("--trainer.callbacks+=EarlyStopping", "--trainer.callbacks.monitor=val/foo"),
        "`val/foo` which is not available.*: correct the settings of the trainer",
    ),
    "logger not installed": (
        lambda p: p.fit("--trainer.logger=WandbLogger"),
        "WandbLogger cannot be made .*pip install",
    ),
    "layers do not pair": (lambda p: p.fit("--text_encoder.layers=1"), "2 image layers cannot be paired with 1 text"),
    # Conditions
    "one condition and no list": (
        lambda p: p.test("--data.evaluation.conditions=no_text"),
        "data.evaluation.conditions is 'no_text', .*: correct",
    ),
    "a monitor of a condition that is not looked at": (
        lambda p: p.fit("--data.evaluation.conditions=[complete,missing_both_50]", "--monitor=val/no_text/accuracy"),
        "val/no_text/accuracy is not measured: monitor .*, under complete, missing_both_50.* or mean",
    ),
    # Training
    "loss not finite": (
        lambda p: p.fit("--model.optimizer.lr=1e30", "--model.schedule.warmup=0"),
        "step 1 in epoch 0 is not finite, because of all its 32 samples, .*, ...: lower model.optimizer.lr",
    ),
    # Checkpoints
    "no checkpoint": (
        lambda p: ["test", f"--config={p.trained}/config.yaml"],
        "test needs a checkpoint: give --ckpt_path",
    ),
    "report in another folder": (
        lambda p: ["test", f"--ckpt_path={p.trained}", "--report=../test"],
        "--report '../test' has characters other than letters, digits, _ . \\+ and -, .*: give a name such as test",
    ),
    "report of another command": (
        lambda p: ["test", f"--ckpt_path={p.trained}", "--report=validate"],
        "--report 'validate' is the name of another report's files: give a name",
    ),
    "checkpoint to export is a pipe": (
        lambda p: ["export", "--format=published", f"--ckpt_path={pipe(p.root / 'pipe')}", f"--out={p.root}/y.pth"],
        "the checkpoint .*/pipe is a pipe: give the path of a checkpoint",
    ),
    "checkpoint to resume truncated": (lambda p: p.checkpoint(p.good_checkpoint()[:5000], "fit"), "is damaged"),
    "checkpoint without weights": (
        lambda p: p.checkpoint(sealed(p.loaded() | {"state_dict": {}})),
        "the checkpoint lacks weights, or has others: give one of this version",
    ),
    "checkpoint to resume with classes in another order": (
        lambda p: p.checkpoint(with_classes_reversed(p.loaded()), "fit"),
        "other.ckpt is not as it was written .*: use an unchanged copy",
    ),
    "checkpoint to resume without its optimizer": (
        lambda p: p.checkpoint(sealed({k: v for k, v in p.loaded().items() if k != "optimizer_states"}), "fit"),
        "other.ckpt cannot be resumed, since it has no optimizer states: give the last.ckpt of a run",
    ),
    "another text encoder": (lambda p: p.other_text_encoder(), "the checkpoint contradicts .*weights of text_encoder"),
    "another image encoder": (
        lambda p: p.test("--image_encoder.name=test_vit2"),
        "the checkpoint contradicts the settings .*: use the config.yaml of its run",
    ),
    "another size": (lambda p: p.test("--model.fusion.common_width=32"), "model.fusion.common_width 32, not 16.*: use"),
    "another task kind": (
        lambda p: p.test_on_table({"text": "t", "label": ["pho"]}, multilabel=True),
        "trained with multilabel False, and the data say True: use data with the same multilabel setting",
    ),
    "other classes": (
        lambda p: p.test_on_table({"text": "t", "label": "no dish"}),
        "1 have a label .*'no dish' of '1'",
    ),
    # The feature cache
    "cache is a file": (
        lambda p: p.fit(f"--data.cache.folder={p.food101}/texts/train_titles.csv"),
        r"the feature cache .*train_titles.csv cannot be written \(.*\), and its features are kept: make room, or give",
    ),
    "cache of an unreadable image": (
        lambda p: p.image(halve, f"--data.cache.folder={p.root}/cache"),
        f"1 of 2. image files {READ}",
    ),
    "numbers that no cache has": (lambda p: p.fit("--data.cache.dtype=int8"), "data.cache.dtype.*'int8'"),
    "every pattern and modality dropout": (
        lambda p: p.fit("--model.every_pattern=true"),
        r"model.every_pattern is true, and data.training.modality_dropout removes modalities \(image_dropout 0.3, "
        r"text_dropout 0.3\): set both probabilities to 0",
    ),
    # MMRL
    "first layer too high": (
        lambda p: p.mmrl("--image_encoder.first_layer=5"),
        "first_layer 5 does not fit 'robusttune:demo_clip', whose tower has 4 layers: give 1 to 4",
    ),
    "first layer too low": (
        lambda p: p.mmrl("--text_encoder.first_layer=0"),
        "first_layer 0 does not fit .*: give 1 to 4",
    ),
    "image size of another tower": (
        lambda p: p.mmrl("--image_encoder.size=50"),
        "'robusttune:demo_clip' does not take images of 50 pixels: set image_encoder.size to 64",
    ),
    "two CLIPs": (
        lambda p: p.mmrl(f"--text_encoder.name={p.text_folder}"),
        "is a BertModel, and no CLIP: choose one such as openai/clip-vit-base-patch16",
    ),
    "encoders that cannot be reached into": (
        lambda p: p.shapes("--model=robusttune.tasks.MMRLTask"),
        "MMRL works on the towers of one CLIP: set image_encoder.class_path to CLIPImageEncoder",
    ),
    "text longer than the tower takes": (
        lambda p: p.mmrl("--text_encoder.max_length=99"),
        "max_length 99 does not fit 'robusttune:demo_clip': give a number from 3 to 32",
    ),
    "no space tokens": (
        lambda p: p.mmrl("--model.adapter.space_tokens=0"),
        "adapter.space_tokens is 0: give at least 1",
    ),
    "all of the old tokens": (lambda p: p.mmrl("--model.adapter.beta=0"), "adapter.beta is 0.0: give a share above 0"),
    "template without a place": (
        lambda p: p.mmrl("--model.templates=[a photo]"),
        "model.templates has 'a photo': give each one {}, where the name of the class stands",
    ),
    "template too long": (
        lambda p: p.mmrl(f'--model.templates=["{"red " * 40}{{}}"]'),
        "24 prompts are longer than the 32 tokens that the text encoder takes, the first is that of 'red circle'",
    ),
    "warm-up rate above 1": (
        lambda p: p.mmrl("--model.schedule.warmup_rate=2"),
        "schedule.warmup_rate is 2.0: give a share",
    ),
    "epochs without an end": (
        lambda p: p.mmrl("--trainer.max_epochs=-1", "--trainer.max_steps=3"),
        "model.schedule.every is epoch: set trainer.max_epochs",
    ),
    "classes of the same words": (
        lambda p: p.mmrl_classes("red_circle", "red circle"),
        "the classes 'red circle' and 'red_circle' make the same prompt: give each another name",
    ),
    "class without words": (
        lambda p: p.mmrl_classes("a", "_"),
        "class 1 of 2 has a blank name: give it a name for its prompt",
    ),
    "new classes for a model that knows none": (
        lambda p: [
            *p.test_on_table({"text": "t", "label": "no dish"}, {"text": "t", "label": "no soup"}),
            "--data.evaluation.classes=all",
        ],
        "the data's classes are not the model's, .*: give the data module facts=task.facts, .* leave data.evaluation.classes at training",
    ),
    "published weights that are not there": (
        lambda p: p.published(None),
        "model.pth.tar-10 does not exist: give the path of a",
    ),
    "published weights that are torn": (
        lambda p: p.published(p.good_checkpoint()[:9999]),
        "is damaged or no checkpoint: use another one",
    ),
    "published code": (
        lambda p: p.published({"state_dict": Evil()}),
        "holds more than tensors and plain data, and is not",
    ),
    "published numbers": (lambda p: p.published({"a": 1}), "has no state dict: give a checkpoint of MMRL, MMRL"),
    "published weights of something else": (
        lambda p: p.published({"weight": torch.zeros(3)}),
        "it lacks representation_learner.compound_rep_tokens, .*; it has besides weight: set .* .it is none of MMRL's.",
    ),
    "published weights for another model": (
        lambda p: ["import", f"--config={CONFIGS}/demo.yaml", *p.published({"a": torch.zeros(1)})[-2:]],
        "the model of FusionTask has no weights that were ever published: give one of MMRL, MMRL",
    ),
    "export of another model": (
        lambda p: [
            "export",
            "--format=published",
            f"--ckpt_path={p.trained}/checkpoints/best.ckpt",
            f"--out={p.root}/y.pth",
        ],
        "the model of FusionTask in .* has no weights that were ever published: give one of MMRL, MMRL",
    ),
    "export to nowhere": (
        lambda p: ["export", "--format=published", f"--ckpt_path={p.trained}/checkpoints/best.ckpt"],
        "the following arguments are required: --out: robusttune export --help lists the options",
    ),
    # Names of runs
    "name that leads out": (lambda p: p.fit("--name=../../x", "--resume=auto"), "--name '../../x' has a part .*: give"),
    "name to plan": (lambda p: ["plan", *p.fit("--name=..")[1:]], "--name '..' has a part . or .*: give"),
    "name to test": (lambda p: p.test("--name=a//b"), "--name 'a//b' has an empty part, beside a slash: give"),
    # The command itself
    "no such command": (lambda p: ["trian"], "there is no command 'trian': choose from fit, validate, test"),
}


def contents(folder: Path) -> dict[str, str]:
    """Return the hash of every file below a folder, by path."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture
def place(food101: Path, trained: Path, text_folder: Path, tmp_path: Path) -> Iterator[Place]:
    yield Place(tmp_path, food101, trained, text_folder)
    with suppress(FileNotFoundError):
        Path("/tmp/robusttune-was-executed").unlink()


def all_contents(place: Place) -> dict[str, str]:
    """Return the hashes of the user's files, of the shared data and of the finished run, by path."""
    return contents(place.root) | contents(place.original) | contents(place.trained)


def data_of(args: list[str]) -> ImageTextDataModule:
    """Return the checked data of a command, which is not run: that would take several times as long."""
    data = read_data("data verify", "", args[1:], lambda parser: None)[1]
    data.check("fit")
    return data


def read_images(args: list[str]) -> None:
    """Load the batches of a training epoch."""
    data = data_of(args)
    data.setup("fit")
    for batch in data.train_dataloader():
        data.on_before_batch_transfer(batch, 0)


def load_encoders(args: list[str]) -> None:
    """Load the tokenizer and both encoders."""
    data = data_of(args)
    data.text_encoder.tokenizer()
    data.image_encoder.load()
    data.text_encoder.load()


def value(args: list[str], name: str) -> str:
    """Return the last value of an option."""
    return [arg for arg in args if arg.startswith(f"--{name}=")][-1].partition("=")[2]


def read_named_checkpoint(args: list[str]) -> None:
    """Read the checkpoint that a command names."""
    read_checkpoint(value(args, "ckpt_path"))


def find_run_folders(args: list[str]) -> None:
    """Find the folder of the runs of a name."""
    run_folders(value(args, "run_root"), value(args, "name"))


PARTS: list[tuple[Callable[[list[str]], object], dict[str, Row]]] = [
    (data_of, DATA_CASES),
    (read_images, IMAGE_CASES),
    (load_encoders, ENCODER_CASES),
    (read_named_checkpoint, CHECKPOINT_CASES),
    (find_run_folders, NAME_CASES),
]


@pytest.mark.parametrize(
    ("read", "make", "message"),
    [pytest.param(read, *row, id=case) for read, rows in PARTS for case, row in rows.items()],
)
def test_error_of_a_part_is_one_sentence(
    read: Callable[[list[str]], object], make: Callable[[Place], list[str]], message: str, place: Place
) -> None:
    """Check the message where the part that is wrong is read."""
    args = make(place)
    before = all_contents(place)
    with pytest.raises(RobustTuneError) as raised:
        read(args)
    sentence = str(raised.value)
    print(sentence)
    assert not Path("/tmp/robusttune-was-executed").exists()
    assert re.fullmatch(f"(?=.{{20,680}}$).*{message}.*", sentence), sentence
    assert ": " in sentence
    assert {path: hashed for path, hashed in all_contents(place).items() if "/cache_home/" not in path} == before


@pytest.mark.parametrize("case", CASES)
def test_error_of_a_command_is_one_sentence(case: str, place: Place, capfd: pytest.CaptureFixture[str]) -> None:
    """Check that the command fails with status 1 and one sentence, and changes no file."""
    make, message = CASES[case]
    args = make(place)
    before = all_contents(place)
    assert main(args) == 1
    err = capfd.readouterr().err
    last = err.strip().splitlines()[-1]
    print(f"{case}: {last}")
    assert re.fullmatch(f"robusttune: error: (?=.{{20,700}}$).*{message}.*", last), last
    assert ": " in last.removeprefix("robusttune: error: ")
    assert "Traceback" not in err
    assert not Path("/tmp/robusttune-was-executed").exists()
    after = all_contents(place)
    assert {path: after.get(path) for path in before} == before
    left = {
        Path(path).name for path in after.keys() - before.keys() if "/cache/" not in path and "/cache_home/" not in path
    }
    assert left <= {"config.yaml", "hparams.yaml", "metrics.csv", "process.json"} | {
        name for name in left if "tfevents" in name
    }
    assert not any(name.endswith((".partial", ".ckpt")) for name in left)


def unusual_images(folder: Path) -> None:
    """Write images whose format or size few data sets have."""
    grey = Image.new("L", (9, 9))
    Image.fromarray(np.ones((9, 9), np.uint16)).save(folder / "16-bit.png")
    Image.new("CMYK", (9, 9)).save(folder / "cmyk.jpg")
    Image.new("P", (9, 9)).save(folder / "palette.png")
    grey.save(folder / "animated.gif", save_all=True, append_images=[Image.new("L", (9, 9), 1)])
    Image.new("RGB", (1, 1)).save(folder / "pixel.png")
    Image.new("RGB", (3000, 1)).save(folder / "line.png")


UNUSUAL: dict[str, Row] = {
    "unusual images": (lambda p: p.unusual_images(), "train: 26 samples, 26 with image, 26 with text"),
    "unreadable image, to be taken for absent": (
        lambda p: p.image(halve, "--data.unreadable=absent", "--data.loader.workers=2", "--trainer.max_epochs=2"),
        "train: 1 image file unreadable, treated as absent; the first: .*3.png",
    ),
    "text of 100,000 characters": (
        lambda p: p.table({"image": "", "text": "soup " * 20_000, "label": "a"}, val=str(p.root / "train.jsonl")),
        "train: 1 text cut to text_encoder.max_length; the first is that of sample '21'",
    ),
    "emoji and right-to-left text": (lambda p: p.table({"image": "", "text": "🍜👩‍🍳 مرحبا \u202e", "label": "a"}), ""),
    "image that has changed since it was cached": (
        lambda p: p.image(lambda path: p.cached(path.parents[1]), f"--data.cache.folder={p.root}/cache"),
        "image files have changed: 1, the first is .*3.png: their features are computed again",
    ),
    "fewer samples than a batch": (lambda p: p.table(val=str(p.root / "train.jsonl")), ""),
    "three samples": (lambda p: p.fit("--data.splits.subset=3", "--data.batch_size=2"), ""),
    "neither image nor text": (
        lambda p: p.table(*[{"image": "", "text": " ", "label": "a"}] * 5, val=str(p.root / "train.jsonl")),
        "train: 25 samples, 20 with image, 20 with text, 5 with neither",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", UNUSUAL)
def test_unusual_data_are_trained_on(case: str, place: Place, caplog: pytest.LogCaptureFixture) -> None:
    make, message = UNUSUAL[case]
    assert main(make(place)) == 0
    found = re.search(f".*{message}.*", caplog.text)
    assert found
    print(f"{case}: {found[0] if message else 'trained'}")
    assert sorted(path.name for path in place.root.rglob("*.ckpt")) == ["best.ckpt", "last.ckpt"]
