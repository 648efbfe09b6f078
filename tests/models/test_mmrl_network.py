"""MMRL against what the published implementation computed, and every shortcut against plain computation."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import hypothesis
import pytest
import torch
from fakes import write_clip
from hypothesis import given
from hypothesis import strategies as st
from plain_mmrl import Plain, plain_features, plain_loss, plain_prompts
from safetensors import safe_open
from torch import Tensor, nn
from torch.optim import AdamW
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel

from robusttune.encoders import CLIPImageEncoder, CLIPTextEncoder
from robusttune.encoders.clip import FrozenCLIPImage, FrozenCLIPText
from robusttune.encoders.upper_tower import TowerShape, UpperTower
from robusttune.errors import RobustTuneError
from robusttune.models import MMRL, MMRLNetwork
from robusttune.models.packed import Packed, common_prefix_length
from robusttune.models.published import Matched, mmrl_names
from robusttune.types import Tokens

GOLDEN = Path(__file__).parents[1] / "golden"
VARIATIONS = {
    "MMRL": MMRL(space_tokens=3, space_width=8),
    "MMRL++": MMRL(space_tokens=3, space_width=8, beta=0.9, residual_rank=2, projection_rank=4),
}


@dataclass
class Case:
    """A CLIP, the two halves that it was cut into, and a network on them."""

    clip: Any
    image: FrozenCLIPImage
    text: FrozenCLIPText
    network: MMRLNetwork
    golden: dict[str, Tensor] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)

    def of(self, prefix: str) -> dict[str, Tensor]:
        return {name.removeprefix(prefix): t for name, t in self.golden.items() if name.startswith(prefix)}


def to_published(network: MMRLNetwork) -> dict[str, Tensor]:
    own = network.state_dict()
    return mmrl_names(own).write(own)


def from_published(given: dict[str, Tensor], network: MMRLNetwork) -> Matched:
    own = network.state_dict()
    return mmrl_names(own).read(given, own)


def cut(folder: Path, first_layer: int, settings: MMRL) -> Case:
    image = CLIPImageEncoder(name=str(folder), first_layer=first_layer).load()
    text = CLIPTextEncoder(name=str(folder), first_layer=first_layer).load()
    clip = CLIPModel.from_pretrained(folder, attn_implementation="eager").eval()
    return Case(clip, image, text, MMRLNetwork(settings, image.upper.shape, text.upper.shape))


@cache
def golden(name: str) -> Case:
    with safe_open(GOLDEN / f"{name}_golden.safetensors", "pt") as file:
        tensors, config = {key: file.get_tensor(key) for key in file.keys()}, json.loads(file.metadata()["config"])  # noqa: SIM118
    clip = CLIPModel(
        CLIPConfig(
            text_config=config["clip_text"],
            vision_config=config["clip_vision"],
            projection_dim=config["projection_dim"],
        )
    )
    clip.load_state_dict({key.removeprefix("clip."): t for key, t in tensors.items() if key.startswith("clip.")})
    settings = MMRL(
        config["num_space_tokens"],
        config["space_dim"],
        config.get("beta", 1.0),
        config.get("residual_rank"),
        config.get("proj_rank"),
    )
    size = {"height": 64, "width": 64}
    with TemporaryDirectory() as folder:
        clip.save_pretrained(folder)
        CLIPImageProcessor(size={"shortest_edge": 64}, crop_size=size).save_pretrained(folder)
        case = cut(Path(folder), config["first_layer"], settings)
    case.golden, case.config = tensors, config
    return case


def fast_features(case: Case, pixels: Tensor, tokens: Tokens, pack: Callable[..., Packed] = Packed.of) -> Plain:
    """With every shortcut."""
    case.image.normalise = lambda images: images  # type: ignore[method-assign]
    images, prompts = case.image(pixels), case.text(tokens)
    shared = prompts.tokens[0][0, : common_prefix_length(tokens)]
    packed = pack(prompts.tokens[0], prompts.mask[0], shared)
    put_in = case.network.tokens()
    image, representation = case.network.image_features(case.image.upper, images.tokens[0], put_in.image)
    text = case.network.text_features(case.text.upper, packed, put_in.text)
    return Plain(image, representation, text, images.pooled, prompts.pooled)


def of_golden(case: Case) -> tuple[Plain, Tensor]:
    ids = case.golden["input.class_token_ids"]
    end = (ids == case.config["clip_text"]["eos_token_id"]).int().argmax(1)
    longest = int(end.max()) + 1
    mask = torch.arange(longest) <= end.unsqueeze(1)
    features = fast_features(case, case.golden["input.pixel_values"], Tokens(ids[:, :longest], mask))
    config = case.config
    loss = plain_loss(
        features, case.golden["input.labels"], config["logit_scale"], config["alpha"], config["reg_weight"]
    )
    return features, loss


def close(found: Tensor, expected: Tensor, absolute: float) -> None:
    torch.testing.assert_close(found, expected, atol=absolute, rtol=0)


def close_in_norm(found: Tensor, expected: Tensor, relative: float, what: str) -> None:
    assert (found - expected).norm() <= relative * expected.norm(), what


@pytest.mark.parametrize("name", ["mmrl", "mmrlpp"])
def test_features_and_logits_are_the_published_ones(name: str) -> None:
    case = golden(name)
    case.network.load_state_dict(from_published(case.of("adapter."), case.network).state)
    features, _ = of_golden(case)
    out = case.of("output.")
    close(features.image, out["image_features"], 1e-5)
    close(features.text, out["text_features"], 1e-5)
    close(features.untouched_image, out["zero_shot_image_features"], 1e-5)
    close(features.untouched_text, out["zero_shot_text_features"], 1e-5)
    logits, logits_rep = (100 * f @ features.text.T for f in (features.image, features.representation))
    close(logits, out["logits_class"], 1e-4)
    close(logits_rep, out["logits_rep"], 1e-4)
    close(0.7 * logits + 0.3 * logits_rep, out["logits_fused"], 1e-4)


@pytest.mark.parametrize("name", ["mmrl", "mmrlpp"])
def test_gradients_losses_and_updates_are_the_published_ones(name: str) -> None:
    case = golden(name)
    before = from_published(case.of("adapter."), case.network).state
    case.network.load_state_dict(before)
    config = case.config["optimizer"]
    optimizer = AdamW(case.network.parameters(), lr=config["lr"], weight_decay=config["weight_decay"])
    gradients = from_published(case.of("grad."), case.network).state
    for step, expected in enumerate(case.golden["output.losses"]):
        optimizer.zero_grad()
        _, loss = of_golden(case)
        loss.backward()
        assert loss.item() == pytest.approx(float(expected), rel=1e-4)
        if step == 0:
            for key, parameter in case.network.named_parameters():
                assert parameter.grad is not None
                close_in_norm(parameter.grad, gradients[key], 1e-4, key)
        optimizer.step()
    after = from_published(case.of("adapter_after."), case.network).state
    for key, parameter in case.network.named_parameters():
        close_in_norm(parameter.detach() - before[key], after[key] - before[key], 1e-3, key)


@cache
def tiny_clip() -> TemporaryDirectory[str]:
    """Of four layers a tower, with weights large enough to tell mistakes apart."""
    folder = TemporaryDirectory()
    write_clip(Path(folder.name))
    clip = CLIPModel.from_pretrained(folder.name)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in clip.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))
    clip.save_pretrained(folder.name)
    return folder


@cache
def tiny(first_layer: int, variation: str, space_tokens: int) -> Case:
    """`tiny_clip` with large weights in the network as well."""
    folder, settings = Path(tiny_clip().name), VARIATIONS[variation]
    torch.manual_seed(2)
    case = cut(folder, first_layer, MMRL(**(vars(settings) | {"space_tokens": space_tokens})))
    with torch.no_grad():
        for parameter in case.network.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape))
    return case


@hypothesis.settings(max_examples=25)
@given(
    first_layer=st.integers(1, 4),
    variation=st.sampled_from([*VARIATIONS]),
    space_tokens=st.integers(1, 4),
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=6),
    opening=st.integers(0, 4),
    batch=st.integers(1, 3),
    seed=st.integers(0, 99),
)
def test_fast_paths_equal_the_full_computation(
    first_layer: int,
    variation: str,
    space_tokens: int,
    lengths: list[int],
    opening: int,
    batch: int,
    seed: int,
) -> None:
    """Prompts of any lengths and opening, cut, packed with and without padding, and towers cut at any layer.

    Features, losses and gradients are those of computing everything in full.
    """
    case = tiny(first_layer, variation, space_tokens)
    rng = torch.Generator().manual_seed(seed)
    begin = torch.randint(3, 10, (opening,), generator=rng)
    rows = [
        torch.cat([torch.zeros(1, dtype=torch.int64), begin, torch.randint(3, 10, (n,), generator=rng)])
        for n in lengths
    ]
    ids, end = torch.ones(len(rows), 16, dtype=torch.int64), torch.tensor([len(row) for row in rows])
    for place, row in zip(ids, rows, strict=True):
        place[: len(row)] = row  # then the end token, 1, which is what texts are padded with, too
    longest = int(end.max()) + 1
    tokens = Tokens(ids[:, :longest], torch.arange(longest) <= end.unsqueeze(1))
    pixels, label = torch.randn(batch, 3, 32, 32, generator=rng), torch.randint(len(rows), (batch,), generator=rng)
    found, gradients = [], []
    own = plain_prompts(case.clip, ids, end)
    plain = plain_features(case.clip, case.network, pixels, ids, end, own)
    fast = [fast_features(case, pixels, tokens, pack) for pack in (Packed.of, Packed.with_padding)]
    for features in (plain, *fast):
        loss = plain_loss(features, label, 100.0, 0.7, 5.0)
        found.append([*features, loss])
        gradients.append(torch.autograd.grad(loss, [*case.network.parameters()]))
    for expected, *others in zip(*found, strict=True):
        for other in others:
            torch.testing.assert_close(other, expected, atol=2e-4, rtol=1e-4)
    total = sum(float(g.norm()) ** 2 for g in gradients[0]) ** 0.5
    for expected, *others in zip(*gradients, strict=True):
        assert all((other - expected).norm() <= 1e-3 * total for other in others)


def test_trained_numbers_on_vit_b_16() -> None:
    def count(settings: MMRL) -> int:
        network = MMRLNetwork(settings, TowerShape(7, 768, 512), TowerShape(7, 512, 512))
        return sum(parameter.numel() for parameter in network.parameters())

    assert count(MMRL()) == 4_992_256
    space, maps = 5 * 512, (768 + 512) * 512 + 7 * ((768 + 512 + 2 * 512) * 4 + 768 + 512)
    assert count(MMRL(beta=0.9, residual_rank=4, projection_rank=64)) == space + maps + (768 + 512) * 64


def test_begins_as_published() -> None:
    """All layers alike, and MMRL++ with residuals of zero, and so with CLIP's own projection."""
    torch.manual_seed(0)
    shape = TowerShape(7, 768, 512)
    upper = UpperTower([nn.Identity()] * 7, nn.Identity(), nn.Linear(768, 512, bias=False))  # type: ignore[list-item]
    network: Any = MMRLNetwork(MMRL(residual_rank=4, projection_rank=64), shape, shape)
    assert not network.image_maps.b.any()
    features = torch.randn(2, 768)
    assert torch.equal(network.projection(upper, features), upper.projection(features))
    network.requires_grad_(False)
    assert network.image_maps.a.abs().max() <= 0.5 < 2 * network.image_maps.a.abs().max()
    plain = MMRLNetwork(MMRL(), shape, shape).requires_grad_(False)
    for tokens in (*network.tokens(), *plain.tokens()):
        torch.testing.assert_close(tokens, tokens[:1].expand(7, -1, -1))
    network = MMRLNetwork(MMRL(), shape, shape)
    assert network.space.std().item() == pytest.approx(0.02, rel=0.1)
    assert network.projection.weight.std().item() == pytest.approx(768**-0.5, rel=0.02)


