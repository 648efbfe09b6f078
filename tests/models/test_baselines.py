"""Experts and baselines: what may and what must not matter, gradients, and what each of them computes."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from fakes import FACTS, random_encoded
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn
from torch.nn import functional

from robusttune.errors import RobustTuneError
from robusttune.models import (
    Concatenation,
    CrossAttention,
    Experts,
    FusionModel,
    FusionNetwork,
    ImageOnly,
    LateFusion,
    TextOnly,
)
from robusttune.models.cross_attention import Block
from robusttune.settings import from_plain, to_plain
from robusttune.types import Encoded, Facts, Widths

IMAGE, TEXT = Widths((4, 10), 5), Widths((8, 6), 7)
BASELINES: dict[str, FusionModel] = {
    "image_only": ImageOnly(width=8),
    "text_only": TextOnly(width=8),
    "concatenation": Concatenation(width=8),
    "linear_probe": Concatenation(width=0, dropout=0.0),
    "late_fusion": LateFusion(width=8),
    "cross_attention": CrossAttention(width=8, heads=2, layers=2),
    "experts": Experts(width=16, input_dropout=0.2),
}
READS = dict.fromkeys(BASELINES, "it") | {"image_only": "i", "text_only": "t"}  # image, text
ROWS = ("it", "i", "t", "-", "it", "t")

every_baseline = pytest.mark.parametrize("name", BASELINES)


def network(name: str, facts: Facts = FACTS) -> FusionNetwork:
    torch.manual_seed(0)
    return BASELINES[name].build(IMAGE, TEXT, facts)


def inputs(batch: int = 6) -> tuple[Encoded, Encoded]:
    torch.manual_seed(1)
    text = random_encoded(batch, TEXT.layers, TEXT.pooled, tokens=4)
    mask = torch.arange(4) < torch.randint(1, 5, (batch, 1))
    return random_encoded(batch, IMAGE.layers, IMAGE.pooled), replace(text, mask=[mask, mask])


def present(*rows: str) -> tuple[Tensor, Tensor]:
    """``it`` both, ``i`` image only, ``t`` text only, ``-`` nothing."""
    return torch.tensor(["i" in row for row in rows]), torch.tensor(["t" in row for row in rows])


def fill(encoded: Encoded, where: Tensor, value: float) -> Encoded:
    """With a value in the rows of a mask, and all of their tokens real."""
    filled = encoded.map(Tensor.clone)
    filled.pooled[where] = value
    for tokens, mask in zip(filled.tokens, filled.mask, strict=True):
        tokens[where], mask[where] = value, True
    return filled


def standardised(encoded: Encoded) -> Tensor:
    pooled = encoded.pooled.double()
    return (pooled - pooled.mean(1, keepdim=True)) / (pooled.var(1, correction=0, keepdim=True) + 1e-5).sqrt()


@every_baseline
@pytest.mark.parametrize("filling", [0.0, 1e4, float("nan"), float("inf")])
def test_what_stands_in_for_an_absent_modality_never_matters(name: str, filling: float) -> None:
    """Bit-identical logits, and no gradient that is not finite."""
    image, text = inputs()
    image_present, text_present = present(*ROWS)
    model = network(name).eval()
    expected = model(image, text, image_present, text_present).logits
    filled = fill(image, ~image_present, filling), fill(text, ~text_present, filling)
    logits = model(*filled, image_present, text_present).logits
    assert torch.equal(logits, expected)
    logits.sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@every_baseline
@pytest.mark.parametrize("multilabel", [False, True])
def test_with_nothing_that_it_reads_the_answer_is_the_training_prior(name: str, multilabel: bool) -> None:
    model = network(name, FACTS._replace(multilabel=multilabel)).eval()
    logits = model(*inputs(), *present(*ROWS)).logits
    shares = logits.sigmoid() if multilabel else logits.softmax(1)
    for row, modalities in enumerate(ROWS):
        is_prior = torch.allclose(shares[row], torch.tensor(FACTS.class_frequencies), atol=1e-6)
        assert is_prior == (not set(modalities) & set(READS[name]))


@every_baseline
def test_each_modality_that_it_reads_matters_and_rows_are_independent(name: str) -> None:
    image, text = inputs()
    image_present, text_present = present(*ROWS)
    model = network(name).eval()
    expected = model(image, text, image_present, text_present).logits
    for row, modalities in enumerate(ROWS):
        for modality, letter in ((image, "i"), (text, "t")):
            kept = modality.map(Tensor.clone)
            for tensor in (modality.pooled, modality.tokens[-1]):
                tensor[row] += torch.randn_like(tensor[row])
            logits = model(image, text, image_present, text_present).logits
            modality.pooled, modality.tokens = kept.pooled, kept.tokens
            changed = [not torch.equal(a, b) for a, b in zip(logits, expected, strict=True)]
            assert changed == [letter in modalities and letter in READS[name] and i == row for i in range(6)]


@every_baseline
def test_a_sample_alone_is_answered_as_among_others(name: str) -> None:
    """Where others have longer texts, so that it is padded, or a modality that it lacks, of which it has rows, too."""
    image, text = inputs()
    modalities = present(*ROWS)
    model = network(name).eval()
    expected = model(image, text, *modalities).logits
    for row in range(6):
        has = [bool(modality[row]) for modality in modalities]
        lengths = [int(encoded.mask[0][row].sum()) for encoded in (image, text)]
        alone = [
            Encoded(
                encoded.pooled[[row]] * has,
                [tokens[[row], :length] * has for tokens in encoded.tokens],
                [mask[[row], :length] & has for mask in encoded.mask],
            )
            for encoded, has, length in zip((image, text), has, lengths, strict=True)
        ]
        one_image, one_text = alone
        logits = model(one_image, one_text, *(modality[[row]] for modality in modalities)).logits
        torch.testing.assert_close(logits[0], expected[row], rtol=0, atol=1e-6)


@every_baseline
@pytest.mark.parametrize("rows", ["it", "i", "t", "-"])
def test_every_parameter_is_in_every_graph(name: str, rows: str) -> None:
    """A parameter that is used only on some ranks stops DDP."""
    model = network(name)
    fused = model(*inputs(), *present(*[rows] * 6))
    assert fused.image_views.shape == fused.text_views.shape == (0, 6, 1)
    fused.logits.square().sum().backward()
    assert not [n for n, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    if rows == "it":
        assert not [n for n, p in model.named_parameters() if p.grad is not None and not p.grad.any()]


@every_baseline
def test_learns_from_each_modality_that_it_reads(name: str) -> None:
    """A label that is written in both modalities is read from either alone, after training with dropped modalities."""
    label = torch.arange(48) % 3
    image, text = inputs(48)
    for modality in (image, text):
        for tokens in [*modality.tokens, modality.pooled]:
            tokens[..., :3] += 3 * functional.one_hot(label, 3).view(48, *[1] * (tokens.dim() - 2), 3)
    model = network(name)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-2)
    for step in range(60):
        rows = present(*[("it", "i", "t")[(i + step) % 3] for i in range(48)])
        optimizer.zero_grad()
        functional.cross_entropy(model(image, text, *rows).logits, label).backward()
        optimizer.step()
    for modalities in ("it", "i", "t"):
        right = model.eval()(image, text, *present(*[modalities] * 48)).logits.argmax(1) == label
        assert (right.float().mean() > 0.9) == bool(set(modalities) & set(READS[name]))


def test_a_linear_probe_is_a_linear_map_of_both_standardised_embeddings() -> None:
    model = network("linear_probe").double()  # and in training mode: nothing is dropped
    image, text = inputs()
    weight, bias = model.parameters()
    assert weight.shape == (3, IMAGE.pooled + TEXT.pooled)
    expected = torch.cat([standardised(image), standardised(text)], 1) @ weight.T + bias
    doubled = [encoded.map(lambda t: t.double() if t.is_floating_point() else t) for encoded in (image, text)]
    image, text = doubled
    torch.testing.assert_close(model(image, text, *present(*["it"] * 6)).logits, expected)


def test_a_linear_probe_trained_to_the_end_is_logistic_regression() -> None:
    image, text = inputs(60)
    label = torch.bucketize(image.pooled[:, 0] + text.pooled[:, 0] + torch.randn(60), torch.tensor([-1.0, 1.0]))
    model = network("linear_probe")
    weight = next(p for p in model.parameters() if p.dim() == 2)
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=500, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        logits = model(image, text, *present(*["it"] * 60)).logits
        value = functional.cross_entropy(logits, label, reduction="sum") + weight.square().sum() / 2
        value.backward()
        return value

    optimizer.step(loss)
    features = torch.cat([standardised(image), standardised(text)], 1).numpy()
    theirs = LogisticRegression(C=1.0, tol=1e-8, max_iter=1000).fit(features, label)
    ours = model(image, text, *present(*["it"] * 60)).logits.softmax(1)
    torch.testing.assert_close(ours.double(), torch.tensor(theirs.predict_proba(features)), rtol=0, atol=1e-3)


def test_late_fusion_is_the_mean_of_its_modalities_logits() -> None:
    """And so its answer is the normalised geometric mean of theirs."""
    model = network("late_fusion").eval()
    answers = {rows: model(*inputs(), *present(*[rows] * 6)).logits for rows in ("it", "i", "t")}
    torch.testing.assert_close(answers["it"], (answers["i"] + answers["t"]) / 2)
    product = (answers["i"].softmax(1) * answers["t"].softmax(1)).sqrt()
    torch.testing.assert_close(answers["it"].softmax(1), product / product.sum(1, keepdim=True))


@pytest.mark.parametrize(("name", "other"), [("image_only", "t"), ("text_only", "i")])
def test_one_modality_is_answered_from_whatever_the_other_is(name: str, other: str) -> None:
    image, text = inputs()
    model = network(name).eval()
    expected = model(image, text, *present(*[READS[name]] * 6)).logits
    everything = torch.ones(6, dtype=torch.bool)
    spoiled = (image, fill(text, everything, torch.nan)) if other == "t" else (fill(image, everything, torch.nan), text)
    assert torch.equal(model(*spoiled, *present(*["it"] * 6)).logits, expected)


def test_a_block_is_cross_attention_and_an_mlp_with_norms_before() -> None:
    """Against torch's own multi-head attention."""
    torch.manual_seed(0)
    block = Block(CrossAttention(width=8, heads=2)).eval()
    theirs = nn.MultiheadAttention(8, 2, batch_first=True).eval()
    with torch.no_grad():
        assert theirs.in_proj_weight is not None
        theirs.in_proj_weight.copy_(torch.cat([block.query.weight, block.key_value.weight]))
        theirs.in_proj_bias.copy_(torch.cat([block.query.bias, block.key_value.bias]))
        theirs.out_proj.weight.copy_(block.out.weight)
        theirs.out_proj.bias.zero_()
    tokens, other = torch.randn(3, 5, 8), torch.randn(3, 4, 8)
    mask = torch.arange(4) < torch.tensor([[4], [2], [1]])
    keys = block.other_norm(other)
    told = tokens + theirs(block.norm(tokens), keys, keys, key_padding_mask=~mask)[0]
    torch.testing.assert_close(block(tokens, other, mask), told + block.mlp(told))


