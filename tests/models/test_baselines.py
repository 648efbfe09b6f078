"""Baselines."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from fakes import FACTS, random_encoded

from robusttune.errors import RobustTuneError
from robusttune.models import Concatenation
from robusttune.types import Widths

WIDTHS = Widths((4,), 5), Widths((4,), 6)


def test_an_absent_side_cannot_change_the_answer() -> None:
    network = Concatenation(width=8).build(*WIDTHS, FACTS).eval()
    image, text = random_encoded(4, (4,), 5), random_encoded(4, (4,), 6)
    here, gone = torch.tensor([True, True, False, False]), torch.tensor([True, False, True, False])
    logits = network(image, text, here, gone).logits
    other = replace(image, pooled=torch.where(here[:, None], image.pooled, torch.nan))
    torch.testing.assert_close(network(other, text, here, gone).logits, logits)
    torch.testing.assert_close(logits[3].softmax(0), torch.tensor(FACTS.class_frequencies))
    changed = network(replace(image, pooled=image.pooled + torch.randn(4, 5)), text, here, gone).logits
    assert ((changed - logits).abs().amax(1) > 0).tolist() == here.tolist()


@pytest.mark.parametrize("settings", [{"width": 0}, {"dropout": 1.0}])
def test_refuses_what_cannot_be(settings: dict[str, float]) -> None:
    with pytest.raises(RobustTuneError, match="do not work"):
        Concatenation(**settings)  # type: ignore[arg-type]
