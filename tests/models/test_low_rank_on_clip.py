"""LoRA and MoRA on CLIP's towers against a reference without shortcuts, and what their settings do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from fakes import write_clip
from plain_mora import Kept, PlainAdapted, rewritten
from torch import Tensor, nn
from torch.nn import functional
from transformers import CLIPModel, CLIPTextConfig, CLIPVisionConfig
from transformers.models.clip.modeling_clip import CLIPEncoderLayer

from robusttune.encoders import CLIPImageEncoder, CLIPTextEncoder
from robusttune.encoders.blocks import Block
from robusttune.encoders.clip import FrozenCLIPImage, FrozenCLIPText
from robusttune.encoders.tokenization import Tokenizer
from robusttune.encoders.upper_tower import UpperTower
from robusttune.errors import RobustTuneError
from robusttune.models import LoRA, LowRankNetwork, MoRA
from robusttune.models.low_rank import LowRankModel, Projection
from robusttune.models.published import mora_names
from robusttune.types import Encoded, Facts

FACTS = Facts([*"abcdefg"], [0.3] * 7, multilabel=True)
END, CONTEXT, FIRST_LAYER = 1, 16, 2
TEXTS = ["a photo of pie", "soup " * 30, "", "a cat", "pie " * 14, "cake " * 13, "a", "photo of a pug"]
MISSING_TEXT, MISSING_IMAGE = (2, 6), (1, 3)
SETTINGS: dict[str, LowRankModel] = {
    "MoRA": MoRA(("k_proj", "v_proj", "out_proj"), 0.3, shared_rank=3, image_rank=5, text_rank=2, alpha=0.05),
    "MoRA, queries and keys": MoRA(("q_proj", "k_proj"), 0.3, shared_rank=4, image_rank=4, text_rank=4, alpha=0.1),
    "LoRA": LoRA(("q_proj", "v_proj"), 0.3, rank=3, alpha=2.0),
    "LoRA, all": LoRA(("out_proj", "k_proj", "v_proj", "q_proj"), 0.3, rank=2, alpha=1.0),
}


@dataclass
class Case:
    """A CLIP with 4 image layers and 3 text layers, its towers from the second layer on, and inputs."""

    clip: Any
    image: FrozenCLIPImage
    text: FrozenCLIPText
    tokenizer: Tokenizer
    pixels: Tensor
    label: Tensor

    def present(self) -> tuple[Tensor, Tensor]:
        rows = range(len(TEXTS))
        return tuple(torch.tensor([row not in lost for row in rows]) for lost in (MISSING_IMAGE, MISSING_TEXT))  # type: ignore[return-value]

    def encoded(self) -> tuple[Encoded, Encoded]:
        image, text = self.present()
        texts = [text for row, text in enumerate(TEXTS) if row not in MISSING_TEXT]
        tokens = self.tokenizer(texts).tokens
        return self.image.encode(self.pixels[image], image, False), self.text.encode(tokens, text, False)

    def plain_inputs(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return the inputs of the published code: white images, empty texts, and texts at full length, rewritten."""
        image, text = self.present()
        pixels = torch.where(image.view(-1, 1, 1, 1), self.pixels, 255)
        tokens = self.text.prompt_tokenizer([words if there else "" for words, there in zip(TEXTS, text, strict=True)])
        ids, mask = tokens.tokens.input_ids, tokens.tokens.attention_mask
        assert ids.shape[1] == CONTEXT
        ids = rewritten(ids.masked_fill(~mask, END), END, END)
        return self.image.normalise(pixels), ids, mask


