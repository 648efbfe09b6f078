"""Training DCP, DPL, MoRA or LoRA on a ViT-B/16 CLIP with random weights, against computing everything plainly.

`python tests/benchmarks/bench_methods.py [--methods DCP MoRA] [--batch 4] [--rounds 3]`

Of twenty samples, six are complete, seven lack the image and seven the text; a round is the forward and backward passes
of all of them. Without dropout both ways are checked to be equal; then they are timed by turns, with dropout, from the
inputs and from features that are computed once. Plainly, every layer of both towers runs on every sample, with texts of
full length.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from benchmarks.bench_mmrl import CONTEXT, END, LAYERS, write_clip
from benchmarks.paired import compare
from plain_dcp import plain_forward
from plain_mora import PlainAdapted, rewritten
from torch import Tensor, nn
from torch.nn import functional
from transformers import CLIPModel

from robusttune.commands.quiet import quiet
from robusttune.encoders import CLIPImageEncoder, CLIPTextEncoder
from robusttune.models import DCP, DPL, LoRA, MoRA, Prototypes
from robusttune.models.clip_network import CLIPModel as Settings
from robusttune.models.low_rank import LowRankModel
from robusttune.models.published import dcp_names, mora_names
from robusttune.types import Encoded, Facts

SAMPLES, CLASSES = 20, 101
METHODS: dict[str, tuple[Settings, int]] = {  # settings, and first layer of the network
    "DCP": (DCP(), 1),
    "DPL": (DPL(), LAYERS + 1),
    "DPL on DCP": (DCP(prototypes=Prototypes()), 1),
    "MoRA": (MoRA(("q_proj", "v_proj"), 0.1, shared_rank=4, image_rank=4, text_rank=4, alpha=0.01), LAYERS - 1),
    "LoRA": (LoRA(("q_proj", "v_proj"), 0.1, rank=6, alpha=6.0), LAYERS - 1),
}


class Step(ABC):
    """A step of training in three ways: plain, from inputs, and from features of the layers below."""

    def __init__(self, folder: Path, settings: Settings, first_layer: int, present: tuple[Tensor, Tensor]) -> None:
        self.clip: Any = CLIPModel.from_pretrained(folder).eval().requires_grad_(False)
        encoders: dict[str, Any] = {"name": str(folder), "first_layer": first_layer}
        self.image = CLIPImageEncoder(**encoders).load()
        text = CLIPTextEncoder(**encoders, max_length=CONTEXT - 1)
        self.text = text.load()
        facts = Facts([str(n) for n in range(CLASSES)], [1 / CLASSES] * CLASSES, multilabel=False)
        torch.manual_seed(0)
        self.network = settings.build_on(self.image, self.text, facts).train()
        self.present, batch = present, len(present[0])
        self.pixels = torch.randint(256, (batch, 3, 224, 224), dtype=torch.uint8)
        words = [f"w{n}" for n in range(300)]
        lengths, shown = torch.randint(4, 24, (batch,)).tolist(), present[1].tolist()
        self.texts = [" ".join(words[:n]) if there else "" for n, there in zip(lengths, shown, strict=True)]
        kept = [each for each, there in zip(self.texts, shown, strict=True) if there]
        self.tokens = text.tokenizer()(kept).tokens if kept else None
        self.label = torch.randint(CLASSES, (batch,))
        self.kept = self.encode()

    def encode(self) -> tuple[Encoded, Encoded]:
        """Run the layers below the first one of the network."""
        image, text = self.present
        tokens: Any = [] if self.tokens is None else self.tokens
        return self.image.encode(self.pixels[image], image, False), self.text.encode(tokens, text, False)

    def full_texts(self, padding: int) -> tuple[Tensor, Tensor]:
        """Return ids and mask of the texts at full length, empty where a text is absent."""
        tokens = self.text.prompt_tokenizer(self.texts).tokens
        more = CONTEXT - tokens.input_ids.shape[1]
        ids = tokens.input_ids.masked_fill(~tokens.attention_mask, padding)
        return functional.pad(ids, (0, more), value=padding), functional.pad(tokens.attention_mask, (0, more))

    @abstractmethod
    def plain(self) -> Tensor:
        """Return logits, computed plainly."""

    def fast(self) -> Tensor:
        return self.network(*self.encode(), *self.present).logits

    def cached(self) -> Tensor:
        return self.network(*self.kept, *self.present).logits

    def seconds(self, way: Callable[[], Tensor]) -> float:
        """Forward and backward."""
        self.network.zero_grad()
        start = perf_counter()
        logits = self.network.training_logits(way(), self.label, *self.present)
        loss = functional.cross_entropy(logits, self.label)
        sum(self.network.extra_losses().values(), loss).backward()
        return perf_counter() - start

    def difference(self) -> float:
        """Return the greatest difference of a gradient between both ways, relative to the norm of all of them."""
        found = []
        for way in (self.plain, self.cached):
            self.seconds(way)
            found.append([parameter.grad for parameter in self.network.parameters() if parameter.grad is not None])
        size = sum(float(grad.norm()) for grad in found[0])
        return max(float((a - b).norm()) for a, b in zip(*found, strict=True)) / size


class LowRankStep(Step):
    """A step of MoRA or LoRA, whose absent images are white."""

    def __init__(self, folder: Path, settings: LowRankModel, *rest: Any) -> None:
        super().__init__(folder, settings, *rest)
        parameters = dict(self.network.named_parameters())
        places = mora_names(self.network.state_dict(), rest[0]).places
        tensors: dict[str, Tensor] = {name: parameters[place.name] for name, place in places.items()}
        alpha: float = settings.alpha  # type: ignore[attr-defined]
        scale = alpha / settings.rank if isinstance(settings, LoRA) else alpha
        self.reference = PlainAdapted(self.clip, tensors, scale)
        for projection in self.reference.projections.values():
            projection.dropout = nn.Dropout(settings.dropout)
        ids, self.mask = self.full_texts(END)
        self.ids = rewritten(ids, END, END)

    def plain(self) -> Tensor:
        pixels = torch.where(self.present[0].view(-1, 1, 1, 1), self.pixels, 255)
        logits: Tensor = self.reference(self.image.normalise(pixels), self.ids, self.mask)
        return logits


class PromptStep(Step):
    """A step of DCP or DPL."""

    def __init__(self, folder: Path, settings: DCP | DPL, *rest: Any) -> None:
        super().__init__(folder, settings, *rest)
        self.names = dcp_names(self.network.state_dict(), "food101")
        self.sizes = (settings.prompts, settings.depth) if isinstance(settings, DCP) else (0, 0)
        self.ids, _ = self.full_texts(0)
        self.missing = torch.where(self.present[0], torch.where(self.present[1], 0, 1), 2)

    def plain(self) -> Tensor:
        state = dict(self.network.named_parameters()) | dict(self.network.named_buffers())
        weights = {name: place.theirs(state) for name, place in self.names.places.items()}
        pixels = self.image.normalise(self.pixels)
        return plain_forward(self.clip, weights, pixels, self.ids, self.missing, *self.sizes).logits


def steps(folder: Path, settings: Settings, first_layer: int, batch: int) -> list[Step]:
    """Return the steps of all samples, in batches in which the patterns are mixed."""
    kind = torch.arange(SAMPLES) * 7 % SAMPLES  # mixed; six are complete
    present = (kind < 13, (kind < 6) | (kind >= 13))
    step: Any = LowRankStep if isinstance(settings, LowRankModel) else PromptStep
    batches = zip(*(each.split(batch) for each in present), strict=True)
    return [step(folder, settings, first_layer, each) for each in batches]


def total(all_steps: list[Step], way: str) -> float:
    """Return the seconds of all steps."""
    return sum(step.seconds(getattr(step, way)) for step in all_steps)


@quiet()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=[*METHODS])
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        write_clip(Path(folder))
        for name in given.methods:
            settings, first_layer = METHODS[name]
            exact = replace(settings, dropout=0.0) if isinstance(settings, LowRankModel) else settings
            differences = [step.difference() for step in steps(Path(folder), exact, first_layer, given.batch)[:2]]
            ours = steps(Path(folder), settings, first_layer, given.batch)
            trained = sum(parameter.numel() for parameter in ours[0].network.parameters())
            print(f"{name}: {trained:,} parameters; gradients differ by {max(differences):.1e}")
            for way in ("fast", "cached"):
                ways: dict[str, Callable[[], float]] = {each: partial(total, ours, each) for each in ("plain", way)}
                title = f"{name}, {SAMPLES} samples in batches of {given.batch}, 70 % incomplete, {way}"
                print(f"{compare(title, 's', ways, given.rounds)[f'plain / {way}']:.2f} times as fast\n", flush=True)


if __name__ == "__main__":
    main()
