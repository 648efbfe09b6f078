"""Low-rank adaptation under fusion models: what is trained, stored, cached, loaded and refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from every_model import FUSION, without_inputs
from fakes import FACTS, VIEWS, by_view, grouped, random_batch, tiny_flags, tiny_image_encoder, tiny_text_encoder
from inference.test_same_as_test import assert_same
from lightning.pytorch import Trainer
from tasks.test_cache_filling import NO_DROPOUT, trainer
from tasks.test_condition_views import source_of

import robusttune
from robusttune.checkpoint_file import KEY
from robusttune.cli import main
from robusttune.data import ImageTextDataModule
from robusttune.encoders import LoRA
from robusttune.errors import RobustTuneError
from robusttune.inference.construction import load_classifier
from robusttune.models import Concatenation, Experts, FusionModel, ImageOnly, LogisticRegression, Stacking, TextOnly
from robusttune.tasks import FusionTask
from robusttune.tasks.parameters import describe_parameters

CONFIGS = Path(__file__).parents[2] / "configs"
UPDATE = ("lora_A", "lora_B")


def adapted(text_folder: Path, image: LoRA | None = LoRA(rank=2), text: LoRA | None = LoRA(rank=3)) -> list[Any]:  # noqa: B008
    """Return the settings of an image and a text encoder."""
    return [tiny_image_encoder(lora=image), tiny_text_encoder(text_folder, lora=text)]


def make_task(encoders: list[Any], fusion: FusionModel | None = None, **changes: Any) -> FusionTask:
    torch.manual_seed(0)
    settings: dict[str, Any] = {"fusion": fusion or Experts(width=8), "beta": 0.0} | changes
    task = FusionTask(encoders[0], encoders[1], FACTS, **settings)
    task.trainer = Trainer(logger=False, enable_checkpointing=False, accelerator="cpu", log_every_n_steps=1)
    return task


def steps(task: FusionTask, count: int = 3) -> None:
    """Train on one batch."""
    torch.manual_seed(1)
    batch = random_batch(8)
    optimizer = task.optimizer([p for p in task.parameters() if p.requires_grad])
    for number in range(count):
        optimizer.zero_grad()
        task.training_losses(batch, number).loss.backward()
        optimizer.step()


def encoder_state(task: FusionTask) -> dict[str, torch.Tensor]:
    return {key: value.clone() for key, value in task.state_dict().items() if "encoder" in key}


@pytest.mark.parametrize("model", [name for name in FUSION if not name.endswith("Only")])
def test_every_fusion_model_trains_the_updates_alone(model: str, text_folder: Path) -> None:
    changes = dict(FUSION[model])
    task = make_task(adapted(text_folder), changes.pop("fusion"), **changes).train()
    before, batch = encoder_state(task), random_batch(6)
    frozen = make_task(adapted(text_folder, None, None), task.classifier.fusion, **changes).eval()
    frozen.load_state_dict(
        {key: value for key, value in task.state_dict().items() if "encoder" not in key}, strict=False
    )
    for name, logits in by_view(task.eval(), batch).items():
        assert torch.equal(logits, by_view(frozen, batch)[name])
    steps(task.train())
    changed = {key for key, value in encoder_state(task).items() if not torch.equal(value, before[key])}
    assert changed == {key for key in before if key.endswith(UPDATE)}
    assert len(changed) == 4 * (2 + 1)  # two layers of the image encoder, one of the text encoder
    for parameter in task.parameters():
        parameter.grad = None
    task.training_losses(without_inputs(batch), 0).loss.backward()
    assert all(p.grad is not None for p in task.parameters() if p.requires_grad), "DDP needs a gradient of each"


def test_checkpoint_has_the_updates_alone(text_folder: Path, tmp_path: Path) -> None:
    task = make_task(adapted(text_folder))
    steps(task)
    trained = sum(p.numel() for p in task.parameters() if p.requires_grad)
    assert describe_parameters(task).startswith(f"{trained:,} parameters are trained, 324,448 are frozen")
    checkpoint: dict[str, Any] = {"state_dict": dict(task.state_dict())}
    task.on_save_checkpoint(checkpoint)
    assert {key.rpartition(".")[2] for key in checkpoint["state_dict"] if "encoder" in key} == {*UPDATE}
    plain = make_task(adapted(text_folder, None, None))
    assert checkpoint[KEY]["sha256"] == plain._metadata["sha256"]
    torch.save(checkpoint, tmp_path / "model.ckpt")
    batch = random_batch(6)
    expected = by_view(task.eval(), batch)
    other = FusionTask.load_from_checkpoint(tmp_path / "model.ckpt")
    assert other.classifier.encoder_settings == task.classifier.encoder_settings
    merged = load_classifier(tmp_path / "model.ckpt").eval()
    assert not merged.image_encoder.updates()
    for number, (name, logits) in enumerate(expected.items()):
        assert torch.equal(by_view(other, batch)[name], logits)
        again = merged.logits(batch, list(VIEWS.values()))[number]
        torch.testing.assert_close(again, logits, rtol=1e-5, atol=1e-5)
    for wrong in (plain, make_task(adapted(text_folder, text=LoRA(rank=4)))):
        with pytest.raises(RobustTuneError, match="the checkpoint contradicts the settings .*lora"):
            wrong.on_load_checkpoint({**checkpoint, "state_dict": dict(checkpoint["state_dict"])})


def test_only_the_frozen_modality_is_cached(text_folder: Path, tmp_path: Path) -> None:
    """A fit with the cache is the one without it."""
    found = []
    for folder in (tmp_path / "cache", None):
        made = adapted(text_folder, image=None)
        settings = {"batch_size": 12, "workers": 0, "dtype": "float32", "modality_dropout": NO_DROPOUT}
        settings |= {"folder": None if folder is None else str(folder)}
        data = ImageTextDataModule(source_of(tmp_path), *made, **grouped(**settings))
        torch.manual_seed(0)
        task = FusionTask(made[0], made[1], data.facts, Concatenation(width=8), beta=0.0)
        trainer(max_epochs=2).fit(task, datamodule=data)
        found.append(task)
    assert [path.name.partition("-")[0] for path in (tmp_path / "cache").glob("*-*")] == ["images"]
    cached, plain = found
    assert not [*cached.classifier.image_encoder.backbone.parameters()]
    assert [*cached.classifier.text_encoder.backbone.parameters()]
    for name, value in plain.state_dict().items():
        if name in cached.state_dict():
            torch.testing.assert_close(cached.state_dict()[name], value, rtol=1e-3, atol=1e-5)


AT_ONCE = (
    "image_encoder.lora is trained by gradient steps, and {} is fitted at once to fixed features: set model.fusion"
)
REFUSED: dict[str, tuple[FusionModel, str]] = {
    "Stacking": (Stacking(), AT_ONCE.format("Stacking")),
    "LogisticRegression": (LogisticRegression(), AT_ONCE.format("LogisticRegression")),
    "TextOnly": (TextOnly(), "image_encoder.lora trains an encoder that TextOnly does not read: set it to null"),
    "ImageOnly": (ImageOnly(), "text_encoder.lora trains an encoder that ImageOnly does not read: set it to null"),
}


@pytest.mark.parametrize("model", REFUSED)
def test_models_that_train_no_updates(model: str, text_folder: Path) -> None:
    fusion, message = REFUSED[model]
    with pytest.raises(RobustTuneError, match=f"^{message}"):
        make_task(adapted(text_folder), fusion)
    make_task(adapted(text_folder, text=None), ImageOnly(width=8))


@pytest.fixture(scope="module")
def runs(food101: Path, text_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Return two runs with other seeds, of which the first is tested."""
    root = tmp_path_factory.mktemp("runs")
    flags = [*tiny_flags(food101, text_folder), "--data.cache.folder=null", "--trainer.precision=32-true"]
    flags += ["--image_encoder.lora={rank: 4, alpha: 8, targets: [query, value], first_layer: 5}"]
    flags += ["--text_encoder.lora.targets=[fc1, key]", "--model.optimizer.lr=0.01", f"--run_root={root}"]
    for seed in (0, 1):
        assert main(["fit", f"--config={CONFIGS}/food101.yaml", *flags, f"--seed_everything={seed}"]) == 0
    assert main(["test", f"--ckpt_path={root}/food101/0"]) == 0
    return [root / "food101/0", root / "food101/1"]


