"""Comparisons of conditions against values computed by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from robusttune.corruption.grammar import parse
from robusttune.evaluation.robustness import curves, relative


def test_relative_to_the_complete_condition() -> None:
    values = {"no_image": 0.2, "complete": 0.8, "no_text": 0.6, "unknown": None}
    assert relative(values) == {"no_image": pytest.approx(0.25), "no_text": pytest.approx(0.75)}
    assert relative({"no_image": 0.2}) == relative({"complete": 0.0, "no_image": 0.2}) == {}
    assert relative({"complete": None, "no_image": 0.2}) == {}


def found_of(values: dict[str, float | None]) -> dict[str, dict[str, Any]]:
    return curves([parse(name) for name in values], values)


def test_curves_go_from_the_complete_condition_to_the_missing_modality() -> None:
    """Points are sorted by rate. Conditions with noise or of another missing type take no part."""
    values: dict[str, float | None] = {
        "no_image": 0.1,
        "missing_image_50": 0.5,
        "complete": 0.9,
        "missing_image_12.5": 0.8,
        "no_text": 0.4,
        "missing_image_30+noisy_image_blur_3": 0.0,
        "missing_image_30+no_text": 0.0,
        "noisy_text_ocr_1": 0.0,
        "no_image+no_text": 0.0,
    }
    found = found_of(values)
    image = found["image"]
    assert image["rates"] == [0, 0.125, 0.5, 1]
    assert image["conditions"] == ["complete", "missing_image_12.5", "missing_image_50", "no_image"]
    assert image["values"] == [0.9, 0.8, 0.5, 0.1]
    assert image["area"] == pytest.approx(0.125 * 0.85 + 0.375 * 0.65 + 0.5 * 0.3)
    assert found["text"]["values"] == [0.9, 0.4]
    assert found["text"]["area"] == pytest.approx(0.65)
    assert "both" not in found  # its only rate is 0


def test_the_area_is_a_mean_over_the_rates_that_there_are() -> None:
    values: dict[str, float | None] = {"missing_both_30": 0.7, "missing_both_70": 0.4, "missing_both_50": 0.4}
    found = found_of(values)["both"]
    rates, heights = found["rates"], found["values"]
    assert found["area"] == pytest.approx(np.trapezoid(heights, rates) / 0.4)
    assert found_of(dict.fromkeys(values, 0.3))["both"]["area"] == pytest.approx(0.3)


def test_values_that_are_unknown_are_no_points() -> None:
    values = {"complete": 0.8, "missing_text_50": None, "no_text": 0.4}
    assert found_of(values)["text"]["rates"] == [0, 1]
    assert found_of({"complete": None, "missing_text_50": 0.3, "missing_image_50": 0.3}) == {}