@cache
def case() -> Case:
    with TemporaryDirectory() as folder:
        write_clip(Path(folder), text_layers=3)
        # One token less than the tower takes: the same as the published change of texts that fill it.
        text = CLIPTextEncoder(name=folder, first_layer=FIRST_LAYER, max_length=CONTEXT - 1).load()
        image = CLIPImageEncoder(name=folder, first_layer=FIRST_LAYER).load()
        tokenizer = text.settings.tokenizer()
        clip = CLIPModel.from_pretrained(folder, attn_implementation="eager").eval()
        assert text.prompt_tokenizer([""]).tokens.input_ids.tolist() == [[0, END]]
    random = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (len(TEXTS), 3, 32, 32), generator=random, dtype=torch.uint8)
    label = torch.randint(2, (len(TEXTS), len(FACTS.class_names)), generator=random).float()
    return Case(clip, image, text, tokenizer, pixels, label)


def built(settings: LowRankModel) -> LowRankNetwork:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = settings.build_on(case().image, case().text, FACTS)
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.add_(0.2 * torch.randn_like(parameter))
    return network.eval()


def plain_of(settings: LowRankModel, network: LowRankNetwork) -> tuple[PlainAdapted, dict[str, Tensor]]:
    """Return the reference with the network's weights, and these by our names."""
    places = mora_names(network.state_dict(), FIRST_LAYER).places
    names = {place.name: name for name, place in places.items()}
    ours = {name: p.detach().clone().requires_grad_() for name, p in network.named_parameters()}
    scale = settings.alpha / settings.rank if isinstance(settings, LoRA) else settings.alpha  # type: ignore[attr-defined]
    return PlainAdapted(case().clip, {names[name]: t for name, t in ours.items()}, scale), ours


@pytest.fixture(params=SETTINGS)
def settings(request: pytest.FixtureRequest) -> LowRankModel:
    return SETTINGS[request.param]


def close(found: Tensor, expected: Tensor, absolute: float = 2e-5) -> None:
    torch.testing.assert_close(found, expected, atol=absolute, rtol=1e-4)


def test_logits_and_gradients_equal_those_without_shortcuts(settings: LowRankModel) -> None:
    network = built(replace(settings, dropout=0.0)).train()
    plain, tensors = plain_of(settings, network)
    assert len(plain.projections) == 2 * 2 * len(settings.targets)  # the fourth image layer has no text layer
    logits = network(*case().encoded(), *case().present()).logits
    expected = plain(*case().plain_inputs())
    close(logits, expected)
    for found in (logits, expected):
        functional.binary_cross_entropy_with_logits(found, case().label).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None
        gradient = tensors[name].grad
        assert gradient is not None
        close(parameter.grad, gradient, 1e-6)


@torch.no_grad()
def test_dropout_has_an_own_mask_for_each_projection_and_each_dummy(settings: LowRankModel) -> None:
    network, (image, text) = built(settings), case().encoded()
    plain, _ = plain_of(settings, network)
    places = torch.tensor([max(2, int(n)) - 1 for n in torch.where(case().present()[1], text.mask[0].sum(1), 2)])
    random = torch.Generator().manual_seed(1)
    orders = rows_of_pairs(*case().present())
    for path, projection in plain.projections.items():
        tower, layer, target = (
            ("text" if path.startswith("text") else "image"),
            int(path.split(".")[3]),
            path.split(".")[-1],
        )
        count = CONTEXT if tower == "text" else image.tokens[0].shape[1]
        keep = (torch.rand(len(TEXTS), count, projection.linear.in_features, generator=random) > 0.3).float()
        ends = places if tower == "text" else torch.zeros_like(places)
        projection.dropout = Kept(keep, 0.3, ends)
        order = orders[tower == "text"]
        block = network.layers[layer - FIRST_LAYER + 1][tower]  # type: ignore[index]
        block.dropouts[target] = Kept(keep[order], 0.3, ends[order])
    close(network.train()(image, text, *case().present()).logits, plain(*case().plain_inputs()))


def rows_of_pairs(*present: Tensor) -> list[list[int]]:
    """Return for each tower the order in which it runs the samples: those with the modality, then the dummies."""
    return [[*there.nonzero().flatten().tolist(), *(~there).nonzero().flatten().tolist()] for there in present]


