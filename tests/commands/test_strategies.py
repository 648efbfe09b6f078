"""Strategies that cannot work are refused before anything is loaded, however they are asked for."""

from __future__ import annotations

from pathlib import Path

import pytest

from robusttune.cli import main

CONFIG = Path(__file__).parents[2] / "configs" / "food101.yaml"
OF_LIGHTNING = "lightning.pytorch.strategies"


def refusal(capsys: pytest.CaptureFixture[str], *flags: str) -> str:
    """What a fit says, of which neither data nor encoders exist: had it looked for these, it would speak of them."""
    status = main(["fit", f"--config={CONFIG}", "--data.source.root=/nowhere", "--image_encoder.name=none", *flags])
    assert status == 1
    return capsys.readouterr().err


@pytest.mark.parametrize(
    "strategy",
    [
        "fsdp",
        "FSDP",
        "fsdp_cpu_offload",
        "deepspeed",
        "deepspeed_stage_2",
        "deepspeed_stage_3_offload",
        "model_parallel",
        "FSDPStrategy",
        f"{OF_LIGHTNING}.FSDPStrategy",
        f"{OF_LIGHTNING}.DeepSpeedStrategy",
        f"{OF_LIGHTNING}.ModelParallelStrategy",
        "{class_path: lightning.pytorch.strategies.fsdp.FSDPStrategy, init_args: {cpu_offload: true}}",
    ],
)
def test_sharding_is_refused(strategy: str, capsys: pytest.CaptureFixture[str]) -> None:
    err = refusal(capsys, f"--trainer.strategy={strategy}")
    assert "shards a model" in err
    assert "set it to ddp" in err
    assert "Traceback" not in err
    assert len(err.strip().splitlines()) == 1


@pytest.mark.parametrize(
    "strategy",
    [
        "ddp_spawn",
        "ddp_fork",
        "ddp_notebook",
        "ddp_fork_find_unused_parameters_true",
        "{class_path: DDPStrategy, init_args: {start_method: fork}}",
    ],
)
def test_processes_out_of_this_one_are_refused(strategy: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert "set it to ddp" in refusal(capsys, f"--trainer.strategy={strategy}")


def test_sharding_in_a_file_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "sharded.yaml").write_text("trainer: {strategy: {class_path: FSDPStrategy}}")
    assert "shards a model" in refusal(capsys, f"--config={tmp_path}/sharded.yaml")


@pytest.mark.parametrize(
    "strategy",
    ["auto", "ddp", "ddp_find_unused_parameters_true", "{class_path: DDPStrategy, init_args: {static_graph: true}}"],
)
def test_others_are_not(strategy: str, capsys: pytest.CaptureFixture[str]) -> None:
    err = refusal(capsys, f"--trainer.strategy={strategy}")
    assert "strategy" not in err
    assert "/nowhere" in err
