"""A training step of MMRL on a ViT-B/16 CLIP with random weights, against computing everything as published.

`python tests/benchmarks/bench_mmrl.py [--device cuda] [--batch 4] [--classes 19 51 199] [--rounds 5]`

Both ways are checked to be equal, then timed by turns in one process; memory is the most that a step takes beyond what is
resident before it. The floor is the number of multiply-adds that exact gradients cannot do without, at the
rate of the machine's own matrix product.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from time import perf_counter
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from plain_mmrl import plain_features, plain_loss
from torch import Tensor
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel

from robusttune.encoders import CLIPImageEncoder, CLIPTextEncoder
from robusttune.models import MMRL, MMRLNetwork
from robusttune.models.prompts import Packed, shared_tokens
from robusttune.types import Tokens

CONTEXT, START, END = 77, 49406, 49407
FIRST, LAYERS = 6, 12


def make_clip() -> Any:
    """ViT-B/16 as OpenAI's, at random."""
    text = {"hidden_size": 512, "intermediate_size": 2048, "num_attention_heads": 8, "num_hidden_layers": LAYERS}
    vision = {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12, "num_hidden_layers": LAYERS}
    special = {"bos_token_id": START, "eos_token_id": END, "pad_token_id": 0, "vocab_size": 49408}
    torch.manual_seed(0)
    return CLIPModel(
        CLIPConfig(text_config={**text, **special}, vision_config={**vision, "patch_size": 16}, projection_dim=512)
    ).eval()


def make_prompts(classes: int) -> tuple[Tensor, Tensor]:
    """Ids (C, 77) as of Food-101's prompts: a start, three words, a name of 1 to 4 tokens, six more, an end."""
    rng = torch.Generator().manual_seed(classes)
    ids, end = torch.zeros(classes, CONTEXT, dtype=torch.int64), torch.zeros(classes, dtype=torch.int64)
    opening, closing = torch.arange(1000, 1003), torch.arange(2000, 2006)
    for row in range(classes):
        length = int(torch.multinomial(torch.tensor([0.2, 0.5, 0.2, 0.1]), 1, generator=rng)) + 1
        name = torch.randint(3000, 49000, (length,), generator=rng)
        prompt = torch.cat([torch.tensor([START]), opening, name, closing, torch.tensor([END])])
        ids[row, : len(prompt)], end[row] = prompt, len(prompt) - 1
    return ids, end


class Bench:
    """The two ways to take a step."""

    def __init__(self, classes: int, batch: int, device: str, folder: Path) -> None:
        self.clip = make_clip()
        self.clip.save_pretrained(folder)
        CLIPImageProcessor().save_pretrained(folder)
        self.image = CLIPImageEncoder(name=str(folder), first_layer=FIRST).load().to(device)
        self.text = CLIPTextEncoder(name=str(folder), first_layer=FIRST).load().to(device)
        self.network = MMRLNetwork(MMRL(), self.image.upper, self.text.upper).to(device)
        assert sum(p.numel() for p in self.network.parameters()) == 4_992_256
        self.clip.to(device).requires_grad_(False)
        self.device = device
        self.ids, self.end = (tensor.to(device) for tensor in make_prompts(classes))
        self.images = torch.randint(0, 256, (batch, 3, 224, 224), dtype=torch.uint8, device=device)
        self.label = torch.randint(classes, (batch,), device=device)
        longest = int(self.end.max()) + 1
        mask = torch.arange(longest, device=device) <= self.end.unsqueeze(1)
        tokens = Tokens(self.ids[:, :longest], mask)
        with torch.no_grad():
            prompts = self.text(tokens)
        self.untouched_text = prompts.pooled
        self.packed = Packed.of(prompts.tokens[0], mask, prompts.tokens[0][0, : shared_tokens(tokens)])

    def autocast(self) -> AbstractContextManager[Any]:
        return torch.autocast("cuda", torch.float16) if self.device == "cuda" else nullcontext()

    def plain(self) -> Tensor:
        with self.autocast():
            features = plain_features(self.clip, self.network, self.image.normalise(self.images), self.ids, self.end)
        return plain_loss(features, self.label, 100.0, 0.7, 5.0)

    def fast(self) -> Tensor:
        with self.autocast():
            images = self.image.enter(self.images, untouched=True)
            put_in = self.network.tokens()
            image, representation = self.network.image_features(self.image.upper, images.tokens[0], put_in.image)
            text = self.network.text_features(self.text.upper, self.packed, put_in.text)
        from plain_mmrl import Plain

        features = Plain(image, representation, text, images.pooled, self.untouched_text)
        return plain_loss(features, self.label, 100.0, 0.7, 5.0)

    def step(self, way: Callable[[], Tensor]) -> float:
        """Forward and backward, seconds."""
        self.network.zero_grad()
        self.wait()
        start = perf_counter()
        way().backward()
        self.wait()
        return perf_counter() - start

    def wait(self) -> None:
        if self.device == "cuda":
            torch.cuda.synchronize()

    def memory(self, way: Callable[[], Tensor]) -> float:
        """The most that a step takes, MB."""
        self.network.zero_grad()
        if self.device == "cuda":
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            way().backward()
            return (torch.cuda.max_memory_allocated() - before) / 1e6
        ctypes.CDLL("libc.so.6").malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")
        before = resident("VmRSS")
        way().backward()
        return resident("VmHWM") - before


def resident(what: str) -> float:
    """MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1e3 for line in lines if line.startswith(what))
