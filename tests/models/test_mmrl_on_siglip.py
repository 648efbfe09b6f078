"""Zero-shot classification and MMRL on a SigLIP, against transformers and a reference that is made of hooks on it."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from fakes import VIEWS, random_batch
from plain_siglip import plain_siglip_image, plain_siglip_text
from torch import Tensor
from torch.nn import functional
from transformers import SiglipModel

from robusttune.encoders import CLIPImageEncoder, CLIPTextEncoder
from robusttune.errors import RobustTuneError
from robusttune.inference.onnx import write_onnx
from robusttune.models import DCP, MMRL, MMRLClassifier, MMRLNetwork
from robusttune.models.published import mmrl_names
from robusttune.models.zero_shot import ZeroShotClassifier
from robusttune.types import Batch, Facts, Tokens, Variants

FACTS = Facts(["apple pie", "soup", "cake"], [0.5, 0.3, 0.2], False)
LENGTH = 16
VARIATIONS = {
    "MMRL": MMRL(space_tokens=3, space_width=8),
    "MMRL++": MMRL(space_tokens=3, space_width=8, beta=0.6, residual_rank=2, projection_rank=4),
}


def batch_of_texts(size: int = 6) -> Batch:
    """Return the rows of `random_batch`, with texts as the tokenizer of the tiny SigLIP makes them."""
    batch = random_batch(size)
    count, place = len(batch.texts), torch.arange(7)
    lengths, ids = torch.randint(1, 7, (count, 1)), torch.randint(2, 10, (count, 7))
    ids[place >= lengths] = 1
    batch.texts = Variants(["clean"], Tokens(ids, place <= lengths))
    return batch


def full_length(ids: Tensor) -> Tensor:
    """Pad token ids to the length that the tiny SigLIP has positions for."""
    return functional.pad(ids, (0, LENGTH - ids.shape[1]), value=1)


def encoders(folder: Path, first_layer: int = 3) -> tuple[CLIPImageEncoder, CLIPTextEncoder]:
    settings: dict[str, Any] = {"name": str(folder), "first_layer": first_layer}
    return CLIPImageEncoder(**settings), CLIPTextEncoder(**settings)


def prompt_ids(classifier: ZeroShotClassifier | MMRLClassifier) -> Tensor:
    prompts = [template.format(name) for template in classifier.templates for name in FACTS.class_names]
    return full_length(classifier.text_encoder.prompt_tokenizer(prompts).tokens.input_ids)


@torch.no_grad()
def test_zero_shot_probabilities_are_those_of_transformers(siglip_folder: Path) -> None:
    """A softmax over classes, in which SigLIP's bias of all logits has no effect."""
    classifier = ZeroShotClassifier(*encoders(siglip_folder), FACTS, ["a photo of {}"]).eval()
    batch, siglip = batch_of_texts(), SiglipModel.from_pretrained(siglip_folder).eval()
    by_view = dict(zip(VIEWS, classifier.logits(batch, [*VIEWS.values()]), strict=True))
    pixels = classifier.image_encoder.normalise(batch.images["clean"])  # type: ignore[arg-type]
    ids = prompt_ids(classifier)
    by_image = siglip(input_ids=ids, pixel_values=pixels).logits_per_image
    assert float(siglip.logit_bias) == -5
    found = by_view["no_text"][batch.image_present]
    torch.testing.assert_close(found.softmax(1), by_image.softmax(1), rtol=1e-4, atol=1e-5)
    classes = functional.normalize(siglip.get_text_features(ids).pooler_output, dim=-1)
    own = siglip.get_text_features(full_length(batch.texts["clean"].input_ids)).pooler_output  # type: ignore[union-attr]
    by_text = siglip.logit_scale.exp() * functional.normalize(own, dim=-1) @ classes.T
    torch.testing.assert_close(by_view["no_image"][batch.text_present], by_text, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("first_layer", [1, 3, 4])
@pytest.mark.parametrize("variation", VARIATIONS)
def test_mmrl_is_that_of_hooks_on_the_whole_model(siglip_folder: Path, variation: str, first_layer: int) -> None:
    """Class and representation logits, distances to the frozen model, texts, and the gradients of all of them."""
    torch.manual_seed(0)
    classifier = MMRLClassifier(
        *encoders(siglip_folder, first_layer), FACTS, VARIATIONS[variation], ["a photo of {}", "{}"]
    )
    network, batch = classifier.network, batch_of_texts()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape))
    adapted = classifier.adapted()
    images = classifier.image_logits(batch, ["clean"], adapted, untouched=True)["clean"]
    texts = classifier.text_logits(batch, ["clean"], adapted)["clean"]
    shown, told = batch.image_present, batch.text_present
    found = [images.by_class[shown], images.by_representation[shown], images.nearness[shown], texts[told]]
    expected = by_hooks(siglip_folder, classifier, batch)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
    gradients = [
        torch.autograd.grad(torch.cat([part.flatten() for part in parts]).square().sum(), [*network.parameters()])
        for parts in (found, expected)
    ]
    total = torch.cat([gradient.flatten() for gradient in gradients[1]]).norm()
    for one, other in zip(*gradients, strict=True):
        assert (one - other).norm() <= 1e-4 * total


