"""CLIP as it is: its own answers, and a fit that trains nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from fakes import VIEWS, by_view, mmrl_flags
from tasks.test_mmrl_task import FACTS, make_batch
from tasks.test_mmrl_task import make_task as make_mmrl_task
from torch.nn import functional
from transformers import CLIPModel

from robusttune.checkpoint_file import KEY, read_checkpoint
from robusttune.cli import main
from robusttune.encoders import CLIPImageEncoder, CLIPTextEncoder
from robusttune.models.prompts import tokenise
from robusttune.tasks import ZeroShotTask
from robusttune.tasks.base import RobustTask
from robusttune.types import Tokens, Variants, View

CONFIGS = Path(__file__).parents[2] / "configs"
TEMPLATES = ["a photo of {}", "of {}"]


def make_task(clip_folder: Path) -> ZeroShotTask:
    encoders: dict[str, Any] = {"name": str(clip_folder), "first_layer": 2}
    return ZeroShotTask(CLIPImageEncoder(**encoders), CLIPTextEncoder(**encoders), FACTS, TEMPLATES).eval()


@torch.no_grad()
def test_answers_are_those_of_transformers(clip_folder: Path) -> None:
    """Images beside the mean of prompts, texts likewise; both are multiplied; with nothing it is the prior."""
    task, batch, clip = make_task(clip_folder), make_batch(), CLIPModel.from_pretrained(clip_folder).eval()
    prompts = [
        tokenise(FACTS.class_names, template, task.classifier.text_encoder.prompt_tokenizer) for template in TEMPLATES
    ]

    def features(out: object) -> torch.Tensor:
        found = out if isinstance(out, torch.Tensor) else out.pooler_output  # type: ignore[attr-defined]
        return functional.normalize(found, dim=-1)

    classes = functional.normalize(
        sum((features(clip.get_text_features(p.input_ids, p.attention_mask.long())) for p in prompts), torch.zeros(())),
        dim=-1,
    )
    scale = clip.logit_scale.exp()
    pixels, own = batch.images["clean"], batch.texts["clean"]
    assert isinstance(pixels, torch.Tensor)
    assert isinstance(own, Tokens)
    images = scale * features(clip.get_image_features(task.classifier.image_encoder.normalise(pixels))) @ classes.T
    texts = scale * features(clip.get_text_features(own.input_ids, own.attention_mask.long())) @ classes.T
    logits = by_view(task, batch)
    with_image, with_text = batch.image_present, batch.text_present
    torch.testing.assert_close(logits["no_text"][with_image], images, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(logits["no_image"][with_text], texts, rtol=1e-4, atol=1e-4)
    product = torch.ones(len(batch), 3)
    product[with_image] *= images.softmax(1) + task.classifier.combination_smoothing
    product[with_text] *= texts.softmax(1) + task.classifier.combination_smoothing
    both, something = with_image & with_text, with_image | with_text
    expected = product[both] / product[both].sum(1, keepdim=True)
    torch.testing.assert_close(logits["complete"][both].softmax(1), expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(logits["complete"][~something].softmax(1)[0], torch.tensor(FACTS.class_frequencies))


@torch.no_grad()
@pytest.mark.parametrize("make", [make_task, make_mmrl_task])
def test_double_precision_is_double_to_the_end(clip_folder: Path, make: Callable[[Path], RobustTask]) -> None:
    """Where the same inputs in batches of other sizes differ in their last digits, they would no longer tie."""
    task, batch = make(clip_folder).eval(), make_batch()
    single = by_view(task, batch)
    for name, logits in by_view(task.double(), batch).items():
        assert logits.dtype == torch.float64
        torch.testing.assert_close(logits, single[name].double(), rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_what_the_cache_has_answers_alike(clip_folder: Path) -> None:
    task, batch = make_task(clip_folder), make_batch()
    expected = by_view(task, batch)
    batch.images = Variants(["kept"], task.classifier.image_encoder(batch.images["clean"]))
    batch.texts = Variants(["kept"], task.classifier.text_encoder(batch.texts["clean"]))
    kept = {name: View(view.image and "kept", view.text and "kept") for name, view in VIEWS.items()}
    for name, logits in by_view(task, batch, kept).items():
        torch.testing.assert_close(logits, expected[name])


def test_a_fit_trains_nothing_and_leaves_a_checkpoint(
    food101: Path, clip_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = [flag for flag in mmrl_flags(food101, clip_folder) if not flag.startswith("--model.adapter.")]
    overlay = f"--config={CONFIGS}/baselines/zero_shot.yaml"
    assert main(["fit", f"--config={CONFIGS}/food101_mmrl.yaml", overlay, *flags, f"--run_root={tmp_path}"]) == 0
    assert "returned" not in capsys.readouterr().err
    run = tmp_path / "zero_shot/0"
    checkpoint = read_checkpoint(run / "checkpoints/best.ckpt")
    assert checkpoint[KEY]["task"] == "ZeroShotTask"
    assert [*checkpoint["state_dict"]] == ["nothing", "classifier.temperatures.values"]
    test = ["test", f"--config={run}/config.yaml", f"--ckpt_path={run}/checkpoints/best.ckpt"]
    assert main([*test, "--data.evaluation.conditions=[complete, noisy_image_blur_3+missing_text_50]"]) == 0
    found = json.loads((run / "report/test.json").read_text())["conditions"]
    assert list(found) == ["complete", "noisy_image_blur_3+missing_text_50", "mean"]
