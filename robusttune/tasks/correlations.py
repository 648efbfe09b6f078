"""Canonical correlation of image and text latents of test samples, layer by layer."""

from __future__ import annotations

import torch
from torch import Tensor

from robusttune.models import Fused
from robusttune.models.losses import layer_correlations
from robusttune.ranks import on_rank_zero
from robusttune.types import Batch

Pairs = tuple[list[str], Tensor]


class LayerCorrelations:
    """A metric: the mean canonical correlation between image and text latents, for each layer.

    It is computed over the complete samples (with image and text) of all ranks. Each sample counts once.
    """

    def __init__(self) -> None:
        self.pairs: list[Pairs] = []

    def update(self, batch: Batch, fused: Fused, start: int) -> None:
        """Add the complete samples of a batch.

        Args:
            batch: Batch of ``B`` samples.
            fused: Output of the fusion network, of one or more views of the batch.
            start: First of the ``B`` rows of ``fused`` that show the batch with both modalities.
        """
        kept = (batch.image_present & batch.text_present).nonzero().squeeze(1)
        ids = [batch.sample_id[row] for row in kept.tolist()]
        views = torch.stack([fused.image_views, fused.text_views])  # (2, M, rows, c)
        self.pairs.append((ids, views[:, :, start + kept].cpu()))

    def compute(self) -> dict[str, list[float]] | None:
        """Compute the mean canonical correlation of each layer. Every rank must call this.

        Returns:
            Correlations in [0, 1], one a layer, under two keys: ``layers`` for the samples' own pairs, and ``shuffled``
            for mismatched pairs, each image with the text of the next sample in the order of ids (the chance level).
            None if there are fewer than two complete samples.
        """

        def correlate(parts: list[list[Pairs]]) -> dict[str, list[float]] | None:
            """Compute the correlations from the pairs of all ranks."""
            pairs = [pair for part in parts for pair in part]
            row_of = {sample_id: n for n, sample_id in enumerate(i for ids, _ in pairs for i in ids)}
            if len(row_of) < 2:
                return None
            order = torch.tensor([row_of[sample_id] for sample_id in sorted(row_of)])
            image, text = torch.cat([views for _, views in pairs], 2)[:, :, order]
            return {
                "layers": layer_correlations(image, text).tolist(),
                "shuffled": layer_correlations(image, text.roll(1, 1)).tolist(),
            }

        return on_rank_zero(self.pairs, correlate)
