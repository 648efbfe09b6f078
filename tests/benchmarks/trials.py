"""Is there something that makes one model better than specialists trained alike? Trials on what both encoders say.

The parts of `Experts` in plain PyTorch, on features that are computed once, in the folds and with the recipe of
`make specialists`; all folds and seeds are trained at once. Each trial changes one thing. Figures are means over the
four transfers: of the specialists, and what a trial has more, with intervals by the paired bootstrap over emoji.

`make trials DATA=folder WEIGHTS=mobilenetv2_100.safetensors`
"""

from __future__ import annotations

import argparse
import math
import random
import sys
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from time import perf_counter
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from benchmarks.emoji_features import CONDITIONS, FOLDS, STYLES, features, rows_of, write_rows
from torch import Tensor, nn
from torch.nn import functional

from robusttune.encoders.preprocessing import Augmentation
from robusttune.evaluation.bootstrap import interval, resampled_means

BATCH, EPOCHS, RATE, DECAY, WARM_UP = 64, 30, 2e-3, 0.05, 0.05
INPUT_DROPOUT, DROPOUT, SMOOTHING = 0.7, 0.3, 0.2
VIEWS = 3  # random ones of each image, and as many of each text


class Trial(NamedTuple):
    """Attributes:
    weights: of the losses of the whole, the text alone and the image alone.
    pair: whether there is an expert for the pair.
    image_views: share of steps in which a sample shows a random crop, perhaps flipped.
    text_views: share of steps in which a sample's text is half of its keywords.
    mixup: of features; parameter of the Beta distribution (Zhang et al. 2018), 0 for none.
    distillation: weight of the cross-entropy of each side's answer against that of the whole.
    prediction: weight of the squared error of each side's guess at the other's pooled embedding.
    subgroups: weight of the cross-entropy of 94 finer labels, by a head for each side.
    width: of the hidden layers.
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


# Each alone, in the order of `CONDITIONS`.
SPECIALISTS = (Trial((1.0, 0.0, 0.0)), Trial((0.0, 1.0, 0.0)), Trial((0.0, 0.0, 1.0)))
TRIALS = {
    "experts": Trial(),
    "no expert for the pair": Trial(pair=False),
    "sides trained apart, then added": Trial((0.0, 0.5, 0.5), pair=False),
    "random views of images": Trial(image_views=0.5),
    "keywords in the place of texts": Trial(text_views=0.5),
    "mixup of features": Trial(mixup=0.4),
    "distillation from the whole to its sides": Trial(distillation=0.25),
    "each side predicts the other": Trial(prediction=1.0),
    "finer labels as well": Trial(subgroups=0.5),
    "four times as wide": Trial(width=1024),
}


class Emoji(NamedTuple):
    """Of one style, N rows: (V, N, d) images and texts, of which the first view is clean; (N,) the others."""

    image: Tensor
    text: Tensor
    label: Tensor
    subgroup: Tensor
    fold: Tensor
    names: list[str]


def load(root: Path, data: Path, weights: Path, style: str) -> Emoji:
    """With random views; kept in the root folder."""
    path = root / f"{style}.pt"
    if not path.exists():
        rows = sorted(rows_of(data, style), key=lambda row: str(row["id"]))
        table, draw = root / f"{style}.jsonl", random.Random(0)
        write_rows(table, rows)
        clean = features(table, data, weights)
        assert clean.emoji == [row["id"].split("/")[1] for row in rows]
        images, texts = ([torch.from_numpy(side)] for side in clean.sides["normalised"])
        for view in range(VIEWS):
            half = {row["id"]: draw.sample(row["keywords"], max(1, len(row["keywords"]) // 2)) for row in rows}
            write_rows(table, [{**row, "text": " ".join(half[row["id"]])} for row in rows])
            seen = features(table, data, weights, Augmentation(), seed=view)
            images.append(torch.from_numpy(seen.sides["normalised"][0]))
            texts.append(torch.from_numpy(seen.sides["normalised"][1]))
            print(f"{style}: view {view + 1} of {VIEWS}", flush=True)
        finer = sorted({row["subgroup"] for row in rows})
        subgroup = torch.tensor([finer.index(row["subgroup"]) for row in rows])
        label, fold = torch.from_numpy(clean.label), torch.from_numpy(clean.fold)
        torch.save([torch.stack(images), torch.stack(texts), label, subgroup, fold, clean.emoji], path)
    return Emoji(*torch.load(path))


class Linear(nn.Module):
    """R linear layers beside each other, (R, B, in) -> (R, B, out)."""

    def __init__(self, runs: int, width_in: int, width_out: int) -> None:
        super().__init__()
        bound = 1 / math.sqrt(width_in)
        self.weight = nn.Parameter(torch.empty(runs, width_in, width_out).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(runs, 1, width_out).uniform_(-bound, bound))

    def forward(self, x: Tensor) -> Tensor:
        return torch.baddbmm(self.bias, x, self.weight)


class Networks(nn.Module):
    """`ExpertsNetwork` for R runs at once, on (R, B, d) of either side without what its training samples share."""

    def __init__(self, runs: int, emoji: Emoji, trial: Trial) -> None:
        super().__init__()
        classes, finer = int(emoji.label.max()) + 1, int(emoji.subgroup.max()) + 1
        widths = emoji.image.shape[2], emoji.text.shape[2]
        self.pooled = 1280, 384  # what comes first in either side
        self.trial = trial
        self.hidden = nn.ModuleList(Linear(runs, width, trial.width) for width in widths)
        self.read = nn.ModuleList(Linear(runs, trial.width, classes) for _ in range(3))
        self.guess = nn.ModuleList(Linear(runs, trial.width, width) for width in reversed(self.pooled))
        self.finer = nn.ModuleList(Linear(runs, trial.width, finer) for _ in range(2))

    def forward(self, image: Tensor, text: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Logits (R, B, C) by condition, and hidden layers of image and text."""
        dropped = (functional.dropout(side, INPUT_DROPOUT, self.training) for side in (image, text))
        hidden = [layer(side) for layer, side in zip(self.hidden, dropped, strict=True)]
        by_image, by_text, by_pair = (
            read(functional.dropout(functional.gelu(h), DROPOUT, self.training))
            for read, h in zip(self.read, [*hidden, hidden[0] + hidden[1]], strict=True)
        )
        whole = by_image + by_text + by_pair if self.trial.pair else by_image + by_text
        return [whole, by_text, by_image], hidden


