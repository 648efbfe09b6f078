"""DCP and DPL against a plain implementation, in configurations that no golden file has, and each shortcut alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from clip_cases import OPTIMIZERS, Case, Samples, assert_near, made_up, optimizer_of, prototypes_of
from plain_dcp import plain_dynamic, plain_forward, plain_loss, plain_margin, plain_prompts
from torch import Tensor, nn

from robusttune.encoders import CLIPImageEncoder, CLIPTextEncoder, TimmEncoder
from robusttune.errors import RobustTuneError
from robusttune.models import DCP, DPL, Balance, FusionClassifier, Prototypes
from robusttune.models.prototypes import PrototypeHead
from robusttune.models.published import dcp_names
from robusttune.models.runner import Runner
from robusttune.types import Facts

ADAMW = {"optimizer": {"lr": 0.01, "weight_decay": 0.02, "betas": [0.9, 0.98], "eps": 1e-8}}
SHAPE = {"vision_layers": 3, "text_layers": 3}
HEAD: dict[str, Any] = {"arc_s": 32.0, "arc_s_tm": 24.0, "arc_s_im": 16.0, "arc_m": 0.15, "arc_m_tm": 0.25}
HEAD |= {"arc_m_im": 2.0, "setting": "both", "contrastive_form": "joint", "contrast_coef": 0.9}
HEAD |= {"contrast_temp": 0.1, "contrast_temp_base": 0.07, "contrast_mode": "one"}
PAIRS: dict[str, Any] = {
    "contrast_coef_mintra": 0.7,
    "contrast_coef_minter_pintra": 0.5,
    "contrast_coef_minter_pinter": 0.3,
}
PAIRS |= {"contrastive_form": "pairwise", "contrast_mode": "all", "setting": "text"}
CASES: dict[str, tuple[dict[str, Any], int, bool]] = {  # configuration, classes, several labels
    "prompts in all layers, 4 and 3, several labels": (
        {"vision_layers": 4, "text_layers": 3, "prompt_length": 9, "prompt_depth": 3},
        5,
        True,
    ),
    "prompts in the first layer": ({**SHAPE, "prompt_length": 3, "prompt_depth": 1}, 3, False),
    "fewer image layers, all with prompts": (
        {"vision_layers": 2, "text_layers": 4, "prompt_length": 6, "prompt_depth": 2},
        3,
        False,
    ),
    "one layer": ({"vision_layers": 1, "text_layers": 1, "prompt_length": 6, "prompt_depth": 1}, 3, False),
    "prototypes, several labels": ({**SHAPE, **HEAD}, 5, True),
    "prototypes in pairs": ({**SHAPE, **HEAD, **PAIRS}, 3, False),
    "prototypes on prompts": ({**SHAPE, **HEAD, "prompt_length": 6, "prompt_depth": 2, "setting": "image"}, 2, False),
}
NAMES = sorted(CASES)


def case_of(name: str) -> tuple[Case, Samples]:
    config, classes, several = CASES[name]
    return made_up({**ADAMW, **config}, classes, several)


def plain_of(case: Case, samples: Samples) -> tuple[Any, dict[str, nn.Parameter]]:
    """Plain pass, and the weights that it depends on."""
    weights = {name: nn.Parameter(tensor) for name, tensor in case.published().items()}
    sizes = case.config.get("prompt_length", 0), case.config.get("prompt_depth", 0)
    return plain_forward(case.clip, weights, samples.pixels, samples.ids, samples.missing, *sizes), weights


def close(found: Tensor, expected: Tensor, absolute: float) -> None:
    torch.testing.assert_close(found, expected, atol=absolute, rtol=0)


@pytest.mark.parametrize("name", NAMES)
def test_one_pass_is_the_plain_one(name: str) -> None:
    """Features, also of modalities that are to be replaced by zeros, logits, loss and gradients."""
    case, samples = case_of(name)
    plain, weights = plain_of(case, samples)
    (image, text), network = case.encode(samples), case.network
    close(network.image_features(image.tokens[0], samples.missing), plain.image, 1e-5)
    close(network.text_features(text.tokens[0], text.mask[0], samples.missing), plain.text, 1e-5)
    logits = case.logits(samples)
    close(logits, plain.logits, 2e-5)
    loss, expected = (
        case.loss(samples, logits),
        plain_loss(weights, plain.logits, samples.label, samples.missing, case.config),
    )
    assert loss.item() == pytest.approx(expected.item(), rel=1e-4)
    loss.backward()
    expected.backward()
    found = case.gradients()
    gradients = {name: weights[name].grad for name in found}
    assert_near(found, {n: torch.zeros_like(found[n]) if g is None else g for n, g in gradients.items()}, 1e-4)


@pytest.mark.parametrize(
    ("name", "kind"),
    zip(["prompts in all layers, 4 and 3, several labels", "prototypes on prompts"], OPTIMIZERS, strict=True),
)
def test_three_steps_are_the_plain_ones(name: str, kind: str) -> None:
    case, samples = case_of(name)
    before, (_, weights) = case.published(), plain_of(case, samples)
    plain = nn.Module()
    for key, weight in weights.items():
        if "prompts_dynamic" not in key:
            plain.register_parameter(key.replace(".", "/"), weight)
    sizes = case.config["prompt_length"], case.config["prompt_depth"]
    ours, theirs = (optimizer_of(module, case.config, kind) for module in (case.network, plain))
    for _ in range(3):
        ours.zero_grad()
        theirs.zero_grad()
        case.loss(samples).backward()
        out = plain_forward(case.clip, weights, samples.pixels, samples.ids, samples.missing, *sizes)
        plain_loss(weights, out.logits, samples.label, samples.missing, case.config).backward()
        ours.step()
        theirs.step()
    after = case.published()
    assert_near(
        {name: after[name] - before[name] for name in after},
        {name: weights[name].detach() - before[name] for name in after},
        1e-3,
    )


def test_prompts_of_a_pattern_are_those_of_each_sample() -> None:
    case, samples = case_of("prompts in all layers, 4 and 3, several labels")
    weights, network = case.published(), case.network
    prompts: Any = network.prompts()  # type: ignore[operator]
    image, text = case.encode(samples, longest=12)
    for row, pattern in enumerate(samples.missing.tolist()):
        layers, common = plain_prompts(weights, pattern, depth=3)
        for modality, found in enumerate(prompts):
            close(found.common[pattern], common[modality], 1e-5)
            for layer, expected in enumerate(layers):
                close(found.correlated[layer, pattern], expected[modality], 1e-5)
        for name, states in (("image", image), ("text", text)):
            dynamic = getattr(network, f"{name}_dynamic")(states.tokens[0], samples.missing)
            close(dynamic[row], plain_dynamic(weights, name, states.tokens[0][row], pattern), 1e-5)


@pytest.mark.parametrize("name", ["prompts in the first layer", "prototypes on prompts", "prototypes in pairs"])
def test_what_is_in_the_place_of_an_absent_modality_changes_no_bit(name: str) -> None:
    """Its tower does not run."""
    found = []
    case, samples = case_of(name)
    for spoil in (0.0, float("nan")):
        image, text = case.encode(samples)
        image.tokens[0][samples.missing == 2] += spoil
        text.tokens[0][samples.missing == 1] += spoil
        text.mask[0][samples.missing == 1] = spoil == 0.0
        case.network.zero_grad()
        logits = case.network(image, text, *samples.present).logits
        case.loss(samples, logits).backward()
        found.append([logits, *case.gradients().values()])
    assert all(torch.equal(*both) for both in zip(*found, strict=True))


def test_only_the_present_rows_of_a_tower_run(monkeypatch: pytest.MonkeyPatch) -> None:
    case, samples = case_of("prompts in the first layer")
    rows: dict[str, int] = {}
    for modality in ("image", "text"):
        run = getattr(case.network, f"{modality}_features")

        def count(states: Tensor, *given: Tensor, run: Any = run, modality: str = modality) -> Tensor:
            rows[modality] = len(states)
            features: Tensor = run(states, *given)
            return features

        monkeypatch.setattr(case.network, f"{modality}_features", count)
    case.logits(samples)
    assert rows == {"image": 6, "text": 6}


@pytest.mark.parametrize("name", ["prompts in the first layer", "prototypes in pairs"])
def test_texts_of_any_padding_are_the_same(name: str) -> None:
    """The dynamic prompts see padding up to the full length, however a batch is cut."""
    case, samples = case_of(name)
    short, full = (case.encode(samples, longest) for longest in (None, 12))
    assert short[1].tokens[0].shape[1] < 12 or name.startswith("prototypes")
    close(case.network(*short, *samples.present).logits, case.network(*full, *samples.present).logits, 2e-6)


def test_recomputed_activations_change_nothing() -> None:
    case, samples = case_of("prompts in all layers, 4 and 3, several labels")
    found = []
    for runner in (Runner(), Runner(checkpoint_activations=True)):
        case.network.run = runner
        case.network.zero_grad()
        case.loss(samples).backward()
        found.append(case.gradients())
    assert_near(found[1], found[0], 1e-6)


def test_pairs_of_all_patterns_equal_single_passes() -> None:
    """Views of the same inputs run each image and text once for each pattern."""
    case, samples = case_of("prototypes on prompts")
    image, text = case.encode(samples)
    rows = torch.arange(9).repeat(3)
    on, off = torch.ones(9, dtype=torch.bool), torch.zeros(9, dtype=torch.bool)
    images_used, texts_used = torch.cat([on, on, off]), torch.cat([on, off, on])
    found = case.network.forward_pairs(image, text, rows, rows, images_used, texts_used).logits
    for part, present in zip(found.chunk(3), ((on, on), (on, off), (off, on)), strict=True):
        close(part, case.network(image, text, *present).logits, 2e-6)


@pytest.mark.parametrize("name", ["prompts in the first layer", "prototypes on prompts", "prototypes, several labels"])
@pytest.mark.parametrize("modality", ["image", "text", "neither"])
def test_each_parameter_has_a_finite_gradient_whatever_a_batch_lacks(name: str, modality: str) -> None:
    """Also in half precision; otherwise parallel training would wait, or learn NaN."""
    case, samples = case_of(name)
    image, text = case.encode(samples)
    images, texts = (torch.full((9,), modality == which) for which in ("image", "text"))
    for half in (False, True):
        case.network.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=half):
            logits = case.network(image, text, images, texts).logits
            logits = case.network.training_logits(logits, samples.label, images, texts)
            (logits.float().sum() + sum(case.network.extra_losses().values())).backward()
        assert all(gradient.isfinite().all() for gradient in case.gradients().values())
        if modality == "neither":
            close(logits.float(), case.network.log_prior.expand(9, -1), 0.05 if half else 0)


def test_a_margin_of_a_label_at_its_prototype_has_a_finite_gradient() -> None:
    """There, and at the opposite direction, the slope of the root is infinite."""
    case, _ = case_of("prototypes in pairs")
    cosine = torch.tensor([[1.0, -1.0, 0.3], [-1.0, 1.0, 0.5]], requires_grad=True)
    present = torch.ones(2, dtype=torch.bool)
    logits = case.network.training_logits(cosine, torch.tensor([0, 0]), present, present)
    logits.sum().backward()
    assert cosine.grad is not None
    assert cosine.grad.isfinite().all()
    hot = torch.tensor([[1, 0, 0], [1, 0, 0]])
    close(logits, plain_margin(cosine.detach(), hot, torch.zeros(2, dtype=torch.int64), case.config), 0.01)


def test_untrained_prototypes_are_shared_or_random() -> None:
    """With images that are never missing in training, texts alone are random, unless they share the prototypes."""
    case, samples = case_of("prototypes in pairs")
    absent, present = torch.zeros(9, dtype=torch.bool), torch.ones(9, dtype=torch.bool)
    image, text = case.encode(samples)
    for share in (False, True):
        settings = prototypes_of(case.config, missing="text", share_untrained=share)
        case.network.head = head = PrototypeHead(settings, 24, 3)
        logits = case.network(image, text, absent, present).logits
        logits.square().sum().backward()
        used = head.prototypes.grad.flatten(1).norm(dim=1) > 0  # type: ignore[union-attr]
        assert used.tolist() == [False, False, share, not share]


@pytest.mark.parametrize("name", ["prompts in all layers, 4 and 3, several labels", "prototypes in pairs"])
def test_published_names_there_and_back(name: str) -> None:
    case, _ = case_of(name)
    own = case.network.state_dict()
    published = dcp_names(own, "hatememes").write(own)
    frozen = {"model.text_encoder.text_projection": torch.zeros(32, 24), "model.logit_scale": torch.zeros(())}
    for prefix in ("", "module."):
        given = {prefix + name: tensor for name, tensor in (published | frozen).items()}
        matched = dcp_names(own).read(given, {key: torch.zeros_like(tensor) for key, tensor in own.items()})
        assert matched.set_aside == sorted(frozen)
        assert not matched.left
        read = {key: tensor for key, tensor in matched.state.items() if key != "log_prior"}
        assert all(torch.equal(tensor, own[key]) for key, tensor in read.items())
    with pytest.raises(RobustTuneError, match=r"on another CLIP \(model.text_encoder.text_projection differs\)"):
        dcp_names(own).refuse_another_clip(frozen, case.image.upper, case.text.upper)
    dcp_names(own).refuse_another_clip({"model.image_encoder.proj": torch.zeros(1)}, case.image.upper, case.text.upper)


def test_published_weights_that_do_not_fit() -> None:
    case, _ = case_of("prompts in the first layer")
    other, _ = case_of("prompts in all layers, 4 and 3, several labels")
    message = (
        r"it has besides .*: set model.fusion, .*\(it is of DCP, its head is linear of 5 classes, prompts 9, depth 3\)"
    )
    with pytest.raises(RobustTuneError, match=message):
        case.names.read(other.published(), case.network.state_dict())
    other, _ = case_of("prototypes in pairs")
    with pytest.raises(RobustTuneError, match=r"it lacks .*it is of DPL, its head has prototypes of 3 classes"):
        case.names.read(other.published(), case.network.state_dict())
    matched = case.names.read(
        {name: tensor for name, tensor in case.published().items() if "dynamic" not in name}, case.network.state_dict()
    )
    assert matched.left == ["image_dynamic.queries", "text_dynamic.queries"]


CLIP: dict[str, Any] = {"name": "robusttune:demo_clip", "weights": "random"}
FACTS = Facts(["cat", "dog"], [0.5, 0.5], False)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: DCP(prompts=8), "model.fusion.prompts is 8: give a multiple of 3"),
        (lambda: DCP(depth=0), "model.fusion.depth is 0: give at least 1"),
        (lambda: built(DCP(depth=5), 1), "model.fusion.depth is 5, and a tower has 4 layers: give 1 to 4"),
        (lambda: built(DCP(depth=2), 2), "set image_encoder.first_layer and text_encoder.first_layer to 1"),
        (lambda: built(DPL(), 2), "DPL changes no layer: set image_encoder.first_layer to 5, one more than"),
        (
            lambda: built(DPL(), 5, TimmEncoder(name="test_vit", weights="random")),
            "DPL adapts the towers of a CLIP: set",
        ),
        (lambda: built(DPL(), 5, balance=Balance(post_hoc=1.0)), "are cosines, .*: use model.balance.logit_adjustment"),
        (lambda: Prototypes(margin=(0.1, 4.0, 0.1)), "prototypes.margin has the value 4.0: give 0 to pi"),
        (lambda: Prototypes(scale=(0.0, 1.0, 1.0)), "prototypes.scale has the value 0.0: give more than 0"),
        (lambda: Prototypes(contrast=float("nan")), "prototypes.contrast has the value nan: give at least 0"),
        (lambda: Prototypes(pairwise=(1.0, 0.0, 0.0)), "two forms of one loss: set contrast to 0, or leave pairwise"),
    ],
)
def test_settings_that_do_not_work(build: Any, message: str) -> None:
    with pytest.raises(RobustTuneError, match=message):
        build()


def built(settings: DCP | DPL, first_layer: int, image: Any = None, **more: Any) -> FusionClassifier:
    towers = CLIPImageEncoder(**CLIP, first_layer=first_layer), CLIPTextEncoder(**CLIP, first_layer=first_layer)
    return FusionClassifier(image or towers[0], towers[1], FACTS, settings, **more)


def test_starts_as_published() -> None:
    """Maps of all layers alike, outputs from CLIP's own, small prompts, prototypes of Xavier's deviation."""
    towers = CLIPImageEncoder(**CLIP, first_layer=1).load(), CLIPTextEncoder(**CLIP, first_layer=1).load()
    facts = Facts([str(number) for number in range(50)], [0.02] * 50, False)
    network: Any = DCP(30, 4, prototypes=Prototypes()).build_on(*towers, facts)
    for maps in (network.prompts.image_maps, network.prompts.text_maps):
        first = maps[0].state_dict()
        assert all(torch.equal(t, first[name]) for each in maps for name, t in each.state_dict().items())
    assert torch.equal(network.image_output.projection, towers[0].upper.projection.weight)
    assert torch.equal(network.text_output.norm.weight, towers[1].upper.norm.weight)
    parts = (network.prompts.common, network.prompts.image_start, network.image_dynamic.queries)
    assert [part.std().item() for part in parts] == pytest.approx([0.02] * 3, rel=0.1)
    assert network.head.prototypes.std().item() == pytest.approx((2 / 178) ** 0.5, rel=0.05)
    attention = network.text_dynamic.attention
    assert attention.out_proj.weight.abs().max().item() == pytest.approx(128**-0.5, rel=0.01)
    assert not attention.in_proj_bias.any()
    assert not any(
        parameter is own for own in network.parameters() for tower in towers for parameter in tower.parameters()
    )
    linear: Any = DCP(30, 4).build_on(*towers, facts)
    assert not linear.head.bias.any()
    assert linear.head.weight.std().item() == pytest.approx(0.02, rel=0.1)
    assert len([name for name, _ in DCP(30, 4, train_queries=True).build_on(*towers, facts).named_parameters()]) == (
        len([*linear.parameters()]) + 2
    )
