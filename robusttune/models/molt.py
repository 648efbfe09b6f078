"""MoLT, modality latent translation ("Robust Latent Representation Tuning", arXiv 2406.06048)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from robusttune.errors import RobustTuneError
from robusttune.models.attention import attend, masked_mean, split
from robusttune.models.base import Fused, FusionModel, FusionNetwork, layer_norm, log_prior, zero_absent
from robusttune.types import Encoded, Facts, Widths

Pooling = Literal["bilinear", "concatenation"]


@dataclass(frozen=True)
class MoLT(FusionModel):
    """Settings of a `MoLTNetwork`.

    Args:
        common_width: Width ``d_c`` of the shared latent space.
        null_tokens: Number of learned tokens per modality and layer that replace an absent modality. With 0, an
            ablation, the robust representation is zero if a modality is absent.
        cca_dim: Width ``c`` of the projected latents that are correlated. By chance alone a batch of 4c independent
            pairs reaches a mean correlation of 0.44, one of 2c reaches 0.64. Keep it well below the batch size.
        pooling: Method that combines the latents of both modalities into a robust representation: ``bilinear``, or
            ``concatenation`` followed by a linear layer, which is an ablation.
        bilinear_width: Width ``d_r`` of the robust representation.
        bilinear_factors: Number ``k`` of factors that bilinear pooling sums over.
        fusion_width: Width of the fusion stage.
        fusion_layers: Number of self-attention layers of the fusion stage. With 0, an ablation, the head reads the mean
            of the present tokens.
        fusion_heads: Number of attention heads of the fusion stage; must divide ``fusion_width``.
        dropout: Dropout probability in the pooling and the fusion stage, in [0, 1).

    Raises:
        RobustTuneError: A value is out of its range.

    Example:
        >>> from robusttune.types import Facts, Widths
        >>> facts = Facts(["cat", "dog"], [0.5, 0.5], multilabel=False)
        >>> network = MoLT(null_tokens=2).build(Widths((8, 8), 16), Widths((4, 4), 4), facts)
        >>> network.view_shape
        (2, 16)
    """

    common_width: int = 128
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
        if small:
            raise RobustTuneError(f"{small[0]} is {getattr(self, small[0])}: give at least {least[small[0]]}")
        if not 0 <= self.dropout < 1:
            raise RobustTuneError(f"dropout is {self.dropout}: give a number in [0, 1)")
        if self.fusion_width % self.fusion_heads:
            raise RobustTuneError(
                f"fusion_width {self.fusion_width} cannot be split into {self.fusion_heads} heads: "
                "give a multiple of fusion_heads"
            )

    def build(self, image: Widths, text: Widths, facts: Facts) -> MoLTNetwork:
        """Build the network.

        Raises:
            RobustTuneError: The encoders have different numbers of chosen layers.
        """
        return MoLTNetwork(self, image, text, facts)


class MoLTNetwork(FusionNetwork):
    """The fusion network of MoLT (arXiv 2406.06048).

    Each of the ``M`` layers translates both modalities into each other and pools the results to a robust
    representation. The fusion stage combines the robust representations and the pooled embeddings.

    The number of trained parameters, with ``f`` the fusion width, ``C`` classes and the rest as in `MoLT`, is

        sum over layers [(d_i + d_t + 2) d_c + 3 d_c (d_c + 1) + 2 nulls d_c + 2 d_c c + p + (d_r + 1) f]
        + (d_pi + d_pt + 2) f + (M + 3) f + fusion_layers (12 f^2 + 13 f) + 2 f + (f + 1) C

    where ``p = 2 d_c k d_r`` for bilinear pooling and ``p = (2 d_c + 1) d_r`` for concatenation.

    Attributes:
        log_prior: Logits of the training class frequencies, shape (C,), the prediction if both modalities are absent.
    """

    log_prior: Tensor

    def __init__(self, settings: MoLT, image: Widths, text: Widths, facts: Facts) -> None:
        super().__init__()
        if len(image.layers) != len(text.layers):
            raise RobustTuneError(
                f"{len(image.layers)} image layers cannot be paired with {len(text.layers)} text layers: "
                "set image_encoder.layers and text_encoder.layers to the same number"
            )
        self.view_shape = (len(image.layers), settings.cca_dim)
        self.layers = nn.ModuleList(
            LatentLayer(settings, image_width, text_width)
            for image_width, text_width in zip(image.layers, text.layers, strict=True)
        )
        self.fusion = FusionStage(settings, image.pooled, text.pooled, len(image.layers), len(facts.class_names))
        self.register_buffer("log_prior", log_prior(facts))

    def forward(self, image: Encoded, text: Encoded, image_present: Tensor, text_present: Tensor) -> Fused:
        """Compute the logits of a batch, see `FusionNetwork.forward`."""
        image, text = zero_absent(image, image_present), zero_absent(text, text_present)
        return self._fuse(image, text, image_present, text_present, None)

    @property
    def output_layers(self) -> list[nn.Module]:
        """Return the last layers, see `FusionNetwork.output_layers`."""
        return [self.fusion.head]

    def forward_pairs(
        self,
        image: Encoded,
        text: Encoded,
        image_rows: Tensor,
        text_rows: Tensor,
        image_present: Tensor,
        text_present: Tensor,
    ) -> Fused:
        """Compute logits of ``R`` pairs; each image and text is projected once; see `FusionNetwork.forward_pairs`."""
        return self._fuse(image, text, image_present, text_present, (image_rows, text_rows))

    def _fuse(
        self,
        image: Encoded,
        text: Encoded,
        image_present: Tensor,
        text_present: Tensor,
        rows: tuple[Tensor, Tensor] | None,
    ) -> Fused:
        image_rows, text_rows = (None, None) if rows is None else rows
        latents = [
            self.run(
                layer,
                LayerTokens(image.tokens[i], image.mask[i], image_rows, image_present),
                LayerTokens(text.tokens[i], text.mask[i], text_rows, text_present),
            )
            for i, layer in enumerate(self.layers)
        ]
        robust, image_views, text_views = (torch.stack(parts) for parts in zip(*latents, strict=True))
        pooled = [
            part if rows is None else torch.where(present.unsqueeze(1), part[index], 0.0)
            for part, index, present in (
                (image.pooled, image_rows, image_present),
                (text.pooled, text_rows, text_present),
            )
        ]
        logits = self.run(self.fusion, pooled[0], image_present, pooled[1], text_present, robust)
        any_present = (image_present | text_present).unsqueeze(1)
        return Fused(torch.where(any_present, logits, self.log_prior.to(logits.dtype)), image_views, text_views)


class LayerTokens(NamedTuple):
    """The tokens of one modality in one layer, for ``R`` output rows.

    Attributes:
        tokens: Tokens of the encoder, shape (P, n, d).
        mask: Mask of real tokens, shape (P, n), bool.
        rows: Row of ``tokens`` for each output row, shape (R,), int64. If None, ``P`` equals ``R``, each output row
            reads its own tokens, and absent rows hold zeros.
        present: Mask of the output rows with this modality, shape (R,), bool. Where it is False, the tokens are
            ignored.
    """

    tokens: Tensor
    mask: Tensor
    rows: Tensor | None
    present: Tensor


class LatentLayer(nn.Module):
    """The translation and pooling of one layer."""

    def __init__(self, settings: MoLT, image_width: int, text_width: int) -> None:
        super().__init__()
        common = settings.common_width
        self.image_in = nn.Linear(image_width, common)
        self.text_in = nn.Linear(text_width, common)
        self.image_null = null_tokens(settings)
        self.text_null = null_tokens(settings)
        self.query_key_value = nn.Linear(common, 3 * common)
        self.image_view = nn.Linear(common, settings.cca_dim, bias=False)
        self.text_view = nn.Linear(common, settings.cca_dim, bias=False)
        self.pool = pooling(settings)

    def forward(self, image: LayerTokens, text: LayerTokens) -> tuple[Tensor, Tensor, Tensor]:
        """Translate both modalities, project the latents to views, and pool them.

        Args:
            image: Image tokens of this layer.
            text: Text tokens of this layer.

        Returns:
            Robust representation ``H_r``, shape (R, d_r), and the image and text views for the correlation loss, shape
            (R, c) each.
        """
        images, image_mask = self._project(image, self.image_in, self.image_null)
        texts, text_mask = self._project(text, self.text_in, self.text_null)
        image_latent, text_latent = self.translate(images, image_mask, texts, text_mask)
        # The correlation loss needs float32 at least, even if the rest runs in a lower precision.
        with torch.autocast(images.device.type, enabled=False):
            views = [
                functional.linear(full(latent), full(view.weight))
                for latent, view in ((image_latent, self.image_view), (text_latent, self.text_view))
            ]
        # Without null tokens both latents may be zero. There the gradient of bilinear pooling overflows in float16.
        paired = (image_mask.any(1) & text_mask.any(1)).unsqueeze(1)
        return torch.where(paired, self.pool(image_latent, text_latent), 0.0), views[0], views[1]

    def _project(self, modality: LayerTokens, projection: nn.Linear, nulls: Tensor | None) -> tuple[Tensor, Tensor]:
        """Project one modality's tokens to the common space, add null tokens, and compute queries, keys and values.

        Args:
            modality: Tokens of the modality.
            projection: Linear map into the common space.
            nulls: Null tokens of the modality, shape (k, d_c), or None.

        Returns:
            Queries, keys and values, shape (R, n + k, 3 d_c), and their mask, shape (R, n + k).
        """
        latents = projection(layer_norm(modality.tokens))
        if modality.rows is None:
            tokens, mask = with_nulls(latents, modality.mask, nulls, modality.present)
            return self.query_key_value(tokens), mask
        present = modality.present.view(-1, 1)
        # A mask alone would let NaN through.
        projected = torch.where(present.unsqueeze(2), self.query_key_value(latents)[modality.rows], 0.0)
        projected_nulls = None if nulls is None else self.query_key_value(nulls)
        return with_nulls(projected, modality.mask[modality.rows] & present, projected_nulls, modality.present)

    def translate(self, image: Tensor, image_mask: Tensor, text: Tensor, text_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the latents ``h_i`` and ``h_t``: single-head cross-attention to the other modality, then a mean.

        Args:
            image: Queries, keys and values of the image, shape (R, n, 3 d_c).
            image_mask: Mask of ``image``, shape (R, n), bool.
            text: Queries, keys and values of the text, shape (R, m, 3 d_c).
            text_mask: Mask of ``text``, shape (R, m), bool.

        Returns:
            Image latents and text latents, shape (R, d_c) each.
        """
        image_q, image_k, image_v = split(image, 3, heads=1)
        text_q, text_k, text_v = split(text, 3, heads=1)
        image_attended = attend(image_q, text_k, text_v, text_mask)
        text_attended = attend(text_q, image_k, image_v, image_mask)
        return masked_mean(image_attended, image_mask), masked_mean(text_attended, text_mask)