@torch.no_grad()
def test_without_dropout_absent_images_are_one_image_and_absent_texts_one_text(monkeypatch: pytest.MonkeyPatch) -> None:
    network, (image, text) = built(SETTINGS["MoRA"]), case().encoded()
    expected = network(image, text, *case().present()).logits
    counts = {}
    for name in ("image_features", "text_features"):
        own = getattr(network, name)

        def counting(states: Tensor, *others: Tensor, name: str = name, own: Callable[..., Tensor] = own) -> Tensor:
            counts[name] = len(states)
            return own(states, *others)

        monkeypatch.setattr(network, name, counting)
    close(network(image, text, *case().present()).logits, expected)
    assert counts == {"image_features": len(TEXTS) - 1, "text_features": len(TEXTS) - 1}
    rows = torch.arange(len(TEXTS)).repeat(3)
    everywhere = torch.ones(len(rows), dtype=torch.bool)
    lost = torch.arange(len(rows)) < len(TEXTS)
    fused = network.forward_pairs(image, text, rows, rows, ~lost, everywhere)
    assert counts["text_features"] == len(TEXTS)  # no dummy, and one run for all patterns
    assert counts["image_features"] == len(TEXTS) + 1
    close(fused.logits[: len(TEXTS)], network(image, text, ~everywhere[: len(TEXTS)], everywhere[: len(TEXTS)]).logits)


@torch.no_grad()
def test_values_in_absent_rows_do_not_matter() -> None:
    network, (image, text) = built(SETTINGS["MoRA"]), case().encoded()
    expected = network(image, text, *case().present()).logits
    for encoded, there in zip((image, text), case().present(), strict=True):
        encoded.tokens[0][~there] = float("nan")
    assert torch.equal(network(image, text, *case().present()).logits, expected)


@torch.no_grad()
def test_samples_without_any_input_get_the_class_frequencies() -> None:
    network, nothing = built(SETTINGS["LoRA"]), torch.zeros(2, dtype=torch.bool)
    empty = case().image.encode(case().pixels[:0], nothing), case().text.encode(case().tokenizer([]).tokens, nothing)
    close(network(*empty, nothing, nothing).logits.sigmoid(), torch.full((2, 7), 0.3))


@torch.no_grad()
def test_zeros_in_place_of_dummies_skip_the_tower() -> None:
    settings = replace(SETTINGS["MoRA"], absent="zeros")
    network, (image, text) = built(settings), case().encoded()
    present = case().present()
    pattern = torch.zeros(len(TEXTS), dtype=torch.int64)
    features = (
        network.image_features(image.tokens[0], pattern),
        network.text_features(text.tokens[0], text.mask[0], pattern),
    )
    shown = torch.cat([torch.where(there.unsqueeze(1), f, 0.0) for f, there in zip(features, present, strict=True)], 1)
    close(network(image, text, *present).logits, functional.linear(shown, network.head.weight, network.head.bias))  # type: ignore[arg-type]
    assert not any(name.endswith("dummy") for name, _ in network.named_buffers())


def test_in_training_each_dummy_has_a_dropout_mask_of_its_own() -> None:
    network, everywhere = built(SETTINGS["LoRA"]).train(), torch.ones(3, dtype=torch.bool)
    text = case().text.encode(case().tokenizer(["a cat"] * 3).tokens, everywhere, False)
    image = case().image.encode(case().pixels[:0], ~everywhere, False)
    network.layers[0]["text"].eval()  # type: ignore[index]
    network.layers[1]["text"].eval()  # type: ignore[index]
    first, second, third = network(image, text, ~everywhere, everywhere).logits
    assert not torch.allclose(first, second)
    assert not torch.allclose(second, third)


