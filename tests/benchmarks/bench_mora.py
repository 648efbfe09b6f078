"""Training MoRA or LoRA on a ViT-B/16 CLIP with random weights, against computing everything without shortcuts.

`python tests/benchmarks/bench_mora.py [--method MoRA] [--batch 4] [--rounds 5]`

Of every ten samples, seven lack a modality, half of them the image. Without dropout both ways are checked to be equal;
then they are timed by turns, with dropout, from the inputs and from features that are computed once.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from benchmarks.bench_mmrl import CONTEXT, END, write_clip
from benchmarks.paired import compare
from plain_mora import PlainAdapted, rewritten
from torch import Tensor, nn
from torch.nn import functional
from transformers import CLIPModel

from robusttune.commands.quiet import quiet
from robusttune.encoders import CLIPImageEncoder, CLIPTextEncoder
from robusttune.models import LoRA, MoRA
from robusttune.models.low_rank import LowRankModel
from robusttune.models.published import mora_names
from robusttune.types import Encoded, Facts

FIRST, CLASSES = 11, 101
METHODS: dict[str, LowRankModel] = {
    "MoRA": MoRA(("q_proj", "v_proj"), 0.1, shared_rank=4, image_rank=4, text_rank=4, alpha=0.01),
    "LoRA": LoRA(("q_proj", "v_proj"), 0.1, rank=6, alpha=6.0),
}


class Step:
    """A step of training in three ways: plain, from inputs, and from features of the layers below."""

    def __init__(self, folder: Path, settings: LowRankModel, batch: int) -> None:
        self.clip = CLIPModel.from_pretrained(folder).eval().requires_grad_(False)
        encoders: dict[str, Any] = {"name": str(folder), "first_layer": FIRST}
        self.image = CLIPImageEncoder(**encoders).load()
        text = CLIPTextEncoder(**encoders, max_length=CONTEXT - 1)
        self.text = text.load()
        facts = Facts([str(n) for n in range(CLASSES)], [1 / CLASSES] * CLASSES, multilabel=False)
        torch.manual_seed(0)
        self.network = settings.build_on(self.image, self.text, facts).train()
        kinds = torch.arange(batch) * 10 // batch  # three complete, four without the image, three without the text
        self.present = (kinds < 3) | (kinds > 6), kinds < 7
        self.pixels = torch.randint(256, (batch, 3, 224, 224), dtype=torch.uint8)
        words = [f"w{n}" for n in range(300)]
        texts = [" ".join(words[: int(n)]) for n in torch.randint(4, 24, (batch,))]
        self.tokens = text.tokenizer()([t for t, there in zip(texts, self.present[1].tolist(), strict=True) if there])
        padded = [t if there else "" for t, there in zip(texts, self.present[1].tolist(), strict=True)]
        tokens = self.text.prompt_tokenizer(padded).tokens
        more = CONTEXT - tokens.input_ids.shape[1]
        ids = functional.pad(tokens.input_ids.masked_fill(~tokens.attention_mask, END), (0, more), value=END)
        self.ids, self.mask = rewritten(ids, END, END), functional.pad(tokens.attention_mask, (0, more))
        self.label = torch.randint(CLASSES, (batch,))
        self.kept = self.encode()
        places = mora_names(self.network.state_dict(), FIRST).places
        parameters = dict(self.network.named_parameters())
        tensors = {name: parameters[place.name] for name, place in places.items()}
        scale = settings.alpha / settings.rank if isinstance(settings, LoRA) else settings.alpha  # type: ignore[attr-defined]
        self.reference = PlainAdapted(self.clip, tensors, scale)
        for projection in self.reference.projections.values():
            projection.dropout = nn.Dropout(settings.dropout)

    def encode(self) -> tuple[Encoded, Encoded]:
        """Run the layers below the first adapted one."""
        image, text = self.present
        return (
            self.image.encode(self.pixels[image], image, False),
            self.text.encode(self.tokens.tokens, text, False),
        )

    def plain(self) -> Tensor:
        pixels = torch.where(self.present[0].view(-1, 1, 1, 1), self.pixels, 255)
        return self.reference(self.image.normalise(pixels), self.ids, self.mask)

    def fast(self) -> Tensor:
        return self.network(*self.encode(), *self.present).logits

    def cached(self) -> Tensor:
        return self.network(*self.kept, *self.present).logits

    def seconds(self, way: Any) -> float:
        """Forward and backward."""
        self.network.zero_grad()
        start = perf_counter()
        functional.cross_entropy(way(), self.label).backward()
        return perf_counter() - start

    def difference(self) -> float:
        """Return the greatest difference of a gradient between both ways, relative to its norm."""
        found = []
        for way in (self.plain, self.cached):
            self.network.zero_grad()
            functional.cross_entropy(way(), self.label).backward()
            found.append([p.grad for p in self.network.parameters() if p.grad is not None])
        return max(float((a - b).norm() / (a.norm() + 1e-12)) for a, b in zip(*found, strict=True))


@quiet()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--method", choices=METHODS, default="MoRA")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    settings = METHODS[given.method]
    with tempfile.TemporaryDirectory() as folder:
        write_clip(Path(folder))
        print(f"gradients differ by {Step(Path(folder), replace(settings, dropout=0.0), given.batch).difference():.1e}")
        step = Step(Path(folder), settings, given.batch)
        for way in ("fast", "cached"):
            ways: dict[str, Callable[[], float]]
            ways = {"published": partial(step.seconds, step.plain), way: partial(step.seconds, getattr(step, way))}
            name = f"{given.method} step, batch {given.batch}, 70 % incomplete, {way}"
            print(f"{compare(name, 's', ways, given.rounds)[f'published / {way}']:.2f} times as fast\n")


if __name__ == "__main__":
    main()
