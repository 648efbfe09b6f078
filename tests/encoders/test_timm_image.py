"""timm encoders: shapes of every family, the right layers, weights from files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from fakes import tiny_image_encoder
from safetensors.torch import save_file
from stand_in_hub import StandInHub

from robusttune.encoders import TimmEncoder
from robusttune.errors import RobustTuneError

IMAGES = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("name", "size", "tokens", "depth"),
    [
        ("test_vit", 64, 1 + 4, 6),  # a class token
        ("test_vit2", 64, 0, 8),
        ("test_resnet", 64, 4, 4),  # a CNN: maps only
        ("test_efficientnet", 64, 4, 5),
        ("deit_tiny_distilled_patch16_224", 64, 2 + 4, 12),  # class and distillation tokens
        ("vit_base_patch16_siglip_224", 64, 4, 12),  # none
    ],
)
def test_families(name: str, size: int, tokens: int, depth: int) -> None:
    small = {"embed_dim": 48, "num_heads": 2} if name.startswith(("deit", "vit")) else {}
    settings = TimmEncoder(name=name, weights="random", layers=2, grid=2, size=size, model_args=small)
    encoder = settings.load()
    encoded = encoder(IMAGES)
    assert encoded.pooled.shape == (2, encoder.widths.pooled)
    assert tuple(t.shape[-1] for t in encoded.tokens) == encoder.widths.layers
    for layer, mask in zip(encoded.tokens, encoded.mask, strict=True):
        assert layer.shape[:2] == mask.shape
        assert not tokens or layer.shape[1] == tokens
        assert mask.all()
    assert encoder.indices[-1] == len(encoder.backbone.feature_info) - 1  # type: ignore[arg-type]


def test_reads_the_layers_asked_for_and_averages_to_the_grid() -> None:
    """Against timm's own hooks on the blocks, pooled by hand."""
    encoder = tiny_image_encoder(layers=[2, 5]).load()
    images = IMAGES[:, :, :32, :32]
    seen = []
    for block in (1, 4):
        encoder.backbone.blocks[block].register_forward_hook(lambda *args: seen.append(args[2]))  # type: ignore[index, union-attr]
    encoded = encoder(images)
    for states, tokens in zip(seen, encoded.tokens, strict=True):
        patches = states[:, 1:]  # 2 x 2 patches of 16 pixels: not larger than the grid
        torch.testing.assert_close(tokens, torch.cat([states[:, :1], patches], 1))
    coarse = tiny_image_encoder(layers=[2, 5], grid=1).load()(images)
    torch.testing.assert_close(coarse.tokens[0][:, 1], seen[0][:, 1:].mean(1))


def test_normalises_with_the_models_own_mean_and_std() -> None:
    encoder = TimmEncoder(name="test_resnet", weights="random", layers=1, size=64).load()
    cfg = timm.get_pretrained_cfg("test_resnet")
    assert cfg is not None
    expected = (IMAGES / 255 - torch.tensor(cfg.mean).view(3, 1, 1)) / torch.tensor(cfg.std).view(3, 1, 1)
    torch.testing.assert_close(encoder.normalise(IMAGES), expected)


@pytest.mark.parametrize(
    ("layers", "depth", "expected"),
    [(4, 12, [3, 6, 9, 12]), (4, 6, [2, 3, 5, 6]), (4, 5, [2, 3, 4, 5]), (1, 12, [12]), ([6, 2], 6, [2, 6])],
)
def test_layer_numbers(layers: Any, depth: int, expected: list[int]) -> None:
    assert tiny_image_encoder(layers=layers).layer_numbers(depth) == expected


@pytest.mark.parametrize("layers", [0, 7, [], [0, 3], [2, 7], [2, 2]])
def test_layers_that_do_not_exist_are_refused(layers: Any) -> None:
    with pytest.raises(RobustTuneError, match="which has 6"):
        tiny_image_encoder(layers=layers).load()