class BilinearPooling(nn.Module):
    """Multi-modal factorised bilinear pooling (MFB, Yu et al. 2017).

    ``H_r = L2norm(powernorm(sumpool_k(dropout(U h_i * V h_t))))``, with ``powernorm(x) = sign(x) sqrt(|x|)``.
    """

    def __init__(self, width_in: int, width: int, factors: int, dropout: float) -> None:
        super().__init__()
        self.factors = factors
        self.image = nn.Linear(width_in, width * factors, bias=False)
        self.text = nn.Linear(width_in, width * factors, bias=False)
        self.dropout = nn.Dropout(dropout)

    def forward(self, image: Tensor, text: Tensor) -> Tensor:
        """Pool image and text latents, shape (B, d_c) each, to a robust representation of shape (B, d_r)."""
        product = full(self.dropout(self.image(image) * self.text(text)))
        pooled = product.reshape(len(product), -1, self.factors).sum(2)
        # This is sign(x) sqrt(|x|) with a finite gradient at 0.
        powered = pooled * torch.rsqrt(pooled.abs() + 1e-6)
        return functional.normalize(powered, dim=1, eps=1e-6).to(image.dtype)


class ConcatenationPooling(nn.Module):
    """An ablation of bilinear pooling: a linear layer, GELU and dropout on the concatenated latents."""

    def __init__(self, width_in: int, width: int, dropout: float) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(2 * width_in, width), nn.GELU(), nn.Dropout(dropout))

    def forward(self, image: Tensor, text: Tensor) -> Tensor:
        """Pool image and text latents, shape (B, d_c) each, to a robust representation of shape (B, d_r)."""
        pooled: Tensor = self.layers(torch.cat([image, text], dim=1))
        return pooled