@pytest.mark.parametrize("near_clip", [False, True])
def test_start(near_clip: bool) -> None:
    torch.manual_seed(0)
    settings = MoRA(("q_proj", "v_proj"), shared_rank=4, image_rank=2, text_rank=2, alpha=0.1, near_clip=near_clip)
    network = settings.build_on(case().image, case().text, FACTS)
    distances = []
    for layer in network.layers:
        for tower in ("image", "text"):
            block = layer[tower]  # type: ignore[index]
            for name, weight in block.weights().items():
                frozen = block.block.weight(name)
                distances.append(((weight - frozen).norm() / frozen.norm()).item())
                assert torch.equal(block.adapters[name].b, torch.zeros_like(block.adapters[name].b))
    assert max(distances) < 0.01 if near_clip else min(distances) > 0.5
    network(*case().encoded(), *case().present()).logits.square().sum().backward()
    for layer in network.layers:  # an exact start at CLIP would leave the shared update without a gradient for ever
        assert all(float(p.grad.norm()) > 0 for p in layer["shared"].parameters())  # type: ignore[index]


def test_lora_starts_at_clip() -> None:
    network = SETTINGS["LoRA, all"].build_on(case().image, case().text, FACTS)
    block = network.layers[0]["image"]  # type: ignore[index]
    assert all(torch.equal(weight, block.block.weight(name)) for name, weight in block.weights().items())


PUBLISHED: dict[
    str, tuple[int, tuple[Projection, ...], int, int]
] = {  # ranks, targets, classes, and the number of trained parameters
    "MM-IMDb": (4, ("q_proj", "k_proj"), 23, 85_015),
    "Food-101": (4, ("q_proj", "v_proj"), 101, 164_965),
    "Hateful Memes": (8, ("k_proj", "v_proj"), 2, 114_690),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameter_counts_are_the_published_ones(name: str) -> None:
    rank, targets, classes, count = PUBLISHED[name]
    settings = MoRA(targets, shared_rank=rank, image_rank=rank, text_rank=rank, absent="zeros")
    facts = Facts([str(number) for number in range(classes)], [1 / classes] * classes, multilabel=False)
    network = LowRankNetwork(settings, vit_b_16(), facts)
    assert sum(parameter.numel() for parameter in network.parameters()) == count


@cache
def vit_b_16() -> Any:
    """Return the last two layers of towers of ViT-B/16's sizes, with random weights."""
    towers = []
    for config in (CLIPVisionConfig(hidden_size=768, intermediate_size=3072, num_attention_heads=12), CLIPTextConfig()):
        blocks = [Block(CLIPEncoderLayer(config)) for _ in range(2)]
        projection = nn.Linear(config.hidden_size, 512, bias=False)
        towers.append(SimpleNamespace(upper=UpperTower(blocks, nn.LayerNorm(config.hidden_size), projection)))
    return SimpleNamespace(image=towers[0], text=towers[1])


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"targets": ()}, "give some of q_proj, k_proj, v_proj, out_proj"),
        ({"targets": ("q_proj", "fc1")}, "give some of q_proj, k_proj, v_proj, out_proj"),
        ({"targets": ("q_proj", "q_proj")}, "each once"),
        ({"dropout": 1.0}, r"share in \[0, 1\)"),
        ({"text_rank": 0}, "text_rank is 0: give at least 1"),
    ],
)
def test_wrong_settings(change: dict[str, Any], sentence: str) -> None:
    with pytest.raises(RobustTuneError, match=sentence):
        MoRA(**change)


def test_towers_that_share_no_adapted_layer_are_refused() -> None:
    with TemporaryDirectory() as folder:
        write_clip(Path(folder), text_layers=3)
        second, fourth = (CLIPImageEncoder(name=folder, first_layer=first).load() for first in (2, 4))
        text = CLIPTextEncoder(name=folder, first_layer=4).load()
    for image, sentence in (
        (second, "first_layer is 2 in image_encoder, 4 in text_encoder"),
        (fourth, "that both have"),
    ):
        with pytest.raises(RobustTuneError, match=sentence):
            LoRA().build_on(image, text, FACTS)
