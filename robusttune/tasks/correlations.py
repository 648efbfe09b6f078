"""How well image and text latents of test samples agree, layer by layer."""

from __future__ import annotations

import torch
from torch import Tensor

from robusttune.models import Fused
from robusttune.models.losses import layer_correlations
from robusttune.ranks import on_rank_zero
from robusttune.types import Batch

Pairs = tuple[list[str], Tensor]


class LayerCorrelations:
    """Mean canonical correlation of each layer's latents, over the complete samples of all ranks, each counted once."""

    def __init__(self) -> None:
        self.pairs: list[Pairs] = []

    def update(self, batch: Batch, fused: Fused, start: int) -> None:
        """Add the complete samples of a batch, of which the rows begin at ``start``."""
        kept = (batch.image_present & batch.text_present).nonzero().squeeze(1)
        ids = [batch.sample_id[row] for row in kept.tolist()]
        views = torch.stack([fused.image_views, fused.text_views])  # (2, M, rows, c)
        self.pairs.append((ids, views[:, :, start + kept].cpu()))

    def compute(self) -> dict[str, list[float]] | None:
        """By layer, in [0, 1]: of ``layers``, and of pairs that do not belong together, ``shuffled``; None of no pair.

        Each image of the shuffled ones meets the text of the next sample, in the order of ids.
        """

        def measured(parts: list[list[Pairs]]) -> dict[str, list[float]] | None:
            pairs = [pair for part in parts for pair in part]
            row = {sample_id: n for n, sample_id in enumerate(i for ids, _ in pairs for i in ids)}
            if len(row) < 2:
                return None
            order = torch.tensor([row[sample_id] for sample_id in sorted(row)])
            image, text = torch.cat([views for _, views in pairs], 2)[:, :, order]
            return {
                "layers": layer_correlations(image, text).tolist(),
                "shuffled": layer_correlations(image, text.roll(1, 1)).tolist(),
            }

        return on_rank_zero(self.pairs, measured)
