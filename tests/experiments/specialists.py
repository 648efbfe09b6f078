"""Does one model replace three specialists, one for complete samples, one for images alone and one for texts alone?

Emoji in five folds, within a drawing style and from one style to the other; no emoji of a test fold is in training, in
whatever style. Two kinds of specialists: logistic regressions on the frozen features, whose regularisation is the best
on the test folds and so flatters them, and the parts of `Experts`, each trained alone with the same recipe.

    make specialists DATA=emoji WEIGHTS=mobilenetv2_100.safetensors
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
from collections.abc import Iterator
from functools import partial
from itertools import product
from pathlib import Path
from statistics import mean
from typing import NamedTuple

import numpy as np
import pyarrow.parquet as pq
import torch
from experiments import emoji
from experiments.emoji import EXPERTS_STEPS, FOLDS, STYLES, fold_tables
from experiments.records import RUNS, Record, Results, run_jobs
from experiments.training import CONDITIONS, evaluate, overlays, train
from multinomial import resampled_means
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from robusttune.evaluation.bootstrap import interval
from robusttune.paths import atomic_write

EXPERTS = [*overlays("fusion/experts"), *EXPERTS_STEPS]
ALONE = "--model.every_pattern=false"
LATE_FUSION = overlays("baselines/late_fusion")
RECIPE = [*overlays("ablations/no_modality_dropout"), "--model.every_pattern=true", "--model.label_smoothing=0.2"]
RATES = "--data.training.modality_dropout={image_dropout: 0.45, text_dropout: 0.25}"
MODELS = {
    "Experts": EXPERTS,
    "image specialist": [*EXPERTS, ALONE, "--data.source.text_column=null"],
    "text specialist": [*EXPERTS, ALONE, "--data.source.image_column=null"],
    "joint specialist": [*EXPERTS, ALONE],
    "MoLT": [],
    "late fusion": LATE_FUSION,
    "concatenation": overlays("baselines/concatenation"),
}
MORE_MODELS = {  # trained where --models asks for them
    "cross-attention": overlays("baselines/cross_attention"),
    "Experts, pooled embeddings alone": [*EXPERTS, "--model.fusion.init_args.layers=false"],
    "Experts, no input dropout": [*EXPERTS, "--model.fusion.init_args.input_dropout=0"],
    "Experts, no label smoothing": [*EXPERTS, "--model.label_smoothing=0"],
    "Experts, modality dropout": [*EXPERTS, ALONE, RATES],
    "MoLT, recipe of Experts": [*RECIPE, *EXPERTS_STEPS],
    "late fusion, recipe of Experts": [*LATE_FUSION, *RECIPE, *EXPERTS_STEPS],
}
# The only condition that a specialist is for. A model of one modality calls its only condition `complete`.
HOME = {"image specialist": "no_text", "text specialist": "no_image", "joint specialist": "complete"}
REGRESSIONS = {"logistic regression, pooled": "pooled", "logistic regression, all layers": "all"}
TOGETHER = "three specialists"
STRENGTHS = (3e-4, 1e-3, 3e-3, 1e-2, 3e-2)  # inverse regularisation of the regressions
Cell = tuple[str, str, str]  # trained on, tested on, condition
CELLS: list[Cell] = list(product(STYLES, STYLES, CONDITIONS))
Right = dict[str, float]  # by emoji, the fraction of seeds whose prediction is right


class Job(NamedTuple):
    """Settings of one run.

    Attributes:
        model: Name in `MODELS`, `MORE_MODELS` or `REGRESSIONS`.
        style: Drawing style of the training data.
        fold: Test fold; None for regressions, which cover all.
        seed: Seed of the training.
    """

    model: str
    style: str
    fold: int | None
    seed: int


def measure(root: Path, source: emoji.Source, job: Job) -> Record:
    """Return the accuracy by test style and condition, and keep which emoji are right in a file of its own."""
    right = (regressions if job.model in REGRESSIONS else fusion)(root, source, job)
    path = right_file(root, job)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(right))
    return {s: {c: round(mean(of.values()), 6) for c, of in by.items()} for s, by in right.items()}


def right_file(root: Path, job: Job) -> Path:
    return root / "right" / f"{'-'.join(map(str, job))}.json"


def fusion(root: Path, source: emoji.Source, job: Job) -> dict[str, dict[str, Right]]:
    """Train a model on one fold and test it in both styles."""
    assert job.fold is not None
    flags = [*source.flags(*fold_tables(root, job.style, job.fold)), *{**MODELS, **MORE_MODELS}[job.model]]
    folder = train(root, "-".join(map(str, job)), job.seed, *flags)
    found = {}
    for style in STYLES:
        report = evaluate(folder, f"--data.source.test={fold_tables(root, style, job.fold)[2]}")
        found[style] = right_by_condition(report / "test.parquet", HOME.get(job.model))
    return found


def right_by_condition(path: Path, home: str | None) -> dict[str, Right]:
    """Return which emoji are right, by condition; of a specialist, under its own condition alone."""
    rows = pq.read_table(path, columns=["condition", "id", "label", "prediction"]).to_pylist()
    found: dict[str, Right] = {home: {}} if home else {condition: {} for condition in CONDITIONS}
    for row in rows:
        condition = home if home and row["condition"] == "complete" else row["condition"]
        if condition in found and (not home or row["condition"] == "complete"):
            found[condition][row["id"].split("/")[1]] = float(row["label"] == row["prediction"])
    return found


def regressions(root: Path, source: emoji.Source, job: Job) -> dict[str, dict[str, Right]]:
    """Fit a logistic regression for each condition and fold, with the regularisation that is best on the test folds."""
    features = {style: style_features(root, source, style) for style in STYLES}
    own, kind = features[job.style], REGRESSIONS[job.model]
    found: dict[str, dict[str, Right]] = {style: {} for style in STYLES}
    for condition in CONDITIONS:
        tried: list[dict[str, Right]] = []
        for strength in STRENGTHS:
            right: dict[str, Right] = {style: {} for style in STYLES}
            for fold in range(FOLDS):
                train, rows = visible(own, kind, condition), own.fold != fold
                centre, scale = train[rows].mean(0), train[rows].std(0) + 1e-6
                model = LogisticRegression(C=strength, max_iter=100)
                model.fit((train[rows] - centre) / scale, own.label[rows])
                for style, other in features.items():
                    held = np.flatnonzero(other.fold == fold)
                    predicted = model.predict((visible(other, kind, condition)[held] - centre) / scale)
                    hits = predicted == other.label[held]
                    right[style] |= {other.emoji[row]: float(hit) for row, hit in zip(held, hits, strict=True)}
            tried.append(right)
        for style in STYLES:
            found[style][condition] = max((right[style] for right in tried), key=lambda right: sum(right.values()))
    return found


def style_features(root: Path, source: emoji.Source, style: str) -> emoji.Features:
    """Return the features of all emoji of a style, and compute them if they are not in the root folder."""
    path = root / f"features-{style}.pickle"
    if not path.exists():
        with atomic_write(path) as temporary:
            temporary.write_bytes(pickle.dumps(emoji.features(source, root / "folds" / f"{style}.jsonl")))
    found: emoji.Features = pickle.loads(path.read_bytes())
    return found


def visible(features: emoji.Features, kind: str, condition: str) -> NDArray[np.float32]:
    """Return the features that a condition leaves, (N, d)."""
    image, text = features.modalities[kind]
    return {"complete": np.concatenate([image, text], 1), "no_image": text, "no_text": image}[condition]


def summary(root: Path, jobs: list[Job]) -> list[Record]:
    """Return the accuracy of each model in each cell, and how much more Experts have than the best of others there."""
    right = right_by_model(root, jobs)
    rows = [
        {"kind": "accuracy", "model": model, "cell": cell, **estimate(list(of.values()))}
        for model, cells in right.items()
        for cell, of in cells.items()
    ]
    experts = right.get("Experts", {})
    rivals_by_name = {
        TOGETHER: [TOGETHER],
        "best logistic regression": list(REGRESSIONS),
        "best other fusion model": [model for model in MODELS if model != "Experts" and model not in HOME],
    }
    for name, rivals in rivals_by_name.items():
        for cell, ours in experts.items():
            known = [right[rival][cell] for rival in rivals if cell in right.get(rival, {})]
            if known:
                theirs = max(known, key=lambda of: mean(of.values()))
                difference = estimate([ours[name] - theirs[name] for name in sorted(ours)])
                rows.append({"kind": "difference", "model": "Experts", "to": name, "cell": cell, **difference})
    return rows


def right_by_model(root: Path, jobs: list[Job]) -> dict[str, dict[Cell, Right]]:
    """Return the fraction of seeds that are right, by model, cell and emoji; the three specialists count as one."""
    seeds: dict[str, dict[Cell, dict[str, list[float]]]] = {}
    for job in jobs:
        model = TOGETHER if job.model in HOME else job.model
        for tested, by_condition in json.loads(right_file(root, job).read_text()).items():
            for condition, of in by_condition.items():
                cell = seeds.setdefault(model, {}).setdefault((job.style, tested, condition), {})
                for name, hit in of.items():
                    cell.setdefault(name, []).append(hit)
    return {m: {c: {e: mean(hits) for e, hits in of.items()} for c, of in by.items()} for m, by in seeds.items()}


def estimate(values: list[float]) -> dict[str, float]:
    """Return the mean and its 95 % interval by the bootstrap over emoji."""
    low, high = interval(resampled_means(torch.tensor(values)[:, None])[:, 0])
    return {"mean": round(mean(values), 6), "low": round(low, 6), "high": round(high, 6)}


def table(results: Results) -> str:
    """Return Markdown: accuracies by model, then the differences between Experts and specialists."""
    return "\n".join(_lines(results))


def _lines(results: Results) -> Iterator[str]:
    transfers = list(product(STYLES, STYLES))
    yield f"| | {' | '.join(f'{trained} → {tested}' for trained, tested in transfers)} |"
    yield "| --- " * (1 + len(transfers)) + "|"
    accuracies = [row for row in results.summary if row["kind"] == "accuracy"]
    for model in dict.fromkeys(row["model"] for row in accuracies):
        found = {tuple(row["cell"]): f"{row['mean']:.3f}" for row in accuracies if row["model"] == model}
        cells = [" ".join(found.get((*transfer, c), "-") for c in CONDITIONS) for transfer in transfers]
        yield f"| {model} | {' | '.join(cells)} |"
    differences = [row for row in results.summary if row["kind"] == "difference"]
    for other in dict.fromkeys(row["to"] for row in differences):
        found = {
            tuple(row["cell"]): f"{row['mean']:+.3f} [{row['low']:+.3f}, {row['high']:+.3f}]"
            for row in differences
            if row["to"] == other
        }
        cells = ["<br>".join(found.get((*transfer, c), "-") for c in CONDITIONS) for transfer in transfers]
        yield f"| Experts minus {other} | {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    emoji.add_arguments(parser)
    parser.add_argument("--root", type=Path, default=RUNS / "specialists", help="folder of runs and results.json")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--models", nargs="+", choices={**MODELS, **MORE_MODELS}, default=list(MODELS))
    parser.add_argument("--processes", type=int, default=os.cpu_count(), help="jobs at a time, one core each")
    given = parser.parse_args()
    root, source = given.root.resolve(), emoji.Source.of(given)
    emoji.write_folds(source, root)
    for style in STYLES:
        style_features(root, source, style)
    jobs = [Job(model, style, None, 0) for model, style in product(REGRESSIONS, STYLES)]
    jobs += [Job(*settings) for settings in product(given.models, STYLES, range(FOLDS), range(given.seeds))]
    results = run_jobs(root, jobs, partial(measure, root, source), given.processes, source.versions())
    results.summary = summary(root, jobs)
    results.write(root / "results.json")
    print(table(results))


if __name__ == "__main__":
    main()
