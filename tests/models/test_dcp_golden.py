"""DCP and DPL against what the published implementations computed: every file of theirs in the golden folder."""

from __future__ import annotations

from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from clip_cases import (
    OPTIMIZERS,
    Case,
    Samples,
    assert_near,
    golden_case,
    golden_config,
    golden_files,
    optimizer_of,
    prototypes_of,
)
from torch import Tensor
from torch.nn import functional

from robusttune.models.prototypes import PrototypeHead

FILES = [*golden_files("dcp"), *golden_files("dpl")]
PROTOTYPES = [path for path in FILES if path.stem.startswith("dpl")]
PROMPTS = [path for path in FILES if golden_config(path).get("prompt_length", 0) > 0]
CONTRASTS = [(setting, mode) for setting in ("both", "text", "image") for mode in ("all", "one")]


@cache
def read_once(path: Path) -> Case:
    return golden_case(path)


def load(path: Path) -> tuple[Case, Samples, dict[str, Tensor]]:
    case = deepcopy(read_once(path))
    return case, Samples(case.of("input.")), case.of("output.")


def close(found: Tensor, expected: Tensor, absolute: float) -> None:
    torch.testing.assert_close(found, expected, atol=absolute, rtol=0)


def by_name(path: Path) -> str:
    return path.stem


def test_files_are_found() -> None:
    assert {path.stem for path in FILES} >= {"dcp_golden", "dpl_golden"}


@pytest.mark.parametrize("path", FILES, ids=by_name)
def test_golden_features_and_logits(path: Path) -> None:
    """Of both towers with and without prompts, and those of absent modalities, which are replaced by zeros."""
    case, samples, expected = load(path)
    image, text = case.encode(samples)
    network, mask = case.network, text.mask[0]
    features = (
        network.image_features(image.tokens[0], samples.missing),
        network.text_features(text.tokens[0], mask, samples.missing),
    )
    close(features[0], expected["image_features"], 1e-5)
    close(features[1], expected["text_features"], 1e-5)
    for modality, encoder, encoded in (("image", case.image, image), ("text", case.text, text)):
        untouched: Any = encoder._original_feature(encoded)
        close(untouched, functional.normalize(expected[f"clip_{modality}_features"], dim=1), 1e-5)
    logits = case.logits(samples)
    close(logits, expected["logits"], 1e-5)
    if "margin_logits" in expected:
        close(network.training_logits(logits, samples.label, *samples.present), expected["margin_logits"], 1e-4)
    assert case.loss(samples, logits).item() == pytest.approx(float(expected["loss"]), rel=1e-4)


@pytest.mark.parametrize("path", PROMPTS, ids=by_name)
def test_golden_prompts(path: Path) -> None:
    case, samples, expected = load(path)
    network: Any = case.network
    for modality, prompts in zip(("image", "text"), network.prompts(), strict=True):
        for layer, correlated in enumerate(prompts.correlated):
            found = torch.cat([correlated, prompts.common], 1) if layer == 0 else correlated
            close(found, expected[f"prompts_{modality}_by_pattern.{layer}"], 1e-5)
    image, text = case.encode(samples)
    close(network.image_dynamic(image.tokens[0], samples.missing), expected["dynamic_prompts_image"], 1e-5)
    padded = network._padded(text.tokens[0], text.mask[0])
    close(network.text_dynamic(padded, samples.missing), expected["dynamic_prompts_text"], 1e-5)


@pytest.mark.parametrize("kind", OPTIMIZERS)
@pytest.mark.parametrize("path", FILES, ids=by_name)
def test_golden_gradients_losses_and_steps(path: Path, kind: str) -> None:
    case, samples, expected = load(path)
    before = case.published()
    optimizer = optimizer_of(case.network, case.config, kind)
    for step, loss_then in enumerate(expected[f"losses{kind}"]):
        optimizer.zero_grad()
        loss = case.loss(samples)
        loss.backward()
        assert loss.item() == pytest.approx(float(loss_then), rel=1e-4)
        if step == 0:
            worst = assert_near(case.gradients(), case.of("grad."), 1e-4)
        optimizer.step()
    after, after_then = case.published(), case.of(f"adapter_after{kind}.")
    found = {name: after[name] - before[name] for name in after_then}
    apart = assert_near(found, {name: tensor - before[name] for name, tensor in after_then.items()}, 1e-3)
    constant = case.of("constant.")
    assert all(torch.equal(after[name], tensor) for name, tensor in constant.items())
    print(f"{path.stem}, greatest relative difference: gradients {worst:.1e}, three steps {apart:.1e}")


@pytest.mark.parametrize("path", PROTOTYPES, ids=by_name)
def test_golden_contrastive_loss(path: Path) -> None:
    """In every setting and mode, not those of the file alone."""
    case, _, expected = load(path)
    own: Any = case.network.head
    for setting, mode in CONTRASTS:
        head = PrototypeHead(prototypes_of(case.config, missing=setting, anchors=mode), own.prototypes.shape[2], 2)
        head.prototypes = own.prototypes
        found = sum(head.extra_losses().values(), torch.zeros(()))
        assert found.item() == pytest.approx(float(expected[f"contra_loss_by.{setting}.{mode}"]), rel=1e-5)
