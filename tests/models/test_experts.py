"""Experts: whose logits are added, what the centre is the mean of, and that many pairs are as good as one by one."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from fakes import FACTS, random_encoded
from torch import Tensor
from two_ranks import in_two_ranks

from robusttune.errors import RobustTuneError
from robusttune.models import Experts
from robusttune.models.experts import Expert, ExpertsNetwork
from robusttune.types import Encoded, Widths

IMAGE, TEXT = Widths((4, 10), 5), Widths((8, 6), 7)


def network() -> ExpertsNetwork:
    torch.manual_seed(0)
    return Experts(width=8).build(IMAGE, TEXT, FACTS)


def inputs(rows: int = 6) -> tuple[Encoded, Encoded]:
    torch.manual_seed(1)
    return random_encoded(rows, IMAGE.layers, IMAGE.pooled), random_encoded(rows, TEXT.layers, TEXT.pooled, 3)


def normalised(encoded: Encoded) -> Tensor:
    """What an expert looks at before anything is taken away, where every token is real."""
    parts = [encoded.pooled, *(tokens.mean(1) for tokens in encoded.tokens)]
    return torch.cat(
        [(p - p.mean(1, keepdim=True)) / (p.var(1, correction=0, keepdim=True) + 1e-5).sqrt() for p in parts], 1
    )


def test_the_pair_adds_to_what_the_modalities_say_alone() -> None:
    """And without its own part it is the product of both answers."""
    model, yes = network().eval(), torch.ones(6, dtype=torch.bool)
    image, text = inputs()
    both, images, texts = (model(image, text, *rows).logits for rows in ((yes, yes), (yes, ~yes), (~yes, yes)))
    hidden = model.image.hidden(normalised(image)) + model.text.hidden(normalised(text))
    torch.testing.assert_close(both, images + texts + model.pair(hidden))
    torch.nn.init.zeros_(model.pair[2].weight)  # type: ignore[arg-type]
    torch.nn.init.zeros_(model.pair[2].bias)  # type: ignore[arg-type]
    product = images.softmax(1) * texts.softmax(1)
    torch.testing.assert_close(model(image, text, yes, yes).logits.softmax(1), product / product.sum(1, keepdim=True))


def test_the_centre_is_the_mean_of_all_rows_that_training_showed() -> None:
    """In whatever batches, and of those that have the modality alone; evaluation takes in nothing."""
    model, (image, text) = network(), inputs(10)
    has = torch.arange(10) % 3 != 1
    for rows in (slice(0, 1), slice(1, 2), slice(2, 7), slice(7, 10)):
        model(image.map(lambda t: t[rows]), text.map(lambda t: t[rows]), has[rows], ~has[rows])  # noqa: B023
    model.eval()(image, text, has, has)
    torch.testing.assert_close(model.image.centre, normalised(image)[has].mean(0))
    torch.testing.assert_close(model.text.centre, normalised(text)[~has].mean(0))
    assert model.image.rows == has.sum()


def centre_of(rank: int, shares: list[slice]) -> Tensor:
    image, text = inputs(9)
    model = network()
    image, text = (modality.map(lambda t: t[shares[rank]]) for modality in (image, text))
    every = torch.ones(len(image), dtype=torch.bool)
    model(image, text, every, every)
    return model.image.centre


@pytest.mark.parametrize("shares", [[slice(0, 6), slice(6, 9)], [slice(0, 9), slice(9, 9)]])
def test_two_ranks_have_the_centre_of_one(shares: list[slice]) -> None:
    for centre in in_two_ranks(partial(centre_of, shares=shares)):
        torch.testing.assert_close(centre, normalised(inputs(9)[0]).mean(0))


def test_dropped_features_are_dropped_about_the_centre() -> None:
    """A modality that is always the same is told as nothing, whichever of its features are dropped."""
    expert = Expert(Experts(width=8), IMAGE, FACTS)
    image, _ = inputs(1)
    alike = image.map(lambda t: t.expand(5, *t.shape[1:]))
    torch.testing.assert_close(expert.input_features(alike), torch.zeros(5, 19))
    hidden, _ = expert(expert.input_features(alike))
    torch.testing.assert_close(hidden, expert.hidden.bias.expand(5, -1))


def test_without_layers_only_what_is_pooled_counts() -> None:
    model, yes = Experts(width=8, layers=False).build(IMAGE, TEXT, FACTS).eval(), torch.ones(6, dtype=torch.bool)
    image, text = inputs()
    others = Encoded(image.pooled, [tokens + 1 for tokens in image.tokens], image.mask)
    assert torch.equal(model(image, text, yes, yes).logits, model(others, text, yes, yes).logits)
    assert model.image.hidden.in_features == IMAGE.pooled


def test_pairs_seen_together_are_those_seen_one_by_one() -> None:
    model = network().eval()
    image, text = inputs(4)
    image_rows, text_rows = torch.tensor([0, 0, 3, 2, 1]), torch.tensor([1, 0, 3, 3, 2])
    has_image, has_text = torch.tensor([1, 1, 0, 1, 0]).bool(), torch.tensor([1, 0, 1, 1, 0]).bool()
    together = model.forward_pairs(image, text, image_rows, text_rows, has_image, has_text).logits
    pairs = image.map(lambda t: t[image_rows]), text.map(lambda t: t[text_rows])
    torch.testing.assert_close(together, model(*pairs, has_image, has_text).logits)
    image.pooled[1] = torch.nan  # which no row that has an image looks at
    assert torch.equal(model.forward_pairs(image, text, image_rows, text_rows, has_image, has_text).logits, together)


@pytest.mark.parametrize("settings", [{"width": 0}, {"input_dropout": 1.0}, {"dropout": float("nan")}])
def test_refuses_what_cannot_be(settings: dict[str, float]) -> None:
    with pytest.raises(RobustTuneError, match="do not work: give at least 1, and shares"):
        Experts(**settings)  # type: ignore[arg-type]
