"""MoLT, modality latent translation (Robust Latent Representation Tuning, arXiv 2406.06048)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from robusttune.errors import RobustTuneError
from robusttune.models.attention import attend, masked_mean, split
from robusttune.models.base import Fused, FusionModel, FusionNetwork, keep, layer_norm, log_prior
from robusttune.types import Encoded, Facts, Widths

Pooling = Literal["bilinear", "concatenation"]


@dataclass(frozen=True)
class MoLT(FusionModel):
    """Settings of `MoLTNetwork`.

    Args:
        common_width: ``d_c``, width of the shared latent space.
        translation_heads: attention heads of the translation.
        null_tokens: learned tokens a side and layer that stand in for an absent side; 0 for none, an ablation, in
            which the robust representation is zero where a side is absent.
        cca_dim: ``c``, width to which latents are projected before they are correlated. By chance alone a batch of
            4c independent pairs correlates by 0.44, one of 2c by 0.64: keep it well below the batch size.
        pooling: how the latents of both sides become a robust representation; ``concatenation``, a layer on both side
            by side, is an ablation.
        bilinear_width: ``d_r``, width of the robust representation.
        bilinear_factors: ``k``, factors that the bilinear pooling sums over.
        fusion_width: width of the fusion stage.
        fusion_layers: self-attention layers of the fusion stage; with 0, an ablation, the head looks at the mean of
            what there is.
        fusion_heads: attention heads of the fusion stage.
        dropout: in the pooling and the fusion stage, in [0, 1).
    """

    common_width: int = 128
    translation_heads: int = 1
    null_tokens: int = 4
    cca_dim: int = 16
    pooling: Pooling = "bilinear"
    bilinear_width: int = 128
    bilinear_factors: int = 4
    fusion_width: int = 256
    fusion_layers: int = 1
    fusion_heads: int = 4
    dropout: float = 0.1

    def __post_init__(self) -> None:
        if self.pooling not in get_args(Pooling):
            raise RobustTuneError(f"there is no pooling {self.pooling!r}: give {' or '.join(get_args(Pooling))}")
        least = dict.fromkeys(vars(self).keys() - {"pooling", "dropout"}, 1) | {"null_tokens": 0, "fusion_layers": 0}
        small = [name for name in sorted(least) if getattr(self, name) < least[name]]
        if small or not 0 <= self.dropout < 1:
            raise RobustTuneError(f"{', '.join(small) or 'dropout'} is out of range: see the setting's help")
        for width, heads in (("common_width", "translation_heads"), ("fusion_width", "fusion_heads")):
            if getattr(self, width) % getattr(self, heads):
                raise RobustTuneError(
                    f"{width} {getattr(self, width)} cannot be split into {getattr(self, heads)} heads: "
                    f"give a multiple of {heads}"
                )

    def build(self, image: Widths, text: Widths, facts: Facts) -> MoLTNetwork:
        return MoLTNetwork(self, image, text, facts)


class MoLTNetwork(FusionNetwork):
    """Per layer: translation of each side into the other's terms, then pooling of both; at the end fusion.

    The number of trained parameters, with ``f`` the fusion width, ``C`` classes and the rest as in `MoLT`, is

        sum over layers [(d_i + d_t + 2) d_c + 3 d_c (d_c + 1) + 2 nulls d_c + 2 d_c c + p + (d_r + 1) f]
        + (d_pi + d_pt + 2) f + (M + 3) f + fusion_layers (12 f^2 + 13 f) + 2 f + (f + 1) C

    where the pooling has ``p = 2 d_c k d_r``, or, if it is by concatenation, ``p = (2 d_c + 1) d_r``.
    """

    log_prior: Tensor

    def __init__(self, settings: MoLT, image: Widths, text: Widths, facts: Facts) -> None:
        super().__init__()
        if len(image.layers) != len(text.layers):
            raise RobustTuneError(
                f"{len(image.layers)} image layers cannot be paired with {len(text.layers)} text layers: "
                "set image_encoder.layers and text_encoder.layers to as many"
            )
        self.view_shape = (len(image.layers), settings.cca_dim)
        self.layers = nn.ModuleList(
            LatentLayer(settings, image_width, text_width)
            for image_width, text_width in zip(image.layers, text.layers, strict=True)
        )
        self.fusion = FusionStage(settings, image.pooled, text.pooled, len(image.layers), len(facts.class_names))
        self.register_buffer("log_prior", log_prior(facts))

    def forward(self, image: Encoded, text: Encoded, image_present: Tensor, text_present: Tensor) -> Fused:
        image, text = keep(image, image_present), keep(text, text_present)
        return self._fuse(image, text, image_present, text_present, None)

    def seen(
        self,
        image: Encoded,
        text: Encoded,
        image_rows: Tensor,
        text_rows: Tensor,
        image_present: Tensor,
        text_present: Tensor,
    ) -> Fused:
        """What does not depend on the pair is computed once for all pairs."""
        return self._fuse(image, text, image_present, text_present, (image_rows, text_rows))

    def _fuse(
        self,
        image: Encoded,
        text: Encoded,
        image_present: Tensor,
        text_present: Tensor,
        rows: tuple[Tensor, Tensor] | None,
    ) -> Fused:
        of_image, of_text = (None, None) if rows is None else rows
        latents = [
            self.run(
                layer,
                Seen(image.tokens[i], image.mask[i], of_image, image_present),
                Seen(text.tokens[i], text.mask[i], of_text, text_present),
            )
            for i, layer in enumerate(self.layers)
        ]
        robust, image_views, text_views = (torch.stack(parts) for parts in zip(*latents, strict=True))
        pooled = [
            part if rows is None else torch.where(present.unsqueeze(1), part[of], 0.0)
            for part, of, present in ((image.pooled, of_image, image_present), (text.pooled, of_text, text_present))
        ]
        logits = self.run(self.fusion, pooled[0], image_present, pooled[1], text_present, robust)
        something = (image_present | text_present).unsqueeze(1)
        return Fused(torch.where(something, logits, self.log_prior.to(logits.dtype)), image_views, text_views)


class Seen(NamedTuple):
    """One side of ``R`` rows, in one layer.

    Attributes:
        tokens: (P, n, d).
        mask: (P, n) bool.
        rows: (R,) which of the ``P`` each sees; None where each sees its own, zeros where it is absent.
        present: (R,) bool; where not, what it sees is not looked at.
    """

    tokens: Tensor
    mask: Tensor
    rows: Tensor | None
    present: Tensor


class LatentLayer(nn.Module):
    """One layer's translation and pooling."""

    def __init__(self, settings: MoLT, image_width: int, text_width: int) -> None:
        super().__init__()
        common = settings.common_width
        self.heads = settings.translation_heads
        self.image_in = nn.Linear(image_width, common)
        self.text_in = nn.Linear(text_width, common)
        self.image_null = null_tokens(settings)
        self.text_null = null_tokens(settings)
        self.query_key_value = nn.Linear(common, 3 * common)
        self.image_view = nn.Linear(common, settings.cca_dim, bias=False)
        self.text_view = nn.Linear(common, settings.cca_dim, bias=False)
        self.pool = pooling(settings)

    def forward(self, image: Seen, text: Seen) -> tuple[Tensor, Tensor, Tensor]:
        """Robust representation (R, d_r), and the views of image and text latents to be correlated, (R, c) each."""
        images, image_mask = self._project(image, self.image_in, self.image_null)
        texts, text_mask = self._project(text, self.text_in, self.text_null)
        image_latent, text_latent = self.translate(images, image_mask, texts, text_mask)
        # Correlations are taken in float32 at least, whatever the precision of the rest.
        with torch.autocast(images.device.type, enabled=False):
            views = [
                functional.linear(full(latent), full(view.weight))
                for latent, view in ((image_latent, self.image_view), (text_latent, self.text_view))
            ]
        # Without null tokens both latents may be zero, where bilinear pooling has a slope that float16 cannot hold.
        paired = (image_mask.any(1) & text_mask.any(1)).unsqueeze(1)
        return torch.where(paired, self.pool(image_latent, text_latent), 0.0), views[0], views[1]

    def _project(self, side: Seen, into: nn.Linear, nulls: Tensor | None) -> tuple[Tensor, Tensor]:
        """Queries, keys and values of what is seen, null tokens included: (R, n + k, 3 d_c), and their mask."""
        own = into(layer_norm(side.tokens))
        if side.rows is None:
            tokens, mask = with_nulls(own, side.mask, nulls, side.present)
            return self.query_key_value(tokens), mask
        present = side.present.view(-1, 1)
        projected = torch.where(present.unsqueeze(2), self.query_key_value(own)[side.rows], 0.0)  # no mask stops NaN
        of_nulls = None if nulls is None else self.query_key_value(nulls)
        return with_nulls(projected, side.mask[side.rows] & present, of_nulls, side.present)

    def translate(self, image: Tensor, image_mask: Tensor, text: Tensor, text_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Each side told in the other's values, averaged over its tokens: (R, d_c) each.

        Args:
            image: (R, n, 3 d_c) queries, keys and values.
            image_mask: (R, n) bool.
            text: (R, m, 3 d_c), likewise.
            text_mask: (R, m) bool.
        """
        image_q, image_k, image_v = split(image, 3, self.heads)
        text_q, text_k, text_v = split(text, 3, self.heads)
        image_told = attend(image_q, text_k, text_v, text_mask)
        text_told = attend(text_q, image_k, image_v, image_mask)
        return masked_mean(image_told, image_mask), masked_mean(text_told, text_mask)


class BilinearPooling(nn.Module):
    """Multi-modal factorised bilinear pooling (Yu et al. 2017), (B, d) and (B, d) -> (B, width)."""

    def __init__(self, width_in: int, width: int, factors: int, dropout: float) -> None:
        super().__init__()
        self.factors = factors
        self.image = nn.Linear(width_in, width * factors, bias=False)
        self.text = nn.Linear(width_in, width * factors, bias=False)
        self.dropout = nn.Dropout(dropout)

    def forward(self, image: Tensor, text: Tensor) -> Tensor:
        product = full(self.dropout(self.image(image) * self.text(text)))
        pooled = product.reshape(len(product), -1, self.factors).sum(2)
        # sign(x) sqrt(|x|), with the infinite slope at 0 cut off.
        powered = pooled * torch.rsqrt(pooled.abs() + 1e-6)
        return functional.normalize(powered, dim=1, eps=1e-6).to(image.dtype)


class ConcatenationPooling(nn.Module):
    """What is left without bilinear pooling: a layer on both side by side, (B, d) and (B, d) -> (B, width)."""

    def __init__(self, width_in: int, width: int, dropout: float) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(2 * width_in, width), nn.GELU(), nn.Dropout(dropout))

    def forward(self, image: Tensor, text: Tensor) -> Tensor:
        pooled: Tensor = self.layers(torch.cat([image, text], dim=1))
        return pooled


class FusionStage(nn.Module):
    """Self-attention over a query, the pooled embeddings and the robust representations; a head on the query."""

    def __init__(self, settings: MoLT, image_width: int, text_width: int, layers: int, classes: int) -> None:
        super().__init__()
        width = settings.fusion_width
        self.image_in = nn.Linear(image_width, width)
        self.text_in = nn.Linear(text_width, width)
        self.robust_in = nn.ModuleList(nn.Linear(settings.bilinear_width, width) for _ in range(layers))
        self.query = nn.Parameter(0.02 * torch.randn(width))
        self.types = nn.Parameter(0.02 * torch.randn(2 + layers, width))
        self.blocks = nn.TransformerEncoder(
            nn.TransformerEncoderLayer(
                width,
                settings.fusion_heads,
                dim_feedforward=4 * width,
                dropout=settings.dropout,
                activation="gelu",
                batch_first=True,
                norm_first=True,
            ),
            settings.fusion_layers,
            norm=nn.LayerNorm(width),
            enable_nested_tensor=False,
        )
        self.head = nn.Linear(width, classes)

    def forward(
        self, image: Tensor, image_present: Tensor, text: Tensor, text_present: Tensor, robust: Tensor
    ) -> Tensor:
        """Args:
            image: (B, d_pi) pooled image embedding.
            image_present: (B,) bool.
            text: (B, d_pt) pooled text embedding.
            text_present: (B,) bool.
            robust: (M, B, d_r); these carry the prediction when a side is absent, and are never masked.

        Returns:
            (B, C) logits.
        """
        parts = [self.image_in(layer_norm(image)), self.text_in(layer_norm(text))]
        parts += [project(part) for project, part in zip(self.robust_in, robust, strict=True)]
        tokens = torch.stack(parts, dim=1) + self.types
        query = self.query.to(tokens.dtype).expand(len(tokens), 1, -1)
        absent = torch.zeros(len(tokens), tokens.shape[1] + 1, dtype=torch.bool, device=tokens.device)
        absent[:, 1], absent[:, 2] = ~image_present, ~text_present
        states = torch.cat([query, tokens], dim=1)
        if self.blocks.layers:
            fused = self.blocks(states, src_key_padding_mask=absent)[:, 0]
        else:
            assert self.blocks.norm is not None
            fused = self.blocks.norm(masked_mean(states, ~absent))
        logits: Tensor = self.head(fused)
        return logits


def pooling(settings: MoLT) -> BilinearPooling | ConcatenationPooling:
    """The module of ``settings.pooling``."""
    width_in, width = settings.common_width, settings.bilinear_width
    if settings.pooling == "concatenation":
        return ConcatenationPooling(width_in, width, settings.dropout)
    return BilinearPooling(width_in, width, settings.bilinear_factors, settings.dropout)


def null_tokens(settings: MoLT) -> nn.Parameter | None:
    """(k, d_c), or None where there are none."""
    shape = settings.null_tokens, settings.common_width
    return nn.Parameter(0.02 * torch.randn(shape)) if settings.null_tokens else None


def with_nulls(tokens: Tensor, mask: Tensor, nulls: Tensor | None, present: Tensor) -> tuple[Tensor, Tensor]:
    """Tokens (B, n, d) and mask (B, n) with null tokens (k, d) added, unmasked exactly where the side is absent."""
    if nulls is None:
        return tokens, mask
    nulls = nulls.to(tokens.dtype).expand(len(tokens), -1, -1)
    null_mask = (~present).unsqueeze(1).expand(-1, nulls.shape[1])
    return torch.cat([tokens, nulls], dim=1), torch.cat([mask, null_mask], dim=1)


def full(tensor: Tensor) -> Tensor:
    """In float32 at least."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