def test_published_names_there_and_back() -> None:
    for settings in VARIATIONS.values():
        network = MMRLNetwork(settings, TowerShape(3, 8, 4), TowerShape(2, 6, 4))
        published = to_published(network)
        matched = from_published({f"module.{name}": t for name, t in published.items()}, network)
        assert {*matched.published} == {*published}
        assert not matched.set_aside
        for name, tensor in network.state_dict().items():
            assert torch.equal(matched.state[name], tensor)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda s: s.pop("image_encoder.proj_rep"), "it lacks image_encoder.proj_rep: set model.adapter"),
        (lambda s: s.update(surplus=torch.zeros(1)), "it has besides surplus: set"),
        (
            lambda s: s.update({"image_encoder.proj_rep": torch.zeros(3, 4)}),
            r"it has in another shape image_encoder.proj_rep \(3, 4\), not \(8, 4\)",
        ),
        (
            lambda s: s["image_encoder.proj_rep"].fill_(float("nan")),
            r"it is not finite in image_encoder.proj_rep: .*\(its space_tokens are 3, space_width 8, residual",
        ),
        (lambda s: s.clear(), "it lacks representation_learner.compound_rep_tokens, .*it is none of MMRL's"),
    ],
)
def test_published_weights_that_do_not_fit(spoil: Any, message: str) -> None:
    network = MMRLNetwork(VARIATIONS["MMRL"], TowerShape(3, 8, 4), TowerShape(2, 6, 4))
    published = to_published(network)
    spoil(published)
    with pytest.raises(RobustTuneError, match=message):
        from_published(published, network)


