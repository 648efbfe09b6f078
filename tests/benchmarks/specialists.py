"""One model against a specialist for each condition: five folds of emoji, within a style and from one to the other.

No emoji of a test fold is in training, in whatever style. Specialists are logistic regressions on pooled features, and
on all features, with the regularisation that is best on the test folds, and the parts of `Experts`, each trained alone
with the same recipe. What is done is kept in the root folder; the same command goes on from there.

`make specialists DATA=folder WEIGHTS=mobilenetv2_100.safetensors`
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator
from functools import partial
from itertools import product
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np
import pyarrow.parquet as pq
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.emoji_features import CONDITIONS, FOLDS, STYLES, Features, features, fold_of, rows_of, write_rows
from benchmarks.robustness import EMOJI_STEPS, text_encoder
from benchmarks.runs import CONFIGS, in_processes, kept, tested, trained
from benchmarks.specialists_picture import draw
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from robusttune.evaluation.bootstrap import interval, resampled_means

EXPERTS = ["--config={configs}/fusion/experts.yaml", *EMOJI_STEPS]
RECIPE = [
    "--data.corruption={{image_dropout: 0, text_dropout: 0}}",
    "--model.every_pattern=true",
    "--model.label_smoothing=0.2",
    *EMOJI_STEPS,
]
ALONE = "--model.every_pattern=false"
# By name the flags, and the conditions that a model is for. A specialist knows nothing of what it is not for.
MODELS: dict[str, tuple[list[str], tuple[str, ...]]] = {
    "experts": (EXPERTS, CONDITIONS),
    "image specialist": ([*EXPERTS, ALONE, "--data.source.text_column=null"], ("no_text",)),
    "text specialist": ([*EXPERTS, ALONE, "--data.source.image_column=null"], ("no_image",)),
    "joint specialist": ([*EXPERTS, ALONE], ("complete",)),
    "MoLT": ([], CONDITIONS),
    "late fusion": (["--config={configs}/baselines/late_fusion.yaml"], CONDITIONS),
    "concatenation": (["--config={configs}/baselines/concatenation.yaml"], CONDITIONS),
    "cross-attention": (["--config={configs}/baselines/cross_attention.yaml"], CONDITIONS),
}
# What of the recipe makes the difference; these are trained where they are asked for.
PARTS: dict[str, tuple[list[str], tuple[str, ...]]] = {
    "experts, pooled": ([*EXPERTS, "--model.fusion.init_args.layers=false"], CONDITIONS),
    "experts, all features": ([*EXPERTS, "--model.fusion.init_args.input_dropout=0"], CONDITIONS),
    "experts, hard labels": ([*EXPERTS, "--model.label_smoothing=0"], CONDITIONS),
    "experts, modality dropout": (
        [*EXPERTS, ALONE, "--data.corruption={{image_dropout: 0.45, text_dropout: 0.25}}"],
        CONDITIONS,
    ),
    "MoLT, recipe": (RECIPE, CONDITIONS),
    "late fusion, recipe": (["--config={configs}/baselines/late_fusion.yaml", *RECIPE], CONDITIONS),
}
ALL = {**MODELS, **PARTS}
TOGETHER = "three specialists"  # what those of `MODELS` are shown as, each where it is at home
SPECIALISTS = ("logistic, pooled", "logistic, all", TOGETHER)
Correct = dict[str, float]  # by emoji, the share of seeds that are right


class Job(NamedTuple):
    model: str
    style: str
    fold: int
    seed: int


def write_folds(data: Path, root: Path) -> None:
    """Tables ``<style>-<fold>-{train,test}.jsonl``; a few of train stand in for a validation that decides nothing."""
    for style in STYLES:
        rows = list(rows_of(data, style))
        for fold in range(FOLDS):
            train = [row for row in rows if fold_of(row) != fold]
            parts = {"train": train, "val": train[::50], "test": [row for row in rows if fold_of(row) == fold]}
            for part, chosen in parts.items():
                write_rows(root / f"{style}-{fold}-{part}.jsonl", chosen)
        write_rows(root / f"{style}.jsonl", rows)


def answer(given: argparse.Namespace, job: Job) -> None:
    """Train one model on one fold and test it in both styles, unless that is done; ``answers`` gets what was right."""

    def make() -> dict[str, Any]:
        flags, conditions = ALL[job.model]
        flags = [flag.format(configs=CONFIGS) for flag in flags]
        folder = trained(given.root, name, job.seed, *emoji(given, job.style, job.fold), *flags, *given.extra)
        tests = {style: f"--data.source.test={given.root}/{style}-{job.fold}-test.jsonl" for style in STYLES}
        return {style: right(tested(folder, test) / "test.parquet", conditions) for style, test in tests.items()}

    name = "-".join(map(str, job))
    kept(given.root / "answers" / f"{name}.json", make)


def emoji(given: argparse.Namespace, style: str, fold: int) -> list[str]:
    """Flags of MoLT's configuration on one fold."""
    tables = [f"--data.source.{part}={given.root}/{style}-{fold}-{part}.jsonl" for part in ("train", "val", "test")]
    return [
        f"--config={CONFIGS}/emoji.yaml",
        f"--data.source.image_root={given.data}",
        f"--image_encoder.weights={given.weights}",
        f"--text_encoder.name={text_encoder()}",
        *tables,
    ]


