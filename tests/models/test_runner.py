"""Compiled or checkpointed, networks return what they return otherwise; checkpointed, they keep less."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from fakes import FACTS, random_encoded
from running import BACKENDS, bytes_kept, compiling_with
from torch import Tensor
from torch._dynamo.utils import counters

from robusttune.errors import RobustTuneError
from robusttune.models import Concatenation, CrossAttention, Experts, FusionModel, FusionNetwork, LateFusion, MoLT
from robusttune.models.runner import Runner
from robusttune.types import Encoded, Widths

WIDTHS = Widths((12, 12), 10)
SMALL = MoLT(
    common_width=8, cca_dim=3, bilinear_width=8, bilinear_factors=2, fusion_width=8, fusion_heads=2, dropout=0.3
)
CROSS = CrossAttention(width=8, heads=2, layers=2, dropout=0.3)
EVERY = [SMALL, replace(SMALL, null_tokens=0), CROSS, Concatenation(8, 0.3), LateFusion(8, 0.3), Experts(8)]
Batch = tuple[Encoded, Encoded, Tensor, Tensor]


@pytest.fixture(params=BACKENDS)
def compiler(request: pytest.FixtureRequest) -> Iterator[None]:
    with compiling_with(request.param):
        yield


def network(settings: FusionModel, runner: Runner) -> FusionNetwork:
    torch.manual_seed(0)
    built = settings.build(WIDTHS, WIDTHS, FACTS)
    built.run = runner
    return built


def batch(rows: int = 6, image_tokens: int = 5, text_tokens: int = 4) -> Batch:
    """Every fourth row lacks its image, the next its text, the next both; texts differ in length."""
    torch.manual_seed(rows)
    image, text = (random_encoded(rows, WIDTHS.layers, WIDTHS.pooled, n) for n in (image_tokens, text_tokens))
    lengths = torch.randint(1, text_tokens + 1, (rows, 1))
    text.mask = [torch.arange(text_tokens) < lengths] * len(text.mask)
    place = torch.arange(rows) % 4
    return image, text, (place != 1) & (place != 3), (place != 2) & (place != 3)


def double(given: Batch) -> Batch:
    image, text = (modality.map(lambda t: t.double() if t.is_floating_point() else t) for modality in given[:2])
    return image, text, *given[2:]


def step(trained: FusionNetwork, given: Batch) -> tuple[Tensor, list[Tensor]]:
    """Loss and gradients of a step, in which dropout is that of the seed."""
    torch.manual_seed(1)
    trained.zero_grad()
    loss = loss_of(trained, given)
    loss.backward()
    return loss.detach(), [p.grad for p in trained.parameters() if p.grad is not None]


def loss_of(trained: FusionNetwork, given: Batch) -> Tensor:
    fused = trained(*given)
    return fused.logits.logsumexp(1).sum() + (fused.image_views * fused.text_views).sum()


@pytest.mark.parametrize("settings", EVERY)
def test_checkpointing_changes_no_bit(settings: FusionModel) -> None:
    plain, checkpointed = network(settings, Runner()), network(settings, Runner(checkpoint_activations=True))
    (loss, gradients), (same_loss, same_gradients) = step(plain, batch()), step(checkpointed, batch())
    assert torch.equal(loss, same_loss)
    assert len(gradients) == len(same_gradients) == len(list(plain.parameters()))
    for gradient, same in zip(gradients, same_gradients, strict=True):
        assert torch.equal(gradient, same)


@pytest.mark.parametrize(("settings", "factor"), [(MoLT(), 2), (CrossAttention(layers=4), 5)])
def test_checkpointing_keeps_less(settings: FusionModel, factor: float) -> None:
    """At real widths; what goes into parts counts as kept."""
    widths, given = Widths((768,), 768), []
    for tokens in (50, 20):
        given.append(random_encoded(8, widths.layers, widths.pooled, tokens))
    present = torch.ones(8, dtype=torch.bool)
    kept = []
    for runner in (Runner(), Runner(checkpoint_activations=True)):
        trained = settings.build(widths, widths, FACTS)
        trained.run = runner
        kept.append(bytes_kept(trained, lambda trained=trained: trained(*given, present, present).logits.sum()))  # type: ignore[misc]
    assert kept[1] * factor < kept[0]


@pytest.mark.slow
@pytest.mark.usefixtures("compiler")
@pytest.mark.parametrize(
    ("settings", "checkpointed"), [(SMALL, True), pytest.param(CROSS, False, marks=pytest.mark.slow)]
)
def test_compiled_is_eager(settings: FusionModel, checkpointed: bool) -> None:
    """Losses and gradients with dropout, batch after batch of other sizes, and in evaluation of several pairs.

    In float64, since the slope of a square root blows up the last digit.
    """
    eager, compiled = network(settings, Runner()).double(), network(settings, Runner(True, checkpointed)).double()
    for given in (double(batch(6, 5, 4)), double(batch(9, 5, 6)), double(batch(2, 5, 3))):
        (loss, gradients), (found, found_gradients) = step(eager, given), step(compiled, given)
        torch.testing.assert_close(found, loss, rtol=1e-7, atol=1e-7)
        for gradient, same in zip(gradients, found_gradients, strict=True):
            torch.testing.assert_close(same, gradient, rtol=1e-7, atol=1e-7)
    image, text, image_present, text_present = double(batch(7))
    rows = torch.arange(7).repeat(2)
    shown = torch.cat([image_present, torch.zeros(7, dtype=torch.bool)]), text_present.repeat(2)
    with torch.inference_mode():
        whole, parts = (n.eval().forward_pairs(image, text, rows, rows, *shown) for n in (eager, compiled))
    for values, same in zip(whole, parts, strict=True):
        torch.testing.assert_close(same, values, rtol=1e-7, atol=1e-7)
    assert list(eager.state_dict()) == list(compiled.state_dict())


@pytest.mark.slow
@pytest.mark.usefixtures("compiler")
def test_a_batch_of_another_size_is_no_other_graph() -> None:
    """One graph for layers alike and one for the fusion, in training and in evaluation."""
    compiled = network(SMALL, Runner(compile=True))
    step(compiled, batch(6, 5, 4))
    assert counters["stats"]["unique_graphs"] == 2
    for sizes in ((9, 5, 4), (9, 5, 7), (4, 6, 2), (33, 5, 3)):
        step(compiled, batch(*sizes))
    assert counters["stats"]["unique_graphs"] == 2
    compiled.eval()
    with torch.no_grad():
        for sizes in ((6, 5, 4), (3, 5, 9)):
            compiled(*batch(*sizes))
    assert counters["stats"]["unique_graphs"] == 4


def test_what_cannot_be_compiled_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("No working C++ compiler found in config.cpp.cxx: (None, 'g++')")

    compile_ = torch.compile
    monkeypatch.setattr(torch, "compile", lambda part, **_: compile_(part, backend=broken))
    with pytest.raises(RobustTuneError, match=r"No working C\+\+ compiler .* install .* g\+\+, or set model.compile"):
        step(network(SMALL, Runner(compile=True)), batch())
