"""A plain PyTorch loop that trains Experts on features in memory: the reference of `bench_smmodalityfit.py`.

`python tests/benchmarks/plain_experts.py seconds.json`
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from time import perf_counter

import torch
from torch.nn.functional import cross_entropy

from robusttune.models.experts import Experts
from robusttune.types import Encoded, Facts, Widths

ROWS, CLASSES, BATCH, EPOCHS = 512, 15, 128, 200
IMAGE, TEXT = Widths((24, 32, 96, 320), 1280), Widths((384,) * 4, 384)  # MobileNetV2 and MiniLM


def features(widths: Widths, tokens: int) -> Encoded:
    """Return random features of all rows, without padding."""
    layers = [torch.randn(ROWS, tokens, width) for width in widths.layers]
    return Encoded(torch.randn(ROWS, widths.pooled), layers, [torch.ones(ROWS, tokens, dtype=torch.bool)] * len(layers))


def at(encoded: Encoded, rows: torch.Tensor) -> Encoded:
    """Return the features of some rows."""
    return Encoded(encoded.pooled[rows], [part[rows] for part in encoded.tokens], [part[rows] for part in encoded.mask])


def plain_loop() -> float:
    """Train as one would without a framework, on features in memory, and return the seconds of the loop."""
    torch.manual_seed(0)
    images, texts = features(IMAGE, 16), features(TEXT, 9)
    labels, absent = torch.arange(ROWS) % CLASSES, torch.zeros(BATCH, dtype=torch.bool)
    facts = Facts([str(label) for label in range(CLASSES)], [1 / CLASSES] * CLASSES, multilabel=False)
    network = Experts().build(IMAGE, TEXT, facts)
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3, weight_decay=0.5)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS * (ROWS // BATCH))
    start = perf_counter()
    for _ in range(EPOCHS):
        for chunk in torch.randperm(ROWS).split(BATCH):
            image, text = at(images, chunk), at(texts, chunk)
            rows = torch.arange(BATCH).repeat(3)
            shown = torch.cat([~absent, ~absent, absent]), torch.cat([~absent, absent, ~absent])
            logits = network.forward_pairs(image, text, rows, rows, *shown).logits
            losses = cross_entropy(logits, labels[chunk].repeat(3), reduction="none", label_smoothing=0.2).view(3, -1)
            optimizer.zero_grad()
            (losses[0] / 2 + losses[1] / 4 + losses[2] / 4).mean().backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            scheduler.step()
    return perf_counter() - start


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(json.dumps({"seconds": plain_loop()}))