def test_stays_frozen_and_in_eval_mode() -> None:
    encoder = tiny_image_encoder().load()
    encoder.train()
    assert not any(module.training for module in encoder.modules())
    assert not any(p.requires_grad for p in encoder.parameters())


def test_random_weights_and_their_hash_are_always_the_same() -> None:
    torch.manual_seed(1)
    first = tiny_image_encoder().load()
    state = torch.get_rng_state()
    second = tiny_image_encoder().load()
    assert first.sha256 == second.sha256
    assert torch.equal(state, torch.get_rng_state())
    assert tiny_image_encoder(model_args={"depth": 7}).load().sha256 != first.sha256


def test_weights_from_a_file_or_folder_in_half_precision(tmp_path: Path) -> None:
    torch.manual_seed(7)
    model = timm.create_model("test_vit", num_classes=0, img_size=32).half()
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    for weights in (tmp_path, tmp_path / "model.safetensors"):
        encoder = tiny_image_encoder(weights=str(weights)).load()
        assert {p.dtype for p in encoder.parameters()} == {torch.float32}
        for mine, theirs in zip(encoder.backbone.parameters(), model.parameters(), strict=True):
            assert torch.equal(mine, theirs.float())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "vit_bse_patch16_224"}, "did you mean vit_base_patch16_224"),
        ({"weights": "/nowhere/model.safetensors"}, "/nowhere/model.safetensors do not exist"),
        ({"size": 0}, "image size 0"),
        ({"crop": 1.5}, "crop 1.5"),
    ],
)
def test_what_cannot_be_loaded_is_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(RobustTuneError, match=message):
        tiny_image_encoder(**changes).load()


def test_weights_of_another_model_are_refused(tmp_path: Path) -> None:
    save_file(timm.create_model("test_resnet", num_classes=0).state_dict(), tmp_path / "model.safetensors")
    with pytest.raises(RobustTuneError, match=r"weights are missing, first .*: check that it is whole, and fits"):
        tiny_image_encoder(weights=str(tmp_path)).load()


def test_weights_that_are_not_cached_are_named_with_the_way_to_fetch_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(RobustTuneError, match=r"timm/test_vit\.r160_in1k cannot be loaded .* `robusttune prefetch"):
        tiny_image_encoder(weights="pretrained").load()


class Evil:
    """What a hostile pickle would run."""

    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self) -> tuple[Any, ...]:
        return self.proof.touch, ()


def test_weights_are_not_executed(tmp_path: Path) -> None:
    good = timm.create_model("test_vit", num_classes=0).state_dict()
    torch.save(good, tmp_path / "good.bin")
    assert tiny_image_encoder(weights=str(tmp_path / "good.bin")).load()
    torch.save({**good, "more": Evil(tmp_path / "executed")}, tmp_path / "evil.bin")
    with pytest.raises(RobustTuneError, match="evil.bin holds more than tensors, and is not loaded: give"):
        tiny_image_encoder(weights=str(tmp_path / "evil.bin")).load()
    assert not (tmp_path / "executed").exists()


def test_layers_beyond_the_depth_are_not_run() -> None:
    """The layers before it are what they are, and the pooled embedding comes from the last that is run."""
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    whole = tiny_image_encoder(layers=[2, 4]).load()
    short = tiny_image_encoder(layers=[2, 4], depth=4).load()
    assert len(short.backbone.blocks) == 4  # type: ignore[arg-type]
    for one, other in zip(whole(images).tokens, short(images).tokens, strict=True):
        assert torch.equal(one, other)
    assert short(images).pooled.shape == whole(images).pooled.shape
    assert not torch.equal(short(images).pooled, whole(images).pooled)
    assert torch.equal(tiny_image_encoder(layers=[2, 4], depth=6).load()(images).pooled, whole(images).pooled)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"depth": 7}, "depth 7 does not fit 'test_vit', which has 6 layers: give 1 to 6"),
        ({"depth": 4, "layers": [2, 5]}, "do not fit 'test_vit', which has 4"),
        ({"depth": 2, "name": "test_efficientnet"}, "cannot stop after layer 2, which is not as wide as the last"),
    ],
)
def test_a_depth_that_does_not_fit_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(RobustTuneError, match=message):
        tiny_image_encoder(**changes).load()


