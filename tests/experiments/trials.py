"""Does anything make one model better than specialists trained with the same recipe? Trials in plain PyTorch.

The parts of `Experts` on features that are computed once, in the folds and with the recipe of the study `specialists`;
all folds and seeds are trained at once. Each trial changes one thing. The figures are means over the four pairs of
training and test style, with intervals by the paired bootstrap over emoji.

    make trials DATA=emoji WEIGHTS=mobilenetv2_100.safetensors
"""

from __future__ import annotations

import argparse
import math
import os
import random
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from experiments import emoji
from experiments.emoji import FOLDS, STYLES
from experiments.records import RUNS, Record, Results, run_jobs
from experiments.training import CONDITIONS
from multinomial import resampled_means
from torch import Tensor, nn
from torch.nn import functional

from robusttune.encoders.preprocessing import Augmentation
from robusttune.evaluation.bootstrap import interval

BATCH, EPOCHS, RATE, DECAY, WARM_UP = 64, 30, 2e-3, 0.05, 0.05
INPUT_DROPOUT, DROPOUT, SMOOTHING = 0.7, 0.3, 0.2
VIEWS = 3  # random views of each image, and of each text


class Trial(NamedTuple):
    """A way to train.

    Attributes:
        weights: Weights of the losses of both modalities, the text alone and the image alone.
        pair: Whether there is an expert for the pair.
        image_views: Fraction of steps in which a sample shows a random crop, flipped or not.
        text_views: Fraction of steps in which a sample's text is half of its keywords.
        mixup: Parameter of the Beta distribution of mixup on features (Zhang et al. 2018), 0 for none.
        distillation: Weight of the cross-entropy of each modality's prediction against that of both.
        prediction: Weight of the squared error of predicting the other modality's pooled embedding.
        subgroups: Weight of the cross-entropy of 94 finer labels, one head for each modality.
        width: Width of the hidden layers.
    """

    weights: tuple[float, float, float] = (0.5, 0.25, 0.25)
    pair: bool = True
    image_views: float = 0.0
    text_views: float = 0.0
    mixup: float = 0.0
    distillation: float = 0.0
    prediction: float = 0.0
    subgroups: float = 0.0
    width: int = 256


SPECIALISTS = {  # one for each of `CONDITIONS`
    "joint specialist": Trial((1.0, 0.0, 0.0)),
    "text specialist": Trial((0.0, 1.0, 0.0)),
    "image specialist": Trial((0.0, 0.0, 1.0)),
}
TRIALS = {
    "Experts": Trial(),
    "no expert for the pair": Trial(pair=False),
    "image and text experts trained apart, then added": Trial((0.0, 0.5, 0.5), pair=False),
    "random crops and flips of images": Trial(image_views=0.5),
    "keywords instead of the text, half of the time": Trial(text_views=0.5),
    "mixup of features": Trial(mixup=0.4),
    "distillation from both modalities to each": Trial(distillation=0.25),
    "each modality predicts the other's pooled embedding": Trial(prediction=1.0),
    "94 finer labels as well": Trial(subgroups=0.5),
    "four times as wide": Trial(width=1024),
}


class Job(NamedTuple):
    """Settings of one run: its name in `TRIALS` or `SPECIALISTS`, and the number of seeds."""

    trial: str
    seeds: int


class Emoji(NamedTuple):
    """Features of the N emoji of a style: images and texts (V, N, d), the first view clean; the rest (N,)."""

    image: Tensor
    text: Tensor
    label: Tensor
    subgroup: Tensor
    fold: Tensor
    names: list[str]