def test_a_run_is_tested_loaded_and_exported(runs: list[Path], food101: Path, tmp_path: Path) -> None:
    """Predictions are those of the test; the average of two runs is that of what each predicts."""
    assert_same(runs[0], food101)
    model = robusttune.load(runs[0])
    rows: dict[str, Any] = {"images": [np.zeros((40, 30, 3), dtype=np.uint8)] * 2, "texts": ["apple pie", "miso soup"]}
    first, second = model.predict_proba(**rows), robusttune.load(runs[1]).predict_proba(**rows)
    assert np.abs(first - second).max() > 1e-3
    np.testing.assert_allclose(robusttune.load(runs).predict_proba(**rows), (first + second) / 2, rtol=1e-5, atol=1e-7)
    exported = robusttune.load(model.save_pretrained(tmp_path / "model"))
    assert "| image | test\\_vit, with low-rank updates of its weights |" in (tmp_path / "model/README.md").read_text()
    assert exported.classifiers[0].encoder_settings["image_encoder"].lora is None  # type: ignore[attr-defined]
    np.testing.assert_array_equal(exported.predict_proba(**rows), first)
    again = robusttune.load(exported.save_pretrained(tmp_path / "again"))
    np.testing.assert_array_equal(again.predict_proba(**rows), first)
