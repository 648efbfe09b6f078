"""MoRA against what the published implementation computed: every choice is read from the golden file."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch
from plain_mora import Kept
from safetensors import safe_open
from torch import Tensor
from torch.nn import functional
from torch.optim import AdamW
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel

from robusttune.encoders import CLIPImageEncoder, CLIPTextEncoder
from robusttune.encoders.adapted_block import AdaptedBlock
from robusttune.encoders.clip import FrozenCLIPImage, FrozenCLIPText
from robusttune.encoders.tokenization import Tokenized
from robusttune.models import LowRankNetwork, MoRA
from robusttune.models.published import mora_names
from robusttune.types import Encoded, Facts, Tokens

FILES = sorted((Path(__file__).parents[1] / "golden").glob("mora_*.safetensors"))
TEXT_MISSING, IMAGE_MISSING = 1, 2


@dataclass
class Case:
    """A CLIP cut into halves, a network on them, and the numbers of the golden file."""

    image: FrozenCLIPImage
    text: FrozenCLIPText
    network: LowRankNetwork
    golden: dict[str, Tensor]
    config: dict[str, Any]

    def of(self, prefix: str) -> dict[str, Tensor]:
        return {name.removeprefix(prefix): t for name, t in self.golden.items() if name.startswith(prefix)}

    def names(self) -> dict[str, str]:
        """Return the published name of each of our tensors."""
        places = mora_names(self.network.state_dict(), self.config["start_layer_index"] + 1).places
        return {place.name: name for name, place in places.items()}

    def load(self) -> None:
        """Load the published weights, and check that they are written as they were."""
        published, own = self.of("adapter."), self.network.state_dict()
        names = mora_names(own, self.config["start_layer_index"] + 1)
        self.network.load_state_dict(names.read(published, own).state)
        written = names.write(self.network.state_dict())
        assert written.keys() == published.keys()
        assert all(torch.equal(written[name], tensor) for name, tensor in published.items())

    def loss(self, logits: Tensor) -> Tensor:
        labels = self.golden["input.labels"]
        if self.config["multi_label"]:
            return functional.binary_cross_entropy_with_logits(logits, labels.float())
        return functional.cross_entropy(logits, labels)

    def encoded(self, cut: bool = True) -> tuple[Encoded, Encoded]:
        """Return the states that enter the adapted layers, of texts cut to the longest, or at full length."""
        ids, end = self.golden["input.input_ids"], self.config["clip_text"]["eos_token_id"]
        last = (ids == end).int().argmax(1)
        length = int(last.max()) + 1 if cut else ids.shape[1]
        mask = torch.arange(length) <= last.unsqueeze(1)
        return (
            self.image.compute(self.golden["input.pixel_values"], False),
            self.text.compute(Tokens(ids[:, :length], mask), False),
        )

    def present(self) -> tuple[Tensor, Tensor]:
        kinds = self.golden["input.missing_type"]
        return kinds != IMAGE_MISSING, kinds != TEXT_MISSING

    def logits(self, encoded: tuple[Encoded, Encoded], present: tuple[Tensor, Tensor] | None = None) -> Tensor:
        everywhere = torch.ones(len(encoded[1]), dtype=torch.bool)
        present = present or (everywhere, everywhere)
        return self.network(*encoded, *present).logits


@cache
def case(path: Path) -> Case:
    with safe_open(path, "pt") as file:
        tensors, config = {key: file.get_tensor(key) for key in file.keys()}, json.loads(file.metadata()["config"])  # noqa: SIM118
    vision, text = config["clip_vision"], config["clip_text"]
    clip = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=config["projection_dim"]))
    clip.load_state_dict({key[5:]: t for key, t in tensors.items() if key.startswith("clip.")}, strict=False)
    side = vision["image_size"]
    encoders: dict[str, Any] = {"first_layer": config["start_layer_index"] + 1}
    with TemporaryDirectory() as folder:
        clip.save_pretrained(folder)
        CLIPImageProcessor(size={"shortest_edge": side}, crop_size={"height": side, "width": side}).save_pretrained(
            folder
        )
        image, texts = CLIPImageEncoder(name=folder, **encoders).load(), CLIPTextEncoder(name=folder, **encoders).load()
    empty = torch.tensor([[text["bos_token_id"], text["eos_token_id"]]])
    tokens = Tokens(empty, torch.ones_like(empty, dtype=torch.bool))
    vars(texts)["prompt_tokenizer"] = lambda _: Tokenized(tokens, [False])  # the golden CLIP has no tokenizer
    normalise = image.normalise
    # The golden images are normalised, and were rounded to float16; so the white one is rounded, too.
    vars(image)["normalise"] = lambda x: x if x.is_floating_point() else normalise(x).half().float()
    settings = MoRA(
        targets=tuple(config["targets"]),
        shared_rank=config["shared_rank"],
        image_rank=config["vision_rank"],
        text_rank=config["text_rank"],
        alpha=config["alpha"],
        dropout=config["dropout"],
    )
    count = config["num_classes"]
    facts = Facts([str(i) for i in range(count)], [1 / count] * count, config["multi_label"])
    network = settings.build_on(image, texts, facts)
    return Case(image, texts, network.eval(), tensors, config)


@pytest.fixture(params=FILES, ids=[path.stem for path in FILES])
def golden(request: pytest.FixtureRequest) -> Case:
    found = case(request.param)
    found.load()
    found.network.eval()
    return found


def close(found: Tensor, expected: Tensor, absolute: float) -> None:
    torch.testing.assert_close(found, expected.to(found.dtype), atol=absolute, rtol=0)


def close_in_norm(found: Tensor, expected: Tensor, relative: float, what: str) -> None:
    assert (found - expected).norm() <= relative * expected.norm() + 1e-12, what


def adapted(golden: Case) -> dict[str, AdaptedBlock]:
    start = golden.config["start_layer_index"]
    return {
        f"{'vision' if tower == 'image' else tower}_model.encoder.layers.{start + number}.self_attn.": layer[tower]  # type: ignore[index]
        for number, layer in enumerate(golden.network.layers)
        for tower in ("image", "text")
    }


def test_weights_are_the_published_ones(golden: Case) -> None:
    found = {f"{name}{p}": w for name, block in adapted(golden).items() for p, w in block.weights().items()}
    expected = golden.of("output.weight.")
    assert found.keys() == expected.keys()
    for name, weight in expected.items():
        close(found[name], weight, 1e-5)


@torch.no_grad()
def test_features_and_logits_are_the_published_ones(golden: Case) -> None:
    image, text = golden.encoded()
    pattern = torch.zeros(len(text), dtype=torch.int64)
    out = golden.of("output.")
    close(golden.network.image_features(image.tokens[0], pattern), out["image_features"], 1e-5)
    close(golden.network.text_features(text.tokens[0], text.mask[0], pattern), out["text_features"], 1e-5)
    for name in ("logits", "logits_merged"):
        close(golden.logits((image, text)), out[name], 1e-5)


@torch.no_grad()
def test_dummies_stand_in_for_absent_modalities(golden: Case) -> None:
    image, text = golden.encoded()
    present = golden.present()
    for encoded, there in ((image, present[0]), (text, present[1])):
        assert not bool(there.all())
        encoded.tokens[0][~there] = float("nan")  # what an absent row holds must not matter
    close(golden.logits((image, text), present), golden.golden["output.logits"], 1e-5)


@torch.no_grad()
def test_dropout_is_the_published_one(golden: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    encoded = golden.encoded(cut=False)
    ends = encoded[1].mask[0].sum(1) - 1
    keeps, seen = golden.of("input.dropout_keep."), 0
    for name, block in adapted(golden).items():
        place = ends if name.startswith("text") else torch.zeros_like(ends)
        for target in golden.config["targets"]:
            kept = Kept(keeps[name + target], golden.config["dropout"], place)
            monkeypatch.setitem(block.dropouts._modules, target, kept)
            seen += 1
    assert seen == len(keeps)
    golden.network.train()
    close(golden.logits(encoded), golden.golden["output.logits_dropout"], 1e-5)


def without_dropout(golden: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """Train without dropout, as the golden steps do."""
    assert golden.config["dropout_in_training_steps"] == 0
    golden.network.train()
    monkeypatch.setattr(golden.network, "drops", False)
    for block in adapted(golden).values():
        for dropout in block.dropouts.values():
            monkeypatch.setattr(dropout, "p", 0.0)


def test_loss_and_gradients_are_the_published_ones(golden: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    without_dropout(golden, monkeypatch)
    golden.network.zero_grad()
    loss = golden.loss(golden.logits(golden.encoded(), golden.present()))
    loss.backward()
    assert float(loss.detach()) == pytest.approx(float(golden.golden["output.loss"]), rel=1e-4)
    expected, names = golden.of("grad."), golden.names()
    for name, parameter in golden.network.named_parameters():
        assert parameter.grad is not None
        close_in_norm(parameter.grad, expected[names[name]], 1e-4, name)


def test_three_steps_are_the_published_ones(golden: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    without_dropout(golden, monkeypatch)
    settings, names = golden.config["optimizer"], golden.names()
    before = {name: parameter.detach().clone() for name, parameter in golden.network.named_parameters()}
    parameters = golden.network.parameters()
    optimizer = AdamW(
        parameters, betas=tuple(settings["betas"]), eps=settings["eps"], weight_decay=settings["weight_decay"]
    )
    encoded, present = golden.encoded(), golden.present()
    for rate, expected in zip(settings["lrs"], golden.golden["output.losses"], strict=True):
        optimizer.zero_grad()
        loss = golden.loss(golden.logits(encoded, present))
        loss.backward()
        assert float(loss.detach()) == pytest.approx(float(expected), rel=1e-4)
        optimizer.param_groups[0]["lr"] = rate
        optimizer.step()
    after = golden.of("adapter_after.")
    for name, parameter in golden.network.named_parameters():
        start = before[name]
        close_in_norm(parameter.detach() - start, after[names[name]] - start, 1e-3, name)