def load(root: Path, source: emoji.Source, style: str) -> Emoji:
    """Load the features of a style with random views, and compute them if they are not in the root folder."""
    path = root / f"{style}.pt"
    if not path.exists():
        rows = sorted(source.rows(style), key=lambda row: str(row["id"]))
        table, draw = root / f"{style}.jsonl", random.Random(0)
        emoji.write_rows(table, rows)
        clean = emoji.features(source, table)
        assert clean.emoji == [row["id"].split("/")[1] for row in rows]
        images, texts = ([torch.from_numpy(views)] for views in clean.modalities["normalised"])
        for view in range(VIEWS):
            half = {row["id"]: draw.sample(row["keywords"], max(1, len(row["keywords"]) // 2)) for row in rows}
            emoji.write_rows(table, [{**row, "text": " ".join(half[row["id"]])} for row in rows])
            seen = emoji.features(source, table, Augmentation(), seed=view)
            images.append(torch.from_numpy(seen.modalities["normalised"][0]))
            texts.append(torch.from_numpy(seen.modalities["normalised"][1]))
            print(f"{style}: view {view + 1} of {VIEWS}", flush=True)
        finer = sorted({row["subgroup"] for row in rows})
        subgroup = torch.tensor([finer.index(row["subgroup"]) for row in rows])
        label, fold = torch.from_numpy(clean.label), torch.from_numpy(clean.fold)
        torch.save([torch.stack(images), torch.stack(texts), label, subgroup, fold, clean.emoji], path)
    return Emoji(*torch.load(path))


class Linear(nn.Module):
    """Linear layers of R runs, (R, B, in) -> (R, B, out)."""

    def __init__(self, runs: int, width_in: int, width_out: int) -> None:
        super().__init__()
        bound = 1 / math.sqrt(width_in)
        self.weight = nn.Parameter(torch.empty(runs, width_in, width_out).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(runs, 1, width_out).uniform_(-bound, bound))

    def forward(self, x: Tensor) -> Tensor:
        return torch.baddbmm(self.bias, x, self.weight)


class Networks(nn.Module):
    """`Experts` for R runs at once, on centred features (R, B, d) of each modality."""

    def __init__(self, runs: int, data: Emoji, trial: Trial) -> None:
        super().__init__()
        classes, finer = int(data.label.max()) + 1, int(data.subgroup.max()) + 1
        widths = data.image.shape[2], data.text.shape[2]
        self.pooled = 1280, 384  # widths of the pooled embeddings, which come first
        self.trial, self.finer_labels = trial, finer
        self.hidden = nn.ModuleList(Linear(runs, width, trial.width) for width in widths)
        self.read = nn.ModuleList(Linear(runs, trial.width, classes) for _ in range(3))
        self.guess = nn.ModuleList(Linear(runs, trial.width, width) for width in reversed(self.pooled))
        self.finer = nn.ModuleList(Linear(runs, trial.width, finer) for _ in range(2))

    def forward(self, image: Tensor, text: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Return logits (R, B, C) by condition, and the hidden layers of image and text."""
        dropped = (functional.dropout(features, INPUT_DROPOUT, self.training) for features in (image, text))
        hidden = [layer(features) for layer, features in zip(self.hidden, dropped, strict=True)]
        by_image, by_text, by_pair = (
            read(functional.dropout(functional.gelu(h), DROPOUT, self.training))
            for read, h in zip(self.read, [*hidden, hidden[0] + hidden[1]], strict=True)
        )
        whole = by_image + by_text + by_pair if self.trial.pair else by_image + by_text
        return [whole, by_text, by_image], hidden


def loss_of(trial: Trial, networks: Networks, image: Tensor, text: Tensor, targets: Tensor, finer: Tensor) -> Tensor:
    """Return the loss, summed over runs. Targets are probabilities of classes, (R, B, C)."""
    logits, hidden = networks(image, text)

    def entropy(logits: Tensor, target: Tensor) -> Tensor:
        return -(target * logits.log_softmax(-1)).sum(-1).mean(1).sum()

    loss = sum((w * entropy(z, targets) for w, z in zip(trial.weights, logits, strict=True) if w), torch.zeros(()))
    if trial.distillation:
        whole = logits[0].detach().softmax(-1)
        loss = loss + trial.distillation * (entropy(logits[1], whole) + entropy(logits[2], whole))
    active = [functional.gelu(h) for h in hidden]
    if trial.prediction:
        other = (text[..., : networks.pooled[1]], image[..., : networks.pooled[0]])
        for guess, h, truth in zip(networks.guess, active, other, strict=True):
            loss = loss + trial.prediction * (guess(h) - truth).square().mean((1, 2)).sum()
    if trial.subgroups:
        truth = functional.one_hot(finer, networks.finer_labels).float()
        loss = loss + trial.subgroups * sum(
            entropy(head(h), truth) for head, h in zip(networks.finer, active, strict=True)
        )
    return loss


def centres(data: Emoji, rows: list[Tensor]) -> list[Tensor]:
    """Return the mean image and text features of each run's training rows, each (R, 1, d)."""
    return [torch.stack([views[0, of].mean(0) for of in rows]).unsqueeze(1) for views in (data.image, data.text)]


def batches(data: Emoji, train: list[Tensor], trial: Trial) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """Yield images, texts, targets and finer labels of each step; each run has its own order."""
    middles = centres(data, train)
    for _ in range(EPOCHS):
        orders = [rows[torch.randperm(len(rows))] for rows in train]
        for start in range(0, min(map(len, train)) - BATCH + 1, BATCH):
            rows = torch.stack([order[start : start + BATCH] for order in orders])
            inputs = []
            for views, centre, share in zip(data[:2], middles, (trial.image_views, trial.text_views), strict=True):
                view = torch.randint(1, VIEWS + 1, rows.shape) * (torch.rand(rows.shape) < share)
                inputs.append(views[view, rows] - centre)
            image, text = inputs
            targets = functional.one_hot(data.label[rows], int(data.label.max()) + 1).float()
            targets = (1 - SMOOTHING) * targets + SMOOTHING / targets.shape[2]
            if trial.mixup:
                kept = torch.distributions.Beta(trial.mixup, trial.mixup).sample(rows.shape).unsqueeze(2)
                image, text, targets = (kept * x + (1 - kept) * x.roll(1, 1) for x in (image, text, targets))
            yield image, text, targets, data.subgroup[rows]


def train(data: Emoji, trial: Trial, seeds: int) -> tuple[Networks, list[Tensor]]:
    """Train the networks of all folds and seeds; return them with the training rows of each."""
    torch.manual_seed(0)
    rows = [torch.nonzero(data.fold != run % FOLDS).flatten() for run in range(FOLDS * seeds)]
    networks = Networks(len(rows), data, trial)
    optimizer = torch.optim.AdamW(networks.parameters(), lr=RATE, weight_decay=DECAY)
    steps = EPOCHS * (min(map(len, rows)) // BATCH)
    warm = max(1, int(WARM_UP * steps))
    for step, batch in enumerate(batches(data, rows, trial)):
        rate = (step + 1) / warm if step < warm else (1 + math.cos(math.pi * (step - warm) / (steps - warm))) / 2
        optimizer.param_groups[0]["lr"] = RATE * rate
        optimizer.zero_grad()
        loss_of(trial, networks, *batch).backward()  # type: ignore[no-untyped-call]
        grads = [p.grad for p in networks.parameters() if p.grad is not None]
        norm = torch.stack([grad.flatten(1).norm(dim=1) for grad in grads]).norm(dim=0)  # of each run, to clip it alone
        for grad in grads:
            grad *= (1 / (norm + 1e-6)).clamp(max=1).view(-1, 1, 1)
        optimizer.step()
    return networks.eval(), rows


@torch.no_grad()
def correct(networks: Networks, rows: list[Tensor], own: Emoji, other: Emoji) -> Tensor:
    """Return the fraction of seeds that are right, by condition and emoji of the other style, (3, N)."""
    logits, _ = networks(*(views[0] - centre for views, centre in zip(other[:2], centres(own, rows), strict=True)))
    right = torch.stack(logits).argmax(3) == other.label  # (3, R, N)
    held = torch.stack([other.fold == run % FOLDS for run in range(len(rows))])
    return (right & held).sum(1) / held.sum(0)


def right_by_pair(root: Path, source: emoji.Source, job: Job) -> Tensor:
    """Return the fraction of seeds that are right on each emoji that both styles have, mean over pairs, (names, 3)."""
    data = {style: load(root, source, style) for style in STYLES}
    trial = {**SPECIALISTS, **TRIALS}[job.trial]
    names = [name for name in data["noto"].names if name in {*data["fluent3d"].names}]
    rows = {style: torch.tensor([of.names.index(name) for name in names]) for style, of in data.items()}
    found = []
    for style in STYLES:
        networks, training = train(data[style], trial, job.seeds)
        found += [correct(networks, training, data[style], data[other])[:, rows[other]] for other in STYLES]
    return torch.stack(found).mean(0).T


def measure(root: Path, source: emoji.Source, job: Job) -> Record:
    """Return the accuracy by condition, of a specialist under its own; keep which emoji are right in a file."""
    right = right_by_pair(root, source, job)
    torch.save(right, right_file(root, job.trial))
    accuracy = dict(zip(CONDITIONS, right.mean(0).tolist(), strict=True))
    own = [CONDITIONS[list(SPECIALISTS).index(job.trial)]] if job.trial in SPECIALISTS else CONDITIONS
    return {condition: round(accuracy[condition], 6) for condition in own}


def right_file(root: Path, trial: str) -> Path:
    return root / f"{trial}.pt"


def summary(root: Path, trials: list[str]) -> list[Record]:
    """Return what each trial has more than the three specialists, by condition."""
    specialists = torch.stack([torch.load(right_file(root, name))[:, i] for i, name in enumerate(SPECIALISTS)], 1)
    rows: list[Record] = []
    for trial in trials:
        more = (torch.load(right_file(root, trial)) - specialists).double()
        for place, condition in enumerate(CONDITIONS):
            low, high = interval(resampled_means(more)[:, place])
            bounds = {"mean": float(more[:, place].mean()), "low": low, "high": high}
            rows.append({"trial": trial, "condition": condition, **{k: round(v, 6) for k, v in bounds.items()}})
    return rows


def table(results: Results) -> str:
    """Return Markdown: accuracies of the specialists, then what each trial has more, with intervals."""
    return "\n".join(_lines(results))


def _lines(results: Results) -> Iterator[str]:
    yield f"| | {' | '.join(CONDITIONS)} |\n| --- | --- | --- | --- |"
    specialists = {c: value for name in SPECIALISTS for of in results.metrics(trial=name) for c, value in of.items()}
    yield f"| three specialists | {' | '.join(f'{specialists[c]:.3f}' for c in CONDITIONS)} |"
    for trial in dict.fromkeys(row["trial"] for row in results.summary):
        rows = [row for row in results.summary if row["trial"] == trial]
        cells = [f"{row['mean']:+.3f} [{row['low']:+.3f}, {row['high']:+.3f}]" for row in rows]
        yield f"| {trial} | {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    emoji.add_arguments(parser)
    parser.add_argument("--root", type=Path, default=RUNS / "trials", help="folder of features and results.json")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--trials", nargs="+", choices=TRIALS, default=list(TRIALS))
    parser.add_argument("--processes", type=int, default=os.cpu_count(), help="jobs at a time, one core each")
    given = parser.parse_args()
    root, source = given.root.resolve(), emoji.Source.of(given)
    for style in STYLES:
        load(root, source, style)
    jobs = [Job(name, given.seeds) for name in [*SPECIALISTS, *given.trials]]
    results = run_jobs(root, jobs, partial(measure, root, source), given.processes, source.versions())
    results.summary = summary(root, given.trials)
    results.write(root / "results.json")
    print(table(results))


if __name__ == "__main__":
    main()