def loss_of(trial: Trial, networks: Networks, image: Tensor, text: Tensor, targets: Tensor, finer: Tensor) -> Tensor:
    """The loss, summed over runs. Targets are (R, B, C), shares of classes."""
    answers, hidden = networks(image, text)

    def entropy(logits: Tensor, target: Tensor) -> Tensor:
        return -(target * logits.log_softmax(-1)).sum(-1).mean(1).sum()

    loss = sum((w * entropy(z, targets) for w, z in zip(trial.weights, answers, strict=True) if w), torch.zeros(()))
    if trial.distillation:
        whole = answers[0].detach().softmax(-1)
        loss = loss + trial.distillation * (entropy(answers[1], whole) + entropy(answers[2], whole))
    active = [functional.gelu(h) for h in hidden]
    if trial.prediction:
        other = (text[..., : networks.pooled[1]], image[..., : networks.pooled[0]])
        for guess, h, truth in zip(networks.guess, active, other, strict=True):
            loss = loss + trial.prediction * (guess(h) - truth).square().mean((1, 2)).sum()
    if trial.subgroups:
        truth = functional.one_hot(finer, networks.finer[0].bias.shape[2]).float()
        loss = loss + trial.subgroups * sum(
            entropy(head(h), truth) for head, h in zip(networks.finer, active, strict=True)
        )
    return loss


def centres(emoji: Emoji, rows: list[Tensor]) -> list[Tensor]:
    """(R, 1, d) of images and of texts: the mean of what each run is trained on."""
    return [torch.stack([side[0, of].mean(0) for of in rows]).unsqueeze(1) for side in (emoji.image, emoji.text)]


def batches(emoji: Emoji, train: list[Tensor], trial: Trial) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """Images, texts, targets and finer labels of each step, of each run its own."""
    sides_centres = centres(emoji, train)
    for _ in range(EPOCHS):
        orders = [rows[torch.randperm(len(rows))] for rows in train]
        for start in range(0, min(map(len, train)) - BATCH + 1, BATCH):
            rows = torch.stack([order[start : start + BATCH] for order in orders])
            sides = []
            for side, centre, share in zip(
                emoji[:2], sides_centres, (trial.image_views, trial.text_views), strict=True
            ):
                view = torch.randint(1, VIEWS + 1, rows.shape) * (torch.rand(rows.shape) < share)
                sides.append(side[view, rows] - centre)
            targets = functional.one_hot(emoji.label[rows], int(emoji.label.max()) + 1).float()
            targets = (1 - SMOOTHING) * targets + SMOOTHING / targets.shape[2]
            if trial.mixup:
                share = torch.distributions.Beta(trial.mixup, trial.mixup).sample(rows.shape).unsqueeze(2)
                image, text, targets = (share * part + (1 - share) * part.roll(1, 1) for part in (*sides, targets))
                sides = [image, text]
            yield *sides, targets, emoji.subgroup[rows]  # type: ignore[misc]