def test_cross_attention_reads_the_tokens_of_the_last_layer() -> None:
    image, text = inputs()
    model = network("cross_attention").eval()
    both = present(*["it"] * 6)
    expected = model(image, text, *both).logits
    for modality in (image, text):
        modality.pooled, modality.tokens[0] = torch.randn_like(modality.pooled), torch.randn_like(modality.tokens[0])
    assert torch.equal(model(image, text, *both).logits, expected)


@every_baseline
def test_settings_are_stored_under_the_names_that_configurations_use(name: str) -> None:
    settings = BASELINES[name]
    stored = to_plain(settings)
    assert stored["class_path"] == f"robusttune.models.{type(settings).__name__}"
    assert from_plain(stored, FusionModel) == settings


@pytest.mark.parametrize("model", [ImageOnly, TextOnly, Concatenation, LateFusion, CrossAttention])
@pytest.mark.parametrize("settings", [{"width": -1}, {"dropout": 1.0}, {"dropout": float("nan")}])
def test_refuses_what_cannot_be(model: type[FusionModel], settings: dict[str, float]) -> None:
    with pytest.raises(RobustTuneError, match="do not work: give at least"):
        model(**settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"width": 0}, "width 0, .* do not work"),
        ({"layers": 0}, "layers 0, .* do not work"),
        ({"width": 10, "heads": 3}, "width 10 cannot be split into 3 heads: give a multiple of heads"),
    ],
)
def test_cross_attention_refuses_what_cannot_be(settings: dict[str, int], message: str) -> None:
    with pytest.raises(RobustTuneError, match=message):
        CrossAttention(**settings)
