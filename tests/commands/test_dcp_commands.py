"""DCP and DPL through the command line: settings, conditions, a cache, published weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from fakes import method_flags
from pytorch_lightning.callbacks import ModelCheckpoint

import robusttune
from robusttune.checkpoint_file import read_checkpoint
from robusttune.cli import main
from robusttune.models import DCP, FusionClassifier, Prototypes

CONFIGS = Path(__file__).parents[2] / "configs"
QUERIES = "prompts_dynamic"


def flags_of(method: str, food101: Path, root: Path) -> list[str]:
    """Flags of a small fit on the demo CLIP."""
    configs = [f"--config={CONFIGS}/{name}.yaml" for name in ("food101", f"methods/{method}", "missing/both_70")]
    flags = [*method_flags(food101, Path("none"), method), "--trainer.precision=32-true", f"--run_root={root}"]
    flags += [f"--{modality}_encoder.name=robusttune:demo_clip" for modality in ("image", "text")]
    return [*configs, *flags, "--trainer.log_every_n_steps=1", "--trainer.accumulate_grad_batches=2"]


@pytest.fixture(scope="module")
def run(food101: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a fit of two steps of DPL on DCP."""
    root = tmp_path_factory.mktemp("runs")
    flags = ["--model.fusion.prototypes.margin=[0.1,0.2,0.3]", "--model.fusion.prototypes.missing=text"]
    assert main(["fit", *flags_of("dpl_dcp", food101, root), *flags]) == 0
    return root / "dpl_dcp/0"


def report_of(run: Path, *flags: str) -> dict[str, dict[str, Any]]:
    assert main(["test", f"--config={run}/config.yaml", f"--ckpt_path={run}/checkpoints/best.ckpt", *flags]) == 0
    found: dict[str, dict[str, Any]] = json.loads((run / "report/test.json").read_text())["conditions"]
    return found


def test_settings_within_settings_come_back(run: Path) -> None:
    """From the checkpoint alone."""
    (classifier,) = robusttune.load(run).classifiers
    assert isinstance(classifier, FusionClassifier)
    head = Prototypes(margin=(0.1, 0.2, 0.3), missing="text", share_untrained=False)
    assert classifier.fusion == DCP(6, 2, prototypes=head)


def test_a_checkpoint_with_other_margins_is_refused(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    test = ["test", f"--config={run}/config.yaml", f"--ckpt_path={run}/checkpoints/best.ckpt"]
    assert main([*test, "--model.fusion.prototypes.margin=[0.1,0.2,0.1]"]) == 1
    assert "model.fusion.prototypes.margin [0.1, 0.2, 0.1], not [0.1, 0.2, 0.3]" in capsys.readouterr().err


def test_published_weights_are_imported_and_exported(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The published code does not save the queries of dynamic prompts, and names the classifier by its data.

    The Lightning that it used saves its callbacks by their classes.
    """
    export = ["export", "--format=published", f"--ckpt_path={run}", f"--out={tmp_path}/whole.pth"]
    assert main(export) == 0
    whole = torch.load(tmp_path / "whole.pth", weights_only=True)["state_dict"]
    assert {"food101_pl_head.w_mi_c", "model.image_encoder.proj"} < {*whole}
    renamed = {name.replace("food101", "mmimdb"): tensor for name, tensor in whole.items()}
    queries = {name: tensor for name, tensor in renamed.items() if QUERIES in name}
    without = {name: tensor for name, tensor in renamed.items() if name not in queries}
    frozen = {"model.logit_scale": torch.zeros(()), "model.image_encoder.conv1.weight": torch.zeros(1)}
    callbacks = {ModelCheckpoint: {"best_model_score": torch.tensor(0.5)}}
    torch.save({"state_dict": without | frozen, "epoch": 10, "callbacks": callbacks}, tmp_path / "last.ckpt")
    load = ["import", f"--config={run}/config.yaml"]
    assert main([*load, f"--published={tmp_path}/last.ckpt", f"--out={tmp_path}/a.ckpt"]) == 1
    error = capsys.readouterr().err
    assert "lacks the queries of the dynamic prompts, which the published code neither trains nor saves" in error
    assert not (tmp_path / "a.ckpt").exists()
    drawn = [f"--published={tmp_path}/last.ckpt", f"--out={tmp_path}/drawn.ckpt", "--queries_seed=1"]
    assert main([*load, *drawn]) == 0
    told = capsys.readouterr().out
    assert (
        "Drawn from --queries_seed, as the checkpoint lacks them: image_dynamic.queries, text_dynamic.queries" in told
    )
    assert "2 frozen tensors ignored" in told
    torch.save(without | queries, tmp_path / "whole.ckpt")
    assert main([*load, f"--published={tmp_path}/whole.ckpt", f"--out={tmp_path}/imported/a.ckpt"]) == 0
    trained, again, drawn_again = (
        read_checkpoint(path)["state_dict"]
        for path in (run / "checkpoints/best.ckpt", tmp_path / "imported/a.ckpt", tmp_path / "drawn.ckpt")
    )
    assert trained.keys() == again.keys() == drawn_again.keys()
    assert all(torch.equal(tensor, again[name]) for name, tensor in trained.items() if "network" in name)
    differ = {name for name, tensor in trained.items() if not torch.equal(tensor, drawn_again[name])}
    assert differ >= {f"classifier.network.{modality}_dynamic.queries" for modality in ("image", "text")}
    assert all(name.endswith("queries") or "network" not in name for name in differ)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["dcp", "dpl"])
def test_a_cache_changes_nothing(method: str, food101: Path, tmp_path: Path) -> None:
    """Neither training nor testing, under conditions with and without noise, but for rounding.

    The layers below the network run on other batches. Those of DCP are the embeddings alone.
    """
    found = []
    conditions = "--data.evaluation.conditions=[complete,no_image,no_text,missing_both_50,noisy_text_typos_2]"
    for number, cache in enumerate(("null", f"{tmp_path}/cache")):
        flags = [f"--data.cache.folder={cache}", "--data.cache.dtype=float32"]
        assert main(["fit", *flags_of(method, food101, tmp_path / str(number)), *flags]) == 0
        found.append(report_of(tmp_path / str(number) / method / "0", conditions))
    for condition, values in found[0].items():
        assert found[1][condition] == pytest.approx(values, rel=1e-9 if method == "dcp" else 1e-5), condition
    assert [*found[0]] == ["complete", "no_image", "no_text", "missing_both_50", "noisy_text_typos_2", "mean"]
