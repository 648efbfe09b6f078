"""Small models of every kind, and samples with every pattern of present modalities, for tests of their use."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from robusttune.encoders import (
    CLIPImageEncoder,
    CLIPTextEncoder,
    ImageEncoder,
    TextEncoder,
    TimmEncoder,
    TransformersImageEncoder,
    TransformersTextEncoder,
)
from robusttune.models import (
    DCP,
    DPL,
    MMRL,
    Concatenation,
    CrossAttention,
    Experts,
    FusionClassifier,
    FusionModel,
    ImageOnly,
    LateFusion,
    LogisticRegression,
    LoRA,
    MMRLClassifier,
    MoLT,
    MoRA,
    Prototypes,
    Stacking,
    TextOnly,
    ZeroShotClassifier,
)
from robusttune.models.classifier import Classifier
from robusttune.models.kernel import SimilarModality
from robusttune.types import Facts

CLIP: dict[str, Any] = {"name": "robusttune:demo_clip", "first_layer": 2}
FACTS = Facts(["red circle", "blue square", "green star"], [0.5, 0.3, 0.2], multilabel=False, training_samples=10)
SEVERAL = Facts(FACTS.class_names, [0.5, 0.3, 0.8], multilabel=True)


def timm_encoder(**settings: Any) -> TimmEncoder:
    """Return the settings of a tiny image encoder of timm."""
    return TimmEncoder(**{"name": "test_vit", "weights": "random", "layers": 2, "grid": 2, **settings})


def text_encoder(**settings: Any) -> TransformersTextEncoder:
    """Return the settings of a text encoder of transformers that needs no network."""
    return TransformersTextEncoder(**{"name": CLIP["name"], "layers": 2, "max_length": 16, **settings})


def clip_encoders(**settings: Any) -> tuple[ImageEncoder, TextEncoder]:
    """Return the settings of the towers of a CLIP that an adapter can change."""
    return CLIPImageEncoder(**{**CLIP, **settings}), CLIPTextEncoder(**{**CLIP, **settings})


def fusion(
    model: FusionModel, image: ImageEncoder | None = None, text: TextEncoder | None = None, facts: Facts = FACTS
) -> Classifier:
    """Return a fusion classifier with seeded random weights, and temperatures that are not 1."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        found = FusionClassifier(image or timm_encoder(), text or text_encoder(), facts, fusion=model)
    return calibrated(found)


def regression(model: LogisticRegression) -> Classifier:
    """Return regressions with random weights, statistics and training samples to compare with."""
    found: Any = fusion(model, facts=FACTS._replace(training_samples=20))
    random = torch.Generator().manual_seed(0)
    for name, value in found.network.named_parameters():
        value.copy_(torch.randn(value.shape, generator=random) / (1 if name.endswith("bias") else 10))
    for each in (found.network.image, found.network.text):
        each.centre.copy_(torch.randn(each.centre.shape, generator=random))
        each.deviation.copy_(1 + torch.rand(each.deviation.shape, generator=random))
        if isinstance(each, SimilarModality):
            each.centres.copy_(torch.randn(each.centres.shape, generator=random))
    classifier: Classifier = found
    return classifier


def prompted(kind: type[MMRLClassifier] | type[ZeroShotClassifier], **settings: Any) -> Classifier:
    """Return a classifier on a CLIP with seeded random weights, and temperatures that are not 1."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        found = kind(*clip_encoders(), FACTS, **settings)
    return calibrated(found)


def calibrated(classifier: Classifier) -> Classifier:
    """Set temperatures, and return the classifier in eval mode."""
    classifier.temperatures.values.copy_(torch.tensor([0.7, 1.3, 1.1, 1.0]))
    return classifier.eval()


def _tower() -> TransformersImageEncoder:
    return TransformersImageEncoder(name=CLIP["name"], layers=2)


MODELS: dict[str, Callable[[], Classifier]] = {
    "molt": lambda: fusion(MoLT()),
    "molt without nulls and fusion": lambda: fusion(MoLT(null_tokens=0, fusion_layers=0, pooling="concatenation")),
    "experts": lambda: fusion(Experts()),
    "experts of several labels": lambda: fusion(Experts(), facts=SEVERAL),
    "logistic regression": lambda: regression(LogisticRegression()),
    "stacking": lambda: regression(Stacking()),
    "cross-attention": lambda: fusion(CrossAttention()),
    "concatenation": lambda: fusion(Concatenation()),
    "late fusion": lambda: fusion(LateFusion()),
    "image only": lambda: fusion(ImageOnly()),
    "text only": lambda: fusion(TextOnly()),
    "two towers of transformers": lambda: fusion(Experts(), _tower(), text_encoder(pooling="end")),
    "features of a CLIP": lambda: fusion(MoLT(), *clip_encoders()),
    "DPL": lambda: fusion(DPL(), *clip_encoders(first_layer=5)),  # one more than the tower has layers
    "DPL on DCP": lambda: fusion(DCP(6, 2, prototypes=Prototypes()), *clip_encoders(first_layer=1)),
    "timm CNN": lambda: fusion(Experts(), timm_encoder(name="test_resnet", layers=2)),
    "LoRA": lambda: fusion(LoRA(targets=("q_proj", "out_proj")), *clip_encoders()),
    "MoRA": lambda: fusion(MoRA(), *clip_encoders()),
    "MoRA without dummies": lambda: fusion(MoRA(absent="zeros"), *clip_encoders()),
    "MMRL": lambda: prompted(MMRLClassifier),
    "MMRL++": lambda: prompted(MMRLClassifier, adapter=MMRL(beta=0.5, residual_rank=4, projection_rank=4)),
    "zero-shot": lambda: prompted(ZeroShotClassifier),
}


def pairs() -> dict[str, list[Any]]:
    """Return samples as columns: with both modalities, the image alone, the text alone, and neither."""
    rng = np.random.default_rng(0)
    photos = [rng.integers(256, size=(height, 90, 3), dtype=np.uint8) for height in (80, 40)]
    return {"images": [photos[0], photos[1], None, None], "texts": ["a large red circle", None, "blue", None]}