def test_published_weights_of_the_other_method() -> None:
    shapes = TowerShape(3, 8, 4), TowerShape(2, 6, 4)
    networks = [MMRLNetwork(settings, *shapes) for settings in VARIATIONS.values()]
    with pytest.raises(
        RobustTuneError, match="it has besides .*residual_rank 2, projection_rank 4, and it has 3 layers"
    ):
        from_published(to_published(networks[1]), networks[0])
    with pytest.raises(RobustTuneError, match="it lacks .*srra.*residual_rank null, projection_rank null"):
        from_published(to_published(networks[0]), networks[1])


@pytest.mark.parametrize("name", ["image_encoder.proj", "text_encoder.ln_final.weight"])
def test_published_weights_of_another_clip(name: str) -> None:
    upper = UpperTower([nn.Identity()], nn.LayerNorm(8), nn.Linear(8, 4, bias=False))  # type: ignore[list-item]
    own = {"image_encoder.proj": upper.projection.weight.T, "text_encoder.ln_final.weight": upper.norm.weight}
    names = mmrl_names(MMRLNetwork(VARIATIONS["MMRL"], upper.shape, upper.shape).state_dict())
    names.refuse_another_clip({key: tensor.detach().half() for key, tensor in own.items()}, upper, upper)
    for other in (own[name] + 0.1, torch.zeros(9)):
        with pytest.raises(RobustTuneError, match=f"was trained on another CLIP .{name} differs."):
            names.refuse_another_clip({f"module.{name}": other}, upper, upper)
