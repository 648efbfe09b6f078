"""Every shipped configuration runs, with tiny encoders and made-up data in the place of its own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from fakes import method_flags, mmrl_flags, tiny_flags
from layouts import LAYOUTS
from tars import streamed

from robusttune.cli import main
from robusttune.commands.data_config import read_data

CONFIGS = Path(__file__).parents[1] / "configs"
COMPLETE = sorted(CONFIGS.glob("*.yaml"))
PROTOCOLS = sorted(CONFIGS.glob("protocols/*.yaml"))  # tests/protocols runs them
OVERLAYS = sorted({*CONFIGS.glob("*/*.yaml")} - {*PROTOCOLS})
SOURCE = "--data.source"
# The data of a configuration, where they are not those of its name: a layout, and what points to it.
COOP = ["caltech101", "dtd", "ethz_food101", "eurosat", "flowers102", "stanford_cars", "sun397", "ucf101"]
LAYOUT_OF = dict.fromkeys([*COOP, "oxford_pets"], "oxford_pets") | {
    "emoji": "table",
    "imagenet_r": "imagenet_a",
    "imagenet_sketch": "imagenet_a",
}
TABLES = [f"{SOURCE}.{split}={{root}}/{split}.jsonl" for split in ("train", "val", "test")]
VARIANT = [f"{SOURCE}.classnames={{root}}/classnames.txt", f"{SOURCE}.published=null"]
WHERE = {
    "oxford_pets": [
        f"{SOURCE}.root={{root}}",
        f"{SOURCE}.split_file=oxford_pets/split_zhou_OxfordPets.json",
        f"{SOURCE}.image_folder=oxford_pets/images",
    ],
    "imagenet": [f"{SOURCE}.root={{root}}/images", f"{SOURCE}.classnames={{root}}/classnames.txt"],
    "imagenet_v2": [f"{SOURCE}.root={{root}}/v2", *VARIANT],
    "imagenet_a": [f"{SOURCE}.root={{root}}/imagenet-a", *VARIANT],
    "image_folder": [f"{SOURCE}.{split}={{root}}/{split}" for split in ("train", "val", "test")],
    "hugging_face": [
        f"{SOURCE}.{name}={value}"
        for name, value in {
            "path": "{root}/saved",
            "image_column": "photo",
            "text_column": "title",
            "label_column": "dish",
        }.items()
    ],
    "mmimdb_hdf5": [f"{SOURCE}.root={{root}}", f"{SOURCE}.sizes=[6,2,2]"],
    "table": TABLES,
}
# One of MoLT and one of MMRL are trained in every run of the tests, the others in the slow ones: in every run,
# `test_data_are_read` reads the data of each, and `test_readme` trains both demos.
TRAINED = {"food101", "oxford_pets_mmrl"}
ON_THE_CPU = {"gpus.yaml": ["--trainer.accelerator=cpu", "--trainer.devices=1", "--trainer.strategy=auto"]}


def data_flags(config: Path, folder: Path) -> list[str]:
    """Flags that put a small made-up copy in the place of the data of a configuration."""
    if config.stem.startswith("demo"):  # which draw their own
        return [f"{SOURCE}.{split}=48" for split in ("train", "val", "test")]
    name = config.stem.removesuffix("_mmrl")
    layout = LAYOUT_OF.get(name, name)
    root = folder / "data"
    if not root.exists():
        LAYOUTS[layout].write(root)
    return [flag.format(root=root) for flag in WHERE.get(layout, [f"{SOURCE}.root={{root}}"])]


def flags_for(config: Path, text_folder: Path, clip_folder: Path, folder: Path) -> list[str]:
    flags = [f"--config={config}", *data_flags(config, folder), f"--run_root={folder}"]
    if config.stem.startswith("demo"):
        return [*flags, "--trainer.max_epochs=1"]
    flags += (
        mmrl_flags(Path("none"), clip_folder)
        if config.stem.endswith("_mmrl")
        else tiny_flags(Path("none"), text_folder)
    )
    return [*flags, *(["--image_encoder.model_args={}"] if config.stem == "emoji" else [])]


def test_all_are_found() -> None:
    assert len(COMPLETE) > 25
    assert len(OVERLAYS) > 5
    assert {*COMPLETE, *OVERLAYS, *PROTOCOLS} == set(CONFIGS.rglob("*.yaml"))
    assert {path.stem for path in COMPLETE} >= TRAINED
    assert {path.parent for path in OVERLAYS} == {path.parent for path in OVERLAYS if path.stem in OFTEN}


@pytest.mark.parametrize("config", COMPLETE, ids=lambda path: path.name)
def test_data_are_read(config: Path, text_folder: Path, tmp_path: Path) -> None:
    """With the settings that the file has, but for where its data are."""
    _, data = read_data("data verify", "", [f"--config={config}", *data_flags(config, tmp_path)], lambda parser: None)
    tables = [data.records(split) for split in ("train", "val", "test")]
    assert any(tables)
    assert all(len(table) for table in tables if table is not None)


@pytest.mark.parametrize("config", [*COMPLETE, *OVERLAYS, *PROTOCOLS], ids=lambda path: str(path.relative_to(CONFIGS)))
def test_the_first_line_says_what_a_configuration_is(config: Path) -> None:
    """`robusttune configs` shows that line alone."""
    first = config.read_text().splitlines()[0]
    kind: tuple[str, ...] = ("# MoLT on ", "# MMRL on ")
    kind = ("# Overlay:", "# Overlay for ") if config in OVERLAYS else kind
    kind = ("# A model for ",) if "\nrecipe: auto\n" in config.read_text() else kind
    kind = ("# Protocol: ", "# Protocol: miniature of ") if config in PROTOCOLS else kind
    assert first.startswith(kind)
    assert first.endswith((".", "?"))
    assert len(first) <= 120


@pytest.mark.parametrize(
    "config",
    [pytest.param(p, marks=[] if p.stem in TRAINED else pytest.mark.slow) for p in COMPLETE],
    ids=lambda path: path.name,
)
def test_complete_configurations(config: Path, text_folder: Path, clip_folder: Path, tmp_path: Path) -> None:
    flags = flags_for(config, text_folder, clip_folder, tmp_path)
    if config.stem in ("imagenet_v2_mmrl", "imagenet_a_mmrl", "imagenet_r_mmrl", "imagenet_sketch_mmrl"):
        trained = CONFIGS / "imagenet_mmrl.yaml"
        overlay = f"--config={CONFIGS}/clip/cross_dataset.yaml"
        source = flags_for(trained, text_folder, clip_folder, tmp_path / "imagenet")
        assert main(["fit", source[0], overlay, *source[1:]]) == 0
        checkpoint = tmp_path / "imagenet/imagenet_mmrl/0/checkpoints/best.ckpt"
        assert main(["test", *flags, f"--ckpt_path={checkpoint}"]) == 0
        report = json.loads((tmp_path / "imagenet/imagenet_mmrl/0/report/test.json").read_text())
        assert "accuracy" in report["conditions"]["complete"]
        return
    assert main(["fit", *flags]) == 0
    checkpoint = tmp_path / f"{config.stem}/0/checkpoints/best.ckpt"
    assert main(["test", "--config", str(checkpoint.parents[1] / "config.yaml"), f"--ckpt_path={checkpoint}"]) == 0
    found = json.loads((checkpoint.parents[1] / "report/test.json").read_text())["conditions"]["complete"]
    splits = yaml.safe_load(config.read_text())["data"].get("splits", {})
    assert ("harmonic_mean" in found) == (splits.get("classes") == "base")


# One of each folder is trained in every run of the tests, the others in the slow ones: in every run, `test_overlays`
# checks what they change.
OFTEN = {"cross_attention", "zero_shot", "no_null_tokens", "quick", "few_shot", "experts", "text"}
OFTEN |= {"dcp", "post_hoc", "both_70", "smoke", "oxford_pets"}


@pytest.mark.parametrize(
    "overlay",
    [pytest.param(p, marks=[] if p.stem in OFTEN else pytest.mark.slow) for p in OVERLAYS],
    ids=[str(p.relative_to(CONFIGS)) for p in OVERLAYS],
)
def test_overlays(overlay: Path, text_folder: Path, clip_folder: Path, tmp_path: Path) -> None:
    of_clip = overlay.parent.name in ("clip", "mmrlpp") or overlay.stem == "zero_shot"
    several_labels = overlay.stem in ("positive_weights", "mora_mmimdb")
    if overlay.stem == "stream":
        fit_streamed(overlay, text_folder, clip_folder, tmp_path)
        return
    name = "oxford_pets_mmrl" if of_clip else "table" if several_labels else "food101"
    flags = flags_for(CONFIGS / f"{name}.yaml", text_folder, clip_folder, tmp_path)
    flags += ["--data.source.multilabel=true", "--monitor=val/mean/f1_macro"] if several_labels else []
    if overlay.parent.name == "methods":
        flags = [flags[0], *data_flags(CONFIGS / f"{name}.yaml", tmp_path), f"--run_root={tmp_path}"]
        flags += method_flags(Path("none"), clip_folder, overlay.stem)
        flags += ["--data.source.multilabel=true"] if several_labels else []
    if overlay.parent.name in ("baselines", "fusion"):  # which have no settings of MoLT or MMRL
        flags = [flag for flag in flags if not flag.startswith(("--model.fusion.", "--model.adapter."))]
    laid_over = [flags[0], f"--config={overlay}", *flags[1:], *ON_THE_CPU.get(overlay.name, [])]
    if overlay.name != "transfer.yaml":
        assert main(["fit", *laid_over]) == 0
        return
    assert main(["fit", *flags]) == 0
    assert main(["test", *laid_over, f"--ckpt_path={tmp_path}/{name}/0/checkpoints/best.ckpt"]) == 0
    found = json.loads((tmp_path / name / "0/report/test.json").read_text())["conditions"]["complete"]
    assert "accuracy" in found, "base and new classes of another data set are no two kinds"


def fit_streamed(overlay: Path, text_folder: Path, clip_folder: Path, folder: Path) -> None:
    """Fit with training samples of tar files."""
    flags = flags_for(CONFIGS / "hugging_face.yaml", text_folder, clip_folder, folder)
    columns = {name: getattr(streamed(folder, [20, 20]), f"{name}_column") for name in ("image", "text", "label")}
    flags += [f"--config={overlay}", *(f"{SOURCE}.{name}_column={column}" for name, column in columns.items())]
    files = {"train": f"{folder}/train-*.tar", "validation": f"{folder}/val-0.tar"}
    flags += [f"{SOURCE}.path=webdataset", f"{SOURCE}.files={json.dumps(files)}"]
    assert main(["fit", *flags, "--trainer.max_steps=3", "--trainer.val_check_interval=2"]) == 0


def test_configurations_of_mmrl_differ_in_their_data_alone() -> None:
    """What is the same for all is written in each, and must not drift apart."""
    settings = {path.stem: yaml.safe_load(path.read_text()) for path in COMPLETE if path.stem.endswith("_mmrl")}
    shared = {}
    for name, config in settings.items():
        if name in ("demo_mmrl", "food101_mmrl") or "optimizer" not in config["model"]["init_args"]:
            continue
        model = config["model"]["init_args"]
        adapter = {key: value for key, value in model["adapter"].items() if key != "space_width"}
        shared[name] = [config["image_encoder"], config["text_encoder"], adapter, model["alpha"], model["optimizer"]]
        assert adapter.get("space_tokens") == 5
    assert len(shared) == 14
    assert all(value == shared["dtd_mmrl"] for value in shared.values())