def save(folder: Path, **config: Any) -> Path:
    """Write a folder as timm's ``save_for_hf`` does."""
    folder.mkdir(parents=True, exist_ok=True)
    model = timm.create_model("test_vit", num_classes=7, **config.get("model_args", {}))
    save_file(model.state_dict(), folder / "model.safetensors")
    cfg = {"input_size": [3, 96, 96], "mean": [0.1, 0.2, 0.3], "fixed_input_size": True, "classifier": "head", "new": 1}
    content = {"architecture": "test_vit", "num_classes": 7, "pretrained_cfg": cfg} | config
    (folder / "config.json").write_text(json.dumps(content))
    return folder


def test_a_folder_is_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = save(tmp_path / "home/models/own", model_args={"img_size": 96, "class_token": True})
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    encoder = TimmEncoder(name="~/models/own", layers=2, grid=2)
    assert encoder.preprocessing().size == 96
    assert encoder.preprocessing().mean == (0.1, 0.2, 0.3)
    one = encoder.load()
    other = TimmEncoder(name="test_vit", weights=str(folder), layers=2, grid=2, size=96).load()
    assert one.sha256 == other.sha256
    assert TimmEncoder(name=str(folder), weights="random").load().sha256 != one.sha256
    assert TimmEncoder(name=str(folder), size=64).load()(IMAGES).pooled.shape == (2, 64)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "has no readable config.json .*: fetch or save it again"),
        ("{", "has no readable config.json .*: fetch or save it again"),
        (
            "[]",
            "is no timm model, its config.json names no architecture: for a model of transformers, use Transformers",
        ),
        ('{"model_type": "vit"}', "is no timm model, its config.json names no architecture"),
        ('{"architecture": "vit_of_2030"}', "has no model 'vit_of_2030', which .* is: install a newer timm"),
        ('{"architecture": "test_vit", "model_args": {"in_chans": 1}}', ".in_chans is 1, and images have 3 channels"),
        ('{"architecture": "test_vit", "model_args": 7}', "has a config.json that cannot be used .*: save it again"),
        ('{"architecture": "test_vit"}', "holds no model.safetensors: set weights to the file itself"),
    ],
)
def test_a_folder_that_is_no_model(content: str | None, message: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(RobustTuneError, match=f"{tmp_path}.*{message}|{message}"):
        TimmEncoder(name=str(tmp_path)).load()
    with pytest.raises(RobustTuneError, match="the encoder folder /no/such does not exist: check the name"):
        TimmEncoder(name="/no/such").load()


def test_the_weights_of_a_folder_run_no_code(tmp_path: Path) -> None:
    folder = save(tmp_path / "own")
    (folder / "model.safetensors").unlink()
    torch.save({"more": Evil(tmp_path / "executed")}, folder / "pytorch_model.bin")
    with pytest.raises(RobustTuneError, match="holds more than tensors, and is not loaded"):
        TimmEncoder(name=str(folder)).load()
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("args", [{"img_size": 64}, {"img_size": [64, 64]}, {"dynamic_img_size": True}])
def test_the_size_of_the_images_is_that_of_the_model(args: dict[str, Any]) -> None:
    size = 64 if "img_size" in args else 160
    encoder = TimmEncoder(name="test_vit", weights="random", layers=1, grid=2, model_args=args)
    assert encoder.preprocessing().size == size
    assert encoder.load().side == size
    assert TimmEncoder(name="test_vit", weights="random", size=64, model_args=args).load().side == 64


def test_other_patches_are_taken_from_the_weights(tmp_path: Path) -> None:
    """timm resamples the weights of patches of another size."""
    folder = save(tmp_path)
    coarse = TimmEncoder(name=str(folder), layers=1, grid=20, size=64, model_args={"patch_size": 32}).load()
    assert coarse(IMAGES).tokens[0].shape[1] == 1 + 2 * 2
    assert TimmEncoder(name=str(folder), layers=1, grid=20, size=64).load()(IMAGES).tokens[0].shape[1] == 1 + 4 * 4


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"size": 96, "model_args": {"img_size": 64}}, "size is 96, and model_args.img_size 64: leave one of them out"),
        ({"model_args": {"img_size": [64, 32]}}, "img_size is .64, 32., and images are squares: give one number"),
        ({"model_args": {"img_size": "64"}}, "img_size is 64, and images are squares: give one number"),
        ({"model_args": {"num_classes": 7}}, "model_args.num_classes is set by this encoder: leave it out"),
        ({"model_args": {"features_only": True}}, "model_args.features_only is set by this encoder: leave it out"),
        ({"model_args": {"checkpoint_path": "a"}}, "model_args.checkpoint_path is set by this encoder"),
        ({"model_args": {"in_chans": 1}}, "in_chans is 1, and images have 3 channels"),
        ({"size": 70}, "has patches of 16 pixels, which do not fit images of 70: set image_encoder.size to a multiple"),
        ({"model_args": {"patch_size": 15}}, "has patches of 15 pixels, which do not fit images of 160"),
        ({"model_args": {"colour": 1}}, "cannot be made .*unexpected keyword argument 'colour'.: correct model_args"),
        ({"name": "test_resnet", "model_args": {"img_size": 64}}, "cannot be made .*img_size.*: correct model_args"),
        ({"name": "someone/vit"}, "timm has no model 'someone/vit': .*hf-hub:someone/vit if it is a repository"),
        ({"name": "hf-hub:timm/vit@main"}, "name has a revision, 'timm/vit@main': set image_encoder.revision to it"),
    ],
)
def test_inputs_that_the_model_does_not_take(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(RobustTuneError, match=message):
        TimmEncoder(**{"name": "test_vit", "weights": "random"} | settings).load()


@pytest.mark.exhaustive
def test_models_of_the_hub(tmp_path: Path) -> None:
    """Weights, revisions and hashes, and the sentence without a network; in processes of their own."""
    first, second = save(tmp_path / "one"), save(tmp_path / "two", num_classes=5)
    code = """
import json, sys
from robusttune.encoders import TimmEncoder
from robusttune.errors import RobustTuneError
for revision in sys.argv[1:]:
    try:
        encoder = TimmEncoder(name="hf-hub:someone/vit", revision=revision or None, layers=1)
        print(json.dumps([encoder.load().sha256, encoder.preprocessing().size]))
    except RobustTuneError as error:
        print(json.dumps(str(error)))
"""
    with StandInHub() as hub:
        old = hub.add("models", "someone/vit", first)
        hub.add("models", "someone/vit", second)

        def load(*revisions: str, **more: str) -> list[Any]:
            environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
            environment |= hub.environment(tmp_path / "home") | more
            run = [sys.executable, "-c", code, *revisions]
            done = subprocess.run(run, env=environment, capture_output=True, text=True, check=True, timeout=300)
            return [json.loads(line) for line in done.stdout.splitlines()]

        online = load("", old, "no-such-branch")
        offline = load("", old, "no-such-branch", HF_HUB_OFFLINE="1")
    expected = [[TimmEncoder(name=str(folder), layers=1).load().sha256, 96] for folder in (second, first)]
    assert online[:2] == offline[:2] == expected
    assert online[2].startswith("someone/vit cannot be loaded (")
    assert "check its name and revision, and the network" in online[2]
    assert offline[2].startswith("someone/vit cannot be loaded (")
    assert "run `robusttune prefetch --config ...`" in offline[2]