def right(path: Path, conditions: tuple[str, ...]) -> dict[str, dict[str, bool]]:
    """By condition and emoji. A model that only knows one side calls its one condition complete."""
    rows = pq.read_table(path, columns=["condition", "id", "label", "prediction"]).to_pylist()
    names = {row["condition"] for row in rows}
    called = {"complete": conditions[0]} if len(names) == 1 else {name: name for name in conditions}
    found: dict[str, dict[str, bool]] = {called[name]: {} for name in names & called.keys()}
    for row in rows:
        if row["condition"] in called:
            found[called[row["condition"]]][row["id"].split("/")[1]] = row["label"] == row["prediction"]
    return found


def regressions(given: argparse.Namespace) -> dict[str, Any]:
    """Logistic regressions, those of the regularisation that is best on the test folds."""
    of = {style: features(given.root / f"{style}.jsonl", given.data, given.weights) for style in STYLES}
    found: dict[str, Any] = {}
    for which, style, (number, condition) in product(("pooled", "all"), STYLES, enumerate(CONDITIONS)):
        tried: list[dict[str, dict[str, bool]]] = []
        for strength in (3e-4, 1e-3, 3e-3, 1e-2, 3e-2):
            hits: dict[str, dict[str, bool]] = {test: {} for test in STYLES}
            for fold in range(FOLDS):
                train, rows = shown(of[style], which, number), of[style].fold != fold
                mean, scale = train[rows].mean(0), train[rows].std(0) + 1e-6
                model = LogisticRegression(C=strength, max_iter=100)
                model.fit((train[rows] - mean) / scale, of[style].label[rows])
                for test in STYLES:
                    own = np.flatnonzero(of[test].fold == fold)
                    said = model.predict((shown(of[test], which, number)[own] - mean) / scale)
                    hits[test] |= {
                        of[test].emoji[i]: bool(p == of[test].label[i]) for i, p in zip(own, said, strict=True)
                    }
            tried.append(hits)
        for test in STYLES:
            best = max((hits[test] for hits in tried), key=lambda hit: sum(hit.values()))
            found.setdefault(f"logistic, {which}", {})[f"{style} {test} {condition}"] = best
        print(f"logistic regression: {which}, {style}, {condition}", flush=True)
    return found


def shown(of: Features, which: str, number: int) -> NDArray[np.float32]:
    """(N, d) of both sides, of the text alone, or of the image alone."""
    image, text = of.sides[which]
    return (np.concatenate([image, text], 1), text, image)[number]


