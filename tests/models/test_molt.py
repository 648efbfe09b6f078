"""MoLT: shapes, what may and what must not matter, gradients, the count of parameters."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import pytest
import torch
from fakes import FACTS, random_encoded
from torch import Tensor, nn

from robusttune.errors import RobustTuneError
from robusttune.models import MoLT, MoLTNetwork
from robusttune.models.molt import BilinearPooling, ConcatenationPooling, LatentLayer, LayerTokens
from robusttune.types import Encoded, Facts, Widths

IMAGE, TEXT = Widths((12, 20), 24), Widths((16, 16), 8)
SMALL = MoLT(common_width=8, cca_dim=4, bilinear_width=6, fusion_width=16, null_tokens=3)
ABLATIONS = {
    "none": SMALL,
    "no null tokens": replace(SMALL, null_tokens=0),
    "no bilinear pooling": replace(SMALL, pooling="concatenation"),
    "no fusion stage": replace(SMALL, fusion_layers=0),
    "none of them": replace(SMALL, null_tokens=0, pooling="concatenation", fusion_layers=0),
}

every_ablation = pytest.mark.parametrize("settings", ABLATIONS.values(), ids=ABLATIONS.keys())


def network(settings: MoLT = SMALL, facts: Facts = FACTS) -> MoLTNetwork:
    torch.manual_seed(0)
    return settings.build(IMAGE, TEXT, facts)


def inputs(batch: int = 6) -> tuple[Encoded, Encoded]:
    torch.manual_seed(1)
    text = random_encoded(batch, TEXT.layers, TEXT.pooled, tokens=4)
    mask = torch.arange(4) < torch.randint(1, 5, (batch, 1))
    return random_encoded(batch, IMAGE.layers, IMAGE.pooled), replace(text, mask=[mask, mask])


def present(*rows: str) -> tuple[Tensor, Tensor]:
    """``it`` both, ``i`` image only, ``t`` text only, ``-`` nothing."""
    return torch.tensor(["i" in row for row in rows]), torch.tensor(["t" in row for row in rows])


ROWS = ("it", "i", "t", "-", "it", "t")


@every_ablation
def test_shapes(settings: MoLT) -> None:
    fused = network(settings)(*inputs(), *present(*ROWS))
    assert fused.logits.shape == (6, 3)
    assert fused.image_views.shape == fused.text_views.shape == (2, 6, 4)
    assert network().view_shape == (2, 4)
    assert all(part.isfinite().all() for part in fused)


@every_ablation
@pytest.mark.parametrize("filling", [0.0, 1e4, float("nan"), float("inf")])
def test_what_stands_in_for_an_absent_modality_never_matters(settings: MoLT, filling: float) -> None:
    """Bit-identical logits, and no gradient that is not finite."""
    image, text = inputs()
    image_present, text_present = present(*ROWS)
    model = network(settings).eval()
    expected = model(image, text, image_present, text_present)

    def fill(encoded: Encoded, where: Tensor) -> Encoded:
        encoded = Encoded(
            encoded.pooled.clone(), [t.clone() for t in encoded.tokens], [m.clone() for m in encoded.mask]
        )
        encoded.pooled[~where] = filling
        for tokens, mask in zip(encoded.tokens, encoded.mask, strict=True):
            tokens[~where], mask[~where] = filling, True
        return encoded

    actual = model(fill(image, image_present), fill(text, text_present), image_present, text_present)
    assert torch.equal(actual.logits, expected.logits)
    assert torch.equal(actual.image_views, expected.image_views)
    actual.logits.sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


@every_ablation
def test_padding_never_matters(settings: MoLT) -> None:
    image, text = inputs()
    everything = present(*["it"] * 6)
    model = network(settings).eval()
    expected = model(image, text, *everything).logits
    for tokens, mask in zip(text.tokens, text.mask, strict=True):
        tokens[~mask] = 1e3
    torch.testing.assert_close(model(image, text, *everything).logits, expected, rtol=0, atol=1e-6)
    longer = replace(
        text,
        tokens=[nn.functional.pad(t, (0, 0, 0, 3), value=7.0) for t in text.tokens],
        mask=[nn.functional.pad(m, (0, 3)) for m in text.mask],
    )
    torch.testing.assert_close(model(image, longer, *everything).logits, expected, rtol=0, atol=1e-6)


@every_ablation
def test_each_present_modality_matters_and_rows_are_independent(settings: MoLT) -> None:
    """The tokens of a modality alone are told by null tokens, and are of no use without."""
    image, text = inputs()
    image_present, text_present = present(*ROWS)
    model = network(settings).eval()
    expected = model(image, text, image_present, text_present).logits
    for row, (has_image, has_text) in enumerate(zip(image_present.tolist(), text_present.tolist(), strict=True)):
        for modality, has in ((image, has_image), (text, has_text)):
            kept = modality.tokens[1][row].clone()
            modality.tokens[1][row] += torch.randn_like(kept)
            logits = model(image, text, image_present, text_present).logits
            modality.tokens[1][row] = kept
            changed = [not torch.equal(a, b) for a, b in zip(logits, expected, strict=True)]
            used = has and (settings.null_tokens > 0 or (has_image and has_text))
            assert changed == [used and i == row for i in range(6)]


@every_ablation
@pytest.mark.parametrize("multilabel", [False, True])
def test_with_nothing_present_the_answer_is_the_training_prior(settings: MoLT, multilabel: bool) -> None:
    facts = FACTS._replace(multilabel=multilabel)
    logits = network(settings, facts).eval()(*inputs(), *present(*["-"] * 6)).logits
    shares = logits.sigmoid() if multilabel else logits.softmax(1)
    torch.testing.assert_close(shares, torch.tensor([facts.class_frequencies] * 6))


def test_a_class_that_training_lacks_does_not_make_the_prior_infinite() -> None:
    facts = FACTS._replace(class_frequencies=[1.0, 0.0, 0.0])
    assert network(facts=facts).log_prior.isfinite().all()


@every_ablation
@pytest.mark.parametrize("rows", ["it", "i", "t", "-"])
def test_every_parameter_is_in_every_graph(settings: MoLT, rows: str) -> None:
    """A parameter that is used only on some ranks stops DDP."""
    model = network(settings)
    fused = model(*inputs(), *present(*[rows] * 6))
    (fused.logits.sum() + fused.image_views.sum() + fused.text_views.sum()).backward()
    missing = [name for name, p in model.named_parameters() if p.grad is None]
    assert not missing
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize(
    "settings", [*ABLATIONS.values(), MoLT(), MoLT(fusion_layers=3, bilinear_factors=2, null_tokens=1, cca_dim=5)]
)
def test_parameter_count_has_its_closed_form(settings: MoLT) -> None:
    d_c, c, k, d_r = settings.common_width, settings.cca_dim, settings.bilinear_factors, settings.bilinear_width
    pool = (2 * d_c + 1) * d_r if settings.pooling == "concatenation" else 2 * d_c * k * d_r
    f, classes, layers = settings.fusion_width, len(FACTS.class_names), len(IMAGE.layers)
    expected = sum(
        (d_i + d_t + 2) * d_c
        + 3 * d_c * (d_c + 1)
        + 2 * settings.null_tokens * d_c
        + 2 * d_c * c
        + pool
        + (d_r + 1) * f
        for d_i, d_t in zip(IMAGE.layers, TEXT.layers, strict=True)
    )
    expected += (IMAGE.pooled + TEXT.pooled + 2) * f + (layers + 3) * f
    expected += settings.fusion_layers * (12 * f * f + 13 * f) + 2 * f + (f + 1) * classes
    assert sum(p.numel() for p in network(settings).parameters()) == expected


def test_translation_is_plain_cross_attention() -> None:
    """Against the formula, written out token by token in float64."""
    torch.manual_seed(0)
    layer = LatentLayer(SMALL, 12, 16).double()
    image, text = torch.randn(5, 8, dtype=torch.float64), torch.randn(3, 8, dtype=torch.float64)
    q_i, k_i, v_i = layer.query_key_value(image).chunk(3, 1)
    q_t, k_t, v_t = layer.query_key_value(text).chunk(3, 1)
    told_i = torch.stack([((q @ k_t.T) / 8**0.5).softmax(0) @ v_t for q in q_i]).mean(0)
    told_t = torch.stack([((q @ k_i.T) / 8**0.5).softmax(0) @ v_i for q in q_t]).mean(0)
    masks = [torch.ones(1, n, dtype=torch.bool) for n in (5, 3)]
    projected = [layer.query_key_value(modality[None]) for modality in (image, text)]
    actual = layer.translate(projected[0], masks[0], projected[1], masks[1])
    torch.testing.assert_close(actual[0][0], told_i)
    torch.testing.assert_close(actual[1][0], told_t)


def test_bilinear_pooling_is_its_formula_and_its_slope_is_finite_at_zero() -> None:
    torch.manual_seed(0)
    pool = BilinearPooling(8, 6, 4, dropout=0.1).eval()
    x, y = torch.randn(2, 3, 8)
    product = (x @ pool.image.weight.T) * (y @ pool.text.weight.T)
    summed = product.reshape(3, 6, 4).sum(2)
    powered = summed.sign() * summed.abs().sqrt()
    torch.testing.assert_close(pool(x, y), powered / powered.norm(dim=1, keepdim=True), rtol=0, atol=2e-3)
    zero = torch.zeros(3, 8, requires_grad=True)
    pool(zero, y).sum().backward()
    assert zero.grad is not None
    assert zero.grad.isfinite().all()


@pytest.mark.parametrize("pooling", ["bilinear", "concatenation"])
def test_without_null_tokens_an_absent_modality_adds_nothing(
    pooling: Literal["bilinear", "concatenation"],
) -> None:
    torch.manual_seed(0)
    layer = LatentLayer(replace(SMALL, null_tokens=0, pooling=pooling), IMAGE.layers[0], TEXT.layers[0]).eval()
    (image, text), (image_present, text_present) = inputs(), present(*ROWS)
    masks = [image.mask[0] & image_present[:, None], text.mask[0] & text_present[:, None]]
    told = layer(
        LayerTokens(image.tokens[0], masks[0], None, image_present),
        LayerTokens(text.tokens[0], masks[1], None, text_present),
    )
    for part in told:  # the robust representation, and the views of both latents
        assert part.abs().amax(1).gt(0).tolist() == [row == "it" for row in ROWS]
    assert not [name for name, _ in layer.named_parameters() if "null" in name]


def test_without_null_tokens_gradients_are_finite_in_float16() -> None:
    """Which holds no more than 65504; the slope of bilinear pooling at zero is a billion."""
    model = network(ABLATIONS["no null tokens"])
    with torch.autocast("cpu", torch.float16):
        logits = model(*inputs(), *present(*ROWS)).logits
    (64 * nn.functional.cross_entropy(logits.float(), torch.arange(6) % 3)).backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


def test_without_a_fusion_stage_the_head_looks_at_the_mean_of_what_there_is() -> None:
    stage, yes = network(ABLATIONS["no fusion stage"]).eval().fusion, torch.ones(1, dtype=torch.bool)
    image, text = torch.randn(1, IMAGE.pooled), torch.randn(1, TEXT.pooled)
    robust = torch.randn(len(stage.robust_in), 1, SMALL.bilinear_width)
    tokens = [stage.query, stage.image_in(nn.functional.layer_norm(image, (IMAGE.pooled,)))[0] + stage.types[0]]
    parts = zip(stage.robust_in, robust, stage.types[2:], strict=True)
    tokens += [project(part)[0] + own for project, part, own in parts]
    mean = sum(tokens, torch.zeros(SMALL.fusion_width)) / len(tokens)
    norm: Any = stage.blocks.norm
    expected = stage.head(nn.functional.layer_norm(mean, mean.shape, norm.weight, norm.bias))
    torch.testing.assert_close(stage(image, yes, text, ~yes, robust)[0], expected)


def test_concatenation_in_the_place_of_bilinear_pooling_is_its_formula() -> None:
    torch.manual_seed(0)
    pool = ConcatenationPooling(8, 6, dropout=0.1).eval()
    weight, bias = pool.parameters()
    x, y = torch.randn(2, 3, 8)
    linear = x @ weight[:, :8].T + y @ weight[:, 8:].T + bias
    torch.testing.assert_close(pool(x, y), linear * (1 + torch.erf(linear / 2**0.5)) / 2)


@every_ablation
def test_learns_and_uses_the_other_modality(settings: MoLT) -> None:
    """A label that is written in both modalities is read from either alone, after training with dropped modalities."""
    torch.manual_seed(0)
    label = torch.arange(48) % 3
    image, text = inputs(48)
    for modality in (image, text):
        for tokens in [*modality.tokens, modality.pooled]:
            tokens[..., :3] += 3 * nn.functional.one_hot(label, 3).view(48, *[1] * (tokens.dim() - 2), 3)
    model = network(replace(settings, dropout=0.0))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for step in range(60):
        rows = present(*[("it", "i", "t")[(i + step) % 3] for i in range(48)])
        loss = nn.functional.cross_entropy(model(image, text, *rows).logits, label)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    for shown in ("it", "i", "t"):
        logits = model.eval()(image, text, *present(*[shown] * 48)).logits
        assert (logits.argmax(1) == label).float().mean() > 0.9


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"fusion_width": 30}, "fusion_width 30"),
        ({"dropout": 1.0}, "dropout"),
        ({"cca_dim": 0}, "cca_dim"),
        ({"null_tokens": -1}, "null_tokens"),
        ({"pooling": "mean"}, "there is no pooling 'mean': give bilinear or concatenation"),
    ],
)
def test_impossible_settings_are_refused(changes: dict[str, float], named: str) -> None:
    with pytest.raises(RobustTuneError, match=named):
        MoLT(**changes)  # type: ignore[arg-type]


def test_layer_lists_of_different_length_are_refused() -> None:
    with pytest.raises(RobustTuneError, match="2 image layers cannot be paired with 1 text layers"):
        SMALL.build(IMAGE, Widths((16,), 8), FACTS)


def test_pairs_that_share_a_modality_answer_as_each_alone() -> None:
    """Whatever stands in the place of a modality that a row does not see, NaN included."""
    torch.manual_seed(0)
    model = network(SMALL).eval()
    image, text = inputs()
    image_rows, text_rows = torch.tensor([0, 0, 3, 1, 2]), torch.tensor([2, 1, 1, 0, 3])
    shown = torch.tensor([True, False, True, True, False]), torch.tensor([True, True, False, True, False])
    image.tokens[0][2] = float("nan")
    text.tokens[1][3] = float("nan")
    seen = model.forward_pairs(image, text, image_rows, text_rows, *shown)
    one = [
        modality.map(lambda tensor, rows=rows: tensor[rows])  # type: ignore[misc]
        for modality, rows in ((image, image_rows), (text, text_rows))
    ]
    one_image, one_text = one
    alone = model(one_image, one_text, *shown)
    for part, expected in zip(seen, alone, strict=True):
        torch.testing.assert_close(part, expected)