def train(emoji: Emoji, trial: Trial, seeds: int) -> tuple[Networks, list[Tensor]]:
    """Networks of all folds and seeds, and the training rows of each."""
    torch.manual_seed(0)
    rows = [torch.nonzero(emoji.fold != run % FOLDS).flatten() for run in range(FOLDS * seeds)]
    networks = Networks(len(rows), emoji, trial)
    optimizer = torch.optim.AdamW(networks.parameters(), lr=RATE, weight_decay=DECAY)
    steps = EPOCHS * (min(map(len, rows)) // BATCH)
    warm = max(1, int(WARM_UP * steps))
    for step, batch in enumerate(batches(emoji, rows, trial)):
        rate = (step + 1) / warm if step < warm else (1 + math.cos(math.pi * (step - warm) / (steps - warm))) / 2
        optimizer.param_groups[0]["lr"] = RATE * rate
        optimizer.zero_grad()
        loss_of(trial, networks, *batch).backward()
        grads = [p.grad for p in networks.parameters() if p.grad is not None]
        norm = torch.stack([grad.flatten(1).norm(dim=1) for grad in grads]).norm(dim=0)  # of each run by itself
        for grad in grads:
            grad *= (1 / (norm + 1e-6)).clamp(max=1).view(-1, 1, 1)
        optimizer.step()
    return networks.eval(), rows


@torch.no_grad()
def correct(networks: Networks, rows: list[Tensor], own: Emoji, other: Emoji) -> Tensor:
    """(3, N) by condition and emoji of the other style, the share of seeds that are right."""
    answers, _ = networks(*(side[0] - centre for side, centre in zip(other[:2], centres(own, rows), strict=True)))
    right = torch.stack(answers).argmax(3) == other.label  # (3, R, N)
    held = torch.stack([other.fold == run % FOLDS for run in range(len(rows))])
    return (right & held).sum(1) / held.sum(0)


def answers(emoji: dict[str, Emoji], trial: Trial, seeds: int) -> dict[tuple[str, str], Tensor]:
    """By transfer, see `correct`."""
    found = {}
    for style in STYLES:
        networks, rows = train(emoji[style], trial, seeds)
        found |= {(style, test): correct(networks, rows, emoji[style], emoji[test]) for test in STYLES}
    return found


def over_transfers(emoji: dict[str, Emoji], ours: dict[tuple[str, str], Tensor]) -> Tensor:
    """(names, 3) of every emoji that is in both styles, the mean over transfers."""
    names = [name for name in emoji["noto"].names if name in {*emoji["fluent3d"].names}]
    places = {style: torch.tensor([of.names.index(name) for name in names]) for style, of in emoji.items()}
    return torch.stack([ours[pair][:, places[pair[1]]] for pair in product(STYLES, STYLES)]).mean(0).T


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder of {noto,fluent3d}_{train,val,test}.jsonl")
    parser.add_argument("weights", type=Path, help="mobilenetv2_100.safetensors")
    parser.add_argument("--root", type=Path, default=Path("runs/trials"), help="of features")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--trials", nargs="+", choices=TRIALS, default=list(TRIALS))
    given = parser.parse_args()
    given.root.mkdir(parents=True, exist_ok=True)
    begun = perf_counter()
    emoji = {style: load(given.root, given.data, given.weights, style) for style in STYLES}
    alone = [over_transfers(emoji, answers(emoji, trial, given.seeds))[:, i] for i, trial in enumerate(SPECIALISTS)]
    specialists = torch.stack(alone, 1)
    print(f"| | {' | '.join(CONDITIONS)} |\n| --- | --- | --- | --- |")
    print(f"| three specialists | {' | '.join(f'{value:.3f}' for value in specialists.mean(0))} |", flush=True)
    for name in given.trials:
        more = over_transfers(emoji, answers(emoji, TRIALS[name], given.seeds)) - specialists
        means = resampled_means(more.double())
        cells = [
            "{:+.3f} [{:+.3f}, {:+.3f}]".format(float(more[:, i].mean()), *interval(means[:, i])) for i in range(3)
        ]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)
    print(f"{perf_counter() - begun:.0f} s")


if __name__ == "__main__":
    main()