def by_hooks(folder: Path, classifier: MMRLClassifier, batch: Batch) -> list[Tensor]:
    """Return what `MMRLClassifier` should compute: logits of images by either feature, nearness, logits of texts."""
    siglip = SiglipModel.from_pretrained(folder).eval().requires_grad_(False)
    network, scale = classifier.network, siglip.logit_scale.exp()
    pixels = classifier.image_encoder.normalise(batch.images["clean"])  # type: ignore[arg-type]
    features, representation = plain_siglip_image(siglip, network, pixels)
    classes = plain_siglip_text(siglip, network, prompt_ids(classifier)[: len(FACTS.class_names)])
    texts = plain_siglip_text(siglip, network, full_length(batch.texts["clean"].input_ids))  # type: ignore[union-attr]
    frozen = functional.normalize(siglip.get_image_features(pixels).pooler_output, dim=-1)
    nearness = (features * frozen).sum(1)
    return [scale * features @ classes.T, scale * representation @ classes.T, nearness, scale * texts @ classes.T]


@torch.no_grad()
@pytest.mark.parametrize("kind", [ZeroShotClassifier, partial(MMRLClassifier, adapter=VARIATIONS["MMRL++"])])
def test_cached_features_give_the_same_logits(siglip_folder: Path, kind: Any) -> None:
    torch.manual_seed(0)
    classifier, batch = kind(*encoders(siglip_folder), FACTS).eval(), batch_of_texts()
    expected = classifier.logits(batch, [*VIEWS.values()])
    batch.images = Variants(["clean"], classifier.image_encoder(batch.images["clean"]))
    batch.texts = Variants(["clean"], classifier.text_encoder(batch.texts["clean"]))
    classifier.prompts()
    classifier.release_encoders()
    torch.testing.assert_close(classifier.logits(batch, [*VIEWS.values()]), expected)


def test_mmrlpp_begins_with_the_frozen_pooling_of_one_token(siglip_folder: Path) -> None:
    """The residual is zero at first, and SigLIP's pooling head is its map into the embedding space."""
    classifier = MMRLClassifier(*encoders(siglip_folder), FACTS, VARIATIONS["MMRL++"])
    mean = torch.randn(2, 48)
    siglip = SiglipModel.from_pretrained(siglip_folder).eval()
    found = classifier.network.projection(classifier.image_encoder.upper, mean)
    torch.testing.assert_close(found, siglip.vision_model.head(mean.unsqueeze(1)), rtol=0, atol=1e-5)


def test_published_weights_are_of_clip_alone(siglip_folder: Path) -> None:
    image, text = (settings.load() for settings in encoders(siglip_folder))
    names = mmrl_names(MMRLNetwork(VARIATIONS["MMRL"], image.upper.shape, text.upper.shape).state_dict())
    with pytest.raises(RobustTuneError, match="are of methods on CLIP, and the encoders are of a SigLIP"):
        names.refuse_another_clip({}, image.upper, text.upper)


def test_dcp_is_for_clip_alone(siglip_folder: Path) -> None:
    image, text = (settings.load() for settings in encoders(siglip_folder, first_layer=1))
    with pytest.raises(
        RobustTuneError, match="DCP adapts the towers of a CLIP, and .* is a SigLIP: choose a CLIP such"
    ):
        DCP().build_on(image, text, FACTS)


@pytest.mark.exhaustive  # an export takes half a minute
def test_an_onnx_graph_gives_the_same_logits(siglip_folder: Path, tmp_path: Path) -> None:
    classifier = MMRLClassifier(*encoders(siglip_folder), FACTS, VARIATIONS["MMRL++"]).eval()
    report = write_onnx(classifier, tmp_path / "model")
    assert max(report["difference"].values()) < 1e-5