def answers(given: argparse.Namespace) -> dict[str, dict[str, Correct]]:
    """By model and cell, ``<trained on> <tested on> <condition>``."""
    found: dict[str, dict[str, Correct]] = json.loads((given.root / "answers/logistic.json").read_text())
    for model in given.models:
        hits: dict[str, dict[str, list[bool]]] = {}
        for style, fold, seed in product(STYLES, range(FOLDS), range(given.seeds)):
            path = given.root / "answers" / f"{'-'.join(map(str, Job(model, style, fold, seed)))}.json"
            for test, by_condition in json.loads(path.read_text()).items():
                for condition, correct in by_condition.items():
                    cell = hits.setdefault(f"{style} {test} {condition}", {})
                    for emoji, was_right in correct.items():
                        cell.setdefault(emoji, []).append(was_right)
        name = TOGETHER if model.endswith("specialist") else model
        found.setdefault(name, {}).update(
            {cell: {emoji: float(np.mean(every)) for emoji, every in of.items()} for cell, of in hits.items()}
        )
    return found


def accuracy(of: Correct) -> tuple[float, float, float]:
    """And its 95 % interval by the bootstrap."""
    parts = torch.tensor([[float(of[emoji])] for emoji in sorted(of)])
    return float(parts.mean()), *interval(resampled_means(parts)[:, 0])


def difference(ours: Correct, theirs: Correct) -> tuple[float, float, float]:
    """Of two accuracies on the same emoji: the difference and its 95 % interval by the paired bootstrap."""
    parts = torch.tensor([[ours[emoji] - theirs[emoji]] for emoji in sorted(ours)])
    return float(parts.mean()), *interval(resampled_means(parts)[:, 0])


def table(found: dict[str, dict[str, Correct]], ours: str = "experts") -> Iterator[str]:
    """Markdown: accuracies; then what the model of ours has more than the best specialist of each cell."""
    transfers = [(a, b) for a in STYLES for b in STYLES]
    cells = [f"{a} {b} {condition}" for a, b in transfers for condition in CONDITIONS]
    yield f"| | {' | '.join(f'{a} → {b}' for a, b in transfers)} |"
    yield "| --- " * (1 + len(transfers)) + "|"
    mean = {model: {cell: float(np.mean(list(of.values()))) for cell, of in by.items()} for model, by in found.items()}
    for model, by in mean.items():
        row = [
            " ".join(f"{by[f'{a} {b} {c}']:.3f}" if f"{a} {b} {c}" in by else "-" for c in CONDITIONS)
            for a, b in transfers
        ]
        yield f"| {model} | {' | '.join(row)} |"
    for what, others in (("logistic, pooled", SPECIALISTS[:1]), ("any specialist", SPECIALISTS)):
        row = []
        for cell in cells:
            known = [model for model in others if cell in mean.get(model, {})]
            best = max(known, key=lambda model, cell=cell: mean[model][cell])  # type: ignore[misc]
            row.append("{:+.3f} [{:+.3f}, {:+.3f}]".format(*difference(found[ours][cell], found[best][cell])))
        width = len(CONDITIONS)
        rows = ["<br>".join(row[i : i + width]) for i in range(0, len(row), width)]
        yield f"| {ours} - {what} | {' | '.join(rows)} |"


def work(given: argparse.Namespace, job: Job | None) -> None:
    """No job is the regressions."""
    if job:
        answer(given, job)
    else:
        kept(given.root / "answers/logistic.json", lambda: regressions(given))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder of {noto,fluent3d}_{train,val,test}.jsonl")
    parser.add_argument("weights", type=Path, help="mobilenetv2_100.safetensors")
    parser.add_argument("--root", type=Path, default=Path("runs/specialists"), help="of runs, cache and answers")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--models", nargs="+", choices=ALL, default=list(MODELS))
    parser.add_argument("--processes", type=int, default=os.cpu_count(), help="at a time, a core each")
    given, given.extra = parser.parse_known_args()
    given.root, given.data, start = given.root.resolve(), given.data.resolve(), perf_counter()
    given.root.mkdir(parents=True, exist_ok=True)
    write_folds(given.data, given.root)
    jobs = [Job(*job) for job in product(given.models, STYLES, range(FOLDS), range(given.seeds))]
    in_processes(partial(work, given), [None, *jobs], given.processes)
    found = answers(given)
    lines = "\n".join(table(found))
    (given.root / "table.md").write_text(lines + "\n")
    shown = {model: {cell: accuracy(of) for cell, of in cells.items()} for model, cells in found.items()}
    draw(given.root / "specialists.png", shown, list(product(STYLES, STYLES)), CONDITIONS)
    print(f"{lines}\n{perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
