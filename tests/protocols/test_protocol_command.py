"""The command ``protocol``: settings are checked before anything trains, and states are shown."""

from __future__ import annotations

import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import yaml

from robusttune.cli import main
from robusttune.commands import protocol as protocol_command
from robusttune.commands.resolved import Resolver
from robusttune.errors import RobustTuneError
from robusttune.protocols.identity import IdentifiedRun, identify
from robusttune.protocols.protocol_file import read_protocol

DEMO: dict[str, Any] = {
    "settings": {
        "trainer.max_epochs": 1,
        "trainer.log_every_n_steps": 1,
        "data.batch_size": 16,
        "data.source.train": 60,
        "data.source.val": 20,
        "data.source.test": 20,
        "image_encoder.layers": 2,
        "text_encoder.layers": 2,
    },
    "axes": {
        "method": {"MoLT": {"configs": ["demo"]}, "late": {"configs": ["demo", "baselines/late_fusion"]}},
        "seed": {1: {"settings": {"seed_everything": 1}}},
    },
}


@pytest.fixture(scope="module")
def resolve() -> Resolver:
    return Resolver()


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, resolve: Resolver, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in an empty folder, and parse in this process: another one would import everything anew in each test."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(protocol_command, "resolving", lambda: nullcontext(resolve))


def write(content: dict[str, Any], name: str = "small.yaml") -> str:
    Path(name).write_text(yaml.safe_dump(content, sort_keys=False))
    return name


def identified(content: dict[str, Any], resolve: Resolver, **settings: Any) -> list[IdentifiedRun]:
    protocol = read_protocol(write(content))
    return identify(protocol, protocol.runs(settings=settings), resolve, print)


def test_the_identity_is_that_of_the_full_settings(resolve: Resolver) -> None:
    """However the settings are written, and wherever the run is stored."""
    [first, second] = identified(DEMO, resolve)
    assert first.fit.identity != second.fit.identity != first.tests[0].identity
    other = {
        "configs": [write({"data": {"batch_size": 16}, "name": "other", "checkpoint_minutes": 3.0}, "batch.yaml")],
        "settings": {name: value for name, value in DEMO["settings"].items() if name != "data.batch_size"},
        "axes": {
            "seed": {7: {"settings": {"seed_everything": 1, "data.loader.prefetch": 2}}},  # the default
            "kind": {"x": {"configs": ["demo"]}},
        },
    }
    [same] = identified(other, resolve)
    assert same.fit.identity == first.fit.identity
    changed = identified(DEMO, resolve, **{"data.source.val": 21})[0]
    assert changed.fit.identity != first.fit.identity
    Path("batch.yaml").write_text("{data: {batch_size: 15}}")
    assert identified(other, resolve)[0].fit.identity != first.fit.identity  # the file has changed


def test_what_is_wrong_in_one_run_is_found_before_any_trains(resolve: Resolver) -> None:
    for part, message in (
        ({"configs": ["demmo"]}, "method=wrong seed=1: the configuration demmo does not exist"),
        (
            {"configs": ["demo"], "settings": {"data.sede": 1}},
            r"method=wrong seed=1: data.sede is no setting \(did you",
        ),
        ({"configs": ["demo"], "settings": {"model.beta": "x"}}, "model.beta is 'x', not a number"),
        ({"configs": ["demo"]}, "method=MoLT seed=1 and method=wrong seed=1 are the same fit"),
    ):
        axes = {**DEMO["axes"], "method": {**DEMO["axes"]["method"], "wrong": part}}
        with pytest.raises(RobustTuneError, match=message):
            identified({**DEMO, "axes": axes}, resolve)
    with pytest.raises(RobustTuneError, match=r"method=MoLT seed=1, test test: data.unknown is no setting"):
        identified({**DEMO, "tests": [{"settings": {"data.unknown": 1}}]}, resolve)


def test_data_that_are_missing_are_listed_with_their_path(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write({"axes": {"dataset": {"DTD": {"configs": ["dtd_mmrl"]}}, "seed": {1: {}}}})
    assert main(["protocol", "run", file, "--runs=out"]) == 1
    captured = capsys.readouterr()
    assert "DTD-seed1: data/dtd/split_zhou_DescribableTextures.json does not exist" in captured.out
    assert "1 run: 1 data missing" in captured.out
    assert "1 of 1 run failed or lack their data" in captured.err
    (tmp_path / "sets/dtd/images").mkdir(parents=True)
    (tmp_path / "sets/dtd/split_zhou_DescribableTextures.json").touch()
    assert main(["protocol", "status", file, "--runs=out", "--data-root=sets"]) == 0
    assert "1 run: 1 not started; folder out/small" in capsys.readouterr().out
    assert main(["protocol", "status", file, "--runs=out", "--data-root=other"]) == 0
    assert "DTD-seed1: other/dtd/split_zhou_DescribableTextures.json does not exist" in capsys.readouterr().out


def test_filters_add_up(capsys: pytest.CaptureFixture[str]) -> None:
    seeds = {number: {"settings": {"seed_everything": number}} for number in (1, 2, 3)}
    file = write({**DEMO, "axes": {**DEMO["axes"], "seed": seeds}})
    for only in (["--only", "method=late", "--only", "seed=1,3"], ["--only", "method=late", "seed=1", "seed=3"]):
        assert main(["protocol", "status", file, *only]) == 0
        out = capsys.readouterr().out
        assert "2 runs: 2 not started" in out
        assert "late-seed3" in out


def test_wrong_arguments(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write(DEMO)
    for args, message in (
        (["run", file, "--parallel=0"], "--parallel is 0: give at least 1"),
        (["run", file, "--set", "data.seed"], "--set 'data.seed' has no =: give --set NAME=VALUE"),
        (["run", file, "--runs", file], f"--runs {file} is no folder"),
        (["status", file, "--only", "method=molt"], "names 'molt', which method does not have: give one of MoLT, late"),
        (["status", "nothing"], "the protocol nothing does not exist"),
        (["status", "demo"], "is the configuration of one run, and no protocol"),
        (["statu", file], "invalid choice: 'statu'"),
    ):
        assert main(["protocol", *args]) == 1
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1
    assert not (tmp_path / "runs").exists()


def test_status_does_not_import_torch_a_second_time() -> None:
    file = write(DEMO)
    assert main(["protocol", "status", file]) == 0
    code = f"import sys; from robusttune.cli import main; main(['protocol', 'status', {file!r}])"
    code += "; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