class FusionStage(nn.Module):
    """The fusion stage: self-attention over a query token, the pooled embeddings and the robust representations.

    A linear head reads the query token.
    """

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
        """Compute the logits.

        Args:
            image: Pooled image embeddings, shape (B, d_pi).
            image_present: Mask of the rows with an image, shape (B,), bool.
            text: Pooled text embeddings, shape (B, d_pt).
            text_present: Mask of the rows with a text, shape (B,), bool.
            robust: Robust representations of each layer, shape (M, B, d_r). They are never masked, because they carry
                the prediction if a modality is absent.

        Returns:
            Logits, shape (B, C).
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
    """Build the pooling module that ``settings.pooling`` names."""
    width_in, width = settings.common_width, settings.bilinear_width
    if settings.pooling == "concatenation":
        return ConcatenationPooling(width_in, width, settings.dropout)
    return BilinearPooling(width_in, width, settings.bilinear_factors, settings.dropout)


def null_tokens(settings: MoLT) -> nn.Parameter | None:
    """Return initial null tokens, shape (k, d_c), drawn from N(0, 0.02^2), or None if their number is 0."""
    shape = settings.null_tokens, settings.common_width
    return nn.Parameter(0.02 * torch.randn(shape)) if settings.null_tokens else None


def with_nulls(tokens: Tensor, mask: Tensor, nulls: Tensor | None, present: Tensor) -> tuple[Tensor, Tensor]:
    """Append null tokens, which are unmasked only in rows where the modality is absent.

    Args:
        tokens: Tokens, shape (B, n, d).
        mask: Mask of the tokens, shape (B, n), bool.
        nulls: Null tokens, shape (k, d), or None to append nothing.
        present: Mask of the rows with this modality, shape (B,), bool.

    Returns:
        Tokens, shape (B, n + k, d), and their mask, shape (B, n + k).
    """
    if nulls is None:
        return tokens, mask
    nulls = nulls.to(tokens.dtype).expand(len(tokens), -1, -1)
    null_mask = (~present).unsqueeze(1).expand(-1, nulls.shape[1])
    return torch.cat([tokens, nulls], dim=1), torch.cat([mask, null_mask], dim=1)


def full(tensor: Tensor) -> Tensor:
    """Convert a tensor to float32, unless its precision is higher."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
