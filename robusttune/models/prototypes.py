"""The prototype head of DPL: classes as directions, for each modality and pattern of present modalities.

Source: "DPL: Decoupled Prototype Learning for Enhancing Robustness of Vision-Language Transformers to Missing
Modalities" (CVPR 2026, arXiv 2505.08283).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from robusttune.errors import RobustTuneError
from robusttune.models.clip_heads import Head
from robusttune.models.clip_network import COMPLETE, IMAGE_ALONE, TEXT_ALONE

Missing = Literal["both", "text", "image", "none"]
IMAGE, LONE_IMAGE, TEXT, LONE_TEXT = range(4)  # groups of prototypes: w_mi_c, w_mi_tm, w_mt_c, w_mt_im
GROUPS: dict[str, tuple[int, ...]] = {  # that are trained, by the modalities that training samples lack
    "both": (IMAGE, LONE_IMAGE, TEXT, LONE_TEXT),
    "text": (IMAGE, LONE_IMAGE, TEXT),
    "image": (IMAGE, TEXT, LONE_TEXT),
    "none": (IMAGE, TEXT),
}
COMPLETE_OF = {LONE_IMAGE: IMAGE, LONE_TEXT: TEXT}
PAIR_KINDS = {(IMAGE, LONE_IMAGE): 0, (TEXT, LONE_TEXT): 0, (IMAGE, TEXT): 1}  # of `Prototypes.pairwise`; others: 2
RANGES: dict[str, tuple[str, Callable[[float], bool]]] = {
    **dict.fromkeys(("scale", "temperature", "base_temperature"), ("more than 0", lambda x: 0 < x < math.inf)),
    **dict.fromkeys(("contrast", "pairwise"), ("at least 0", lambda x: 0 <= x < math.inf)),
    "margin": ("0 to pi", lambda x: 0 <= x <= math.pi),
}


@dataclass(frozen=True)
class Prototypes:
    """Settings of a `PrototypeHead`. The defaults of the losses are those of the published script for MM-IMDb.

    Args:
        scale: Factors of the cosines in the loss, for complete samples, images alone and texts alone (``arc_s``,
            ``arc_s_tm``, ``arc_s_im`` in the published code), above 0.
        margin: Angles in radians that are added to the label's angle in the loss, in the same order (``arc_m``,
            ``arc_m_tm``, ``arc_m_im``), from 0 to pi.
        missing: Modalities that training samples lack: the ``text`` or the ``image`` of some, ``both``, that is, one or
            the other, or ``none``. The prototypes of a pattern that does not occur in training are not trained.
        share_untrained: True to use the prototypes of complete samples in place of untrained ones; False to keep those
            at their random start, as published, so that the model predicts such samples by chance.
        contrast: Weight of the contrastive loss over all trained prototypes (``contrast_coef``), at least 0.
        pairwise: Weights of the contrastive losses over two groups of prototypes, in place of ``contrast``: of the same
            modality (``contrast_coef_mintra``), of both modalities in complete samples
            (``contrast_coef_minter_pintra``), and of both modalities otherwise (``contrast_coef_minter_pinter``).
        temperature: Divisor of the cosines in the contrastive loss (``contrast_temp``), above 0.
        base_temperature: Divisor of the contrastive loss itself (``contrast_temp_base``), above 0.
        anchors: Prototypes whose contrastive losses are averaged: ``all``, or those of the first group (``one``).

    Raises:
        RobustTuneError: A number is out of its range, or both forms of the contrastive loss have weights.

    Example:
        >>> Prototypes(missing="text").groups
        (0, 1, 2)
    """

    scale: tuple[float, float, float] = (32.0, 32.0, 32.0)
    margin: tuple[float, float, float] = (0.1, 0.15, 0.15)
    missing: Missing = "both"
    share_untrained: bool = True
    contrast: float = 0.9
    pairwise: tuple[float, float, float] | None = None
    temperature: float = 1.0
    base_temperature: float = 1.0
    anchors: Literal["all", "one"] = "all"

    def __post_init__(self) -> None:
        for name, (wanted, fits) in RANGES.items():
            values = getattr(self, name)
            for value in values if isinstance(values, tuple) else () if values is None else (values,):
                if not fits(value):  # NaN fits none.
                    raise RobustTuneError(f"prototypes.{name} has the value {value}: give {wanted}")
        if self.contrast > 0 and self.pairwise is not None:
            raise RobustTuneError(
                "prototypes.contrast and prototypes.pairwise are two forms of one loss: set contrast to 0, or leave "
                "pairwise out"
            )

    @property
    def groups(self) -> tuple[int, ...]:
        """Return the numbers of the groups of prototypes that are trained."""
        return GROUPS[self.missing]


class PrototypeHead(Head):
    """A head whose logits are the cosines between features and prototypes of the classes, in [-1, 1].

    All is computed in float32 at least.

    Args:
        settings: Settings of the head.
        width: Width ``d_e`` of the features of one modality.
        classes: Number ``C`` of classes.

    Attributes:
        prototypes: Directions of the classes, of any length: of images and of images alone, of texts and of texts
            alone, shape (4, C, d_e).

    Example:
        >>> head = PrototypeHead(Prototypes(), width=4, classes=3)
        >>> features = torch.cat([head.prototypes[0, 1:2], head.prototypes[2, 1:2]], 1)
        >>> head(features, torch.tensor([0]))[0, 1].round(decimals=4)
        tensor(1., grad_fn=<RoundBackward1>)
    """

    scale: Tensor
    margin: Tensor
    gives_cosines = True

    def __init__(self, settings: Prototypes, width: int, classes: int) -> None:
        super().__init__()
        self.settings = settings
        trained = settings.groups if settings.share_untrained else GROUPS["both"]
        self.used = [group if group in trained else COMPLETE_OF[group] for group in GROUPS["both"]]
        self.prototypes = nn.Parameter(torch.randn(4, classes, width) * (2 / (width + classes)) ** 0.5)
        self.register_buffer("scale", torch.tensor(settings.scale), persistent=False)
        self.register_buffer("margin", torch.tensor(settings.margin), persistent=False)

    def forward(self, features: Tensor, pattern: Tensor) -> Tensor:
        """Return cosines, shape (B, C), see `Head.forward`; of complete samples, the mean over both modalities."""
        with torch.autocast(features.device.type, enabled=False):
            image, text = _float(features).chunk(2, 1)
            complete = (pattern == COMPLETE).unsqueeze(1)
            # Without the masks, the gradient of a zero feature would be infinite in half precision.
            image = torch.where((pattern != TEXT_ALONE).unsqueeze(1), functional.normalize(image), 0.0)
            text = torch.where((pattern != IMAGE_ALONE).unsqueeze(1), functional.normalize(text), 0.0)
            directions = self.directions()[self.used].to(image)
            of_images, of_lone_images = (image @ directions[group].T for group in (IMAGE, LONE_IMAGE))
            of_texts, of_lone_texts = (text @ directions[group].T for group in (TEXT, LONE_TEXT))
            return torch.where(complete, (of_images + of_texts) / 2, of_lone_images + of_lone_texts)

    def training_logits(self, logits: Tensor, label: Tensor, pattern: Tensor) -> Tensor:
        """Add the margin to the angles of the labels, and scale the cosines, see `Head.training_logits`."""
        cosine = _float(logits)
        scale, margin = self.scale[pattern].unsqueeze(1), self.margin[pattern].unsqueeze(1)
        # The slope of the square root is infinite at 0; with the limit it is 0 there.
        sine = (1 - cosine.square()).clamp(min=torch.finfo(cosine.dtype).eps).sqrt()
        turned = cosine * margin.cos() - sine * margin.sin()
        beyond = cosine - margin * (math.pi - margin).sin()  # an angle of more than pi
        moved = torch.where(cosine > (math.pi - margin).cos(), turned, beyond)
        labels = functional.one_hot(label, cosine.shape[1]) if label.dim() == 1 else label
        return scale * torch.where(labels > 0, moved, cosine)

    def extra_losses(self) -> dict[str, Tensor]:
        """Return the contrastive loss of the prototypes, if it has a weight, see `Head.extra_losses`."""
        weights, groups = self.settings.pairwise, self.settings.groups
        terms = {groups: self.settings.contrast}
        if weights is not None:
            terms = {pair: weights[PAIR_KINDS.get(pair, 2)] for pair in combinations(groups, 2)}
        with torch.autocast(self.prototypes.device.type, enabled=False):
            directions = self.directions()
            losses = [weight * self._contrast(directions[[*chosen]]) for chosen, weight in terms.items() if weight > 0]
        return {"contrastive_loss": torch.stack(losses).sum()} if losses else {}

    def directions(self) -> Tensor:
        """Return the prototypes at length 1, shape (4, C, d_e)."""
        return functional.normalize(_float(self.prototypes), dim=-1)

    def _contrast(self, groups: Tensor) -> Tensor:
        """Return the supervised contrastive loss (arXiv 2004.11362) of groups of prototypes, shape (V, C, d_e)."""
        views, classes = groups.shape[:2]
        bank = groups.flatten(0, 1)
        anchors = bank if self.settings.anchors == "all" else bank[:classes]
        similarity = anchors @ bank.T / self.settings.temperature
        itself = torch.eye(len(anchors), len(bank), dtype=torch.bool, device=bank.device)
        of_class = torch.arange(len(bank), device=bank.device) % classes
        same = (of_class[: len(anchors)].unsqueeze(1) == of_class) & ~itself
        others = similarity.masked_fill(itself, -torch.inf).logsumexp(1)
        agreement = similarity.masked_fill(~same, 0.0).sum(1) / (views - 1)
        return (others - agreement).mean() * self.settings.temperature / self.settings.base_temperature


def _float(tensor: Tensor) -> Tensor:
    """Convert a tensor to float32 at least."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
