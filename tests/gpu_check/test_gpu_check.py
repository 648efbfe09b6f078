"""The GPU check: its processes and limits, its verdicts, its tables, and all of its parts in their small form."""

from __future__ import annotations

import json
import os
import time
import warnings
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from gpu_check import command, process, stepping
from gpu_check.command import main
from gpu_check.context import Context
from gpu_check.parts import PARTS, losses, machine, models, waits
from gpu_check.process import outcome, run_in_process
from gpu_check.results import PartResult, Record, Results
from gpu_check.tables import BLOCK, EMPTY, PAGE, TABLES, filled, markdown, published

RECORDS = [asdict(Record("first", True, {"a": 1.5}))]
HANGS = f"""
import json, os, subprocess, sys, time
folder = sys.argv[sys.argv.index("--folder") + 1]
open(folder + "/records.json", "w").write({json.dumps(RECORDS)!r})
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
open(os.environ["CHILD"], "w").write(str(child.pid))
time.sleep(600)
"""


@pytest.fixture
def context(tmp_path: Path) -> Context:
    folder = tmp_path / "files"
    folder.mkdir()
    return Context("cpu", True, folder, tmp_path / "records.json")


def verdicts(context: Context) -> dict[str, bool | None]:
    return {record.name: record.passed for record in context.records}


def test_a_part_that_hangs_is_ended_with_its_children_and_keeps_its_records(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script, child = tmp_path / "hangs.py", tmp_path / "child"
    script.write_text(HANGS)
    monkeypatch.setattr(process, "MAIN", script)
    monkeypatch.setenv("CHILD", str(child))
    start = time.perf_counter()
    result = run_in_process("models", "cpu", True, seconds=3)
    assert time.perf_counter() - start < 60
    assert (result.state, result.records) == ("timed out", [Record("first", True, {"a": 1.5})])
    for _ in range(100):
        if not is_running(int(child.read_text())):
            return
        time.sleep(0.1)
    pytest.fail("the child of the part is still running")


def is_running(pid: int) -> bool:
    """Return whether a process runs; one that has ended may wait for its parent as a zombie."""
    status = Path(f"/proc/{pid}/stat")
    return status.exists() and status.read_text().rsplit(")", 1)[1].split()[0] != "Z"


@pytest.mark.parametrize(
    ("status", "passed", "log", "state"),
    [
        (0, True, "", "passed"),
        (0, False, "", "failed"),
        (1, True, "Segmentation fault", "crashed"),
        (3, True, "the package timm is not installed", "package missing"),
        (None, True, "", "timed out"),
    ],
)
def test_the_state_of_a_part(tmp_path: Path, status: int | None, passed: bool, log: str, state: str) -> None:
    records = tmp_path / "records.json"
    records.write_text(json.dumps([asdict(Record("first", passed))]))
    result = outcome(status, 1.0, records, log)
    assert (result.state, len(result.records)) == (state, 1)
    assert log in result.note


def test_results_are_written_after_each_part_and_the_time_is_limited(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, seen = tmp_path / "new" / "out.json", []

    def run(part: str, device: str, small: bool, seconds: float) -> PartResult:
        seen.append((part, [*Results.read(out).parts] if out.exists() else []))
        time.sleep(0.3)
        return PartResult("failed" if part == "waits" else "passed", 0.3, records=[Record("x", part != "waits")])

    monkeypatch.setattr(command, "run_in_process", run)
    given = ["--device", "cpu", "--small", "--out", str(out), "--parts", "machine", "waits"]
    assert main(given) == 1
    assert seen == [("machine", []), ("waits", ["machine"])]
    assert Results.read(out).parts["waits"].state == "failed"
    monkeypatch.setattr(command, "LEAST", 0.9)
    assert main([*given, "losses", "--seconds", "1"]) == 0  # `waits` failed, but there was no time for it now
    assert [part.state for part in Results.read(out).parts.values()] == ["passed", "no time left", "no time left"]


def test_an_error_and_a_missing_package_do_not_stop_the_checks_after_them(context: Context) -> None:
    def fail(error: Exception) -> None:
        raise error

    with context.case("an error"):
        fail(ValueError("wrong"))
    with context.case("a package"):
        fail(ModuleNotFoundError("none", name="timm"))
    with context.case("the next"):
        context.add("the next", True, seconds=1.0)
    assert verdicts(context) == {"an error": False, "a package": None, "the next": True}
    assert "timm is not installed" in context.records[1].note
    kept = [Record(**record) for record in json.loads(context.results.read_text())]
    assert kept == context.records


def test_the_machine_and_a_model_in_their_small_form(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "SMALL", ("MMRL",))
    machine.run(context)
    models.run(context)
    assert len(context.records) == 3 + 6
    assert {*verdicts(context).values()} == {True}


def test_a_model_that_computes_something_else_on_the_device_fails(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Errors of 0.1 %, as TF32 makes them, pass in bfloat16 and not in float32."""
    step = stepping.step

    def inexact(task: object, batch: object, precision: str) -> tuple[torch.Tensor, list[torch.Tensor]]:
        loss, gradients = step(task, batch, "32-true")  # type: ignore[arg-type]
        return loss * next(factors), gradients

    monkeypatch.setattr(models, "step", inexact)
    monkeypatch.setattr(models, "SMALL", ("Experts in every pattern",))
    monkeypatch.setattr(models, "DTYPES", {"32-true": torch.float32, "bf16-mixed": torch.bfloat16})
    factors = iter([1.0, 1.001, 1.0] * 4)
    models.run(context)
    assert [*verdicts(context).values()] == [False, True] * 2


@pytest.mark.parametrize(
    ("change", "passes"), [(lambda x: 1.01 * x, True), (lambda x: 1.1 * x, False), (lambda x: float("nan"), False)]
)
def test_losses_that_differ(context: Context, change: object, passes: bool) -> None:
    expected = [2 - n / losses.STEPS for n in range(losses.STEPS)]
    losses.compare(context, "MoLT, 32-true", [change(loss) for loss in expected], expected)  # type: ignore[operator]
    assert verdicts(context) == {"MoLT, 32-true": passes}


def test_waits_are_named_by_their_place_and_known_ones_counted() -> None:
    with waits.places_of_waits() as places:
        for _ in range(2):
            warnings.warn(waits.WAITING, stacklevel=1)
        warnings.warn("something else", stacklevel=1)
    assert [*places.values()] == [2]
    assert "test_gpu_check.py" in next(iter(places))
    with waits.let_known_through() as counts:
        values = torch.linalg.svdvals(torch.eye(2))
    assert values.tolist() == [1, 1]
    assert counts == {"singular values of the correlation loss": 1}


def made_up() -> Results:
    """Return results in which one number is measured."""
    records = [Record("51 classes, batch 4", True, {"plain_ms": 123.4, "ours_ms": 12.34, "times_as_fast": 10.0})]
    parts = {"mmrl": PartResult("passed", 42.0, records=records)}
    return Results("NVIDIA H200", False, "2026-12-01", {"torch": "2.11.0"}, parts)


def test_tables_of_made_up_results(tmp_path: Path) -> None:
    made_up().write(tmp_path / "made_up.json")
    results = Results.read(tmp_path / "made_up.json")
    lines = markdown("gpu_mmrl", results).splitlines()
    assert lines[0] == "| NVIDIA H200 | plain, ms | robusttune, ms | times as fast | plain, MB | robusttune, MB |"
    assert lines[2] == f"| 51 classes, batch 4 | 123 | 12.3 | 10 | {EMPTY} | {EMPTY} |"
    assert lines[3] == f"| 51 classes, batch 32 |{f' {EMPTY} |' * 5}"
    assert f"| `mmrl` | {PARTS['mmrl'].title} | passed | 1 | 0 | 42 |" in markdown("gpu_parts", results)


def test_the_page_shows_every_table() -> None:
    assert {name for _, name, _ in BLOCK.findall(PAGE.read_text(encoding="utf-8"))} == {*TABLES, "gpu_parts"}


def test_small_results_are_not_published() -> None:
    results = made_up()
    results.small = True
    with pytest.raises(ValueError, match="not of a whole run on a GPU"):
        markdown("gpu_mmrl", results)


def test_the_page_agrees_with_the_results() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert filled(text, published()) == text, "run `make tables`"


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    "part",  # two processes with gloo are tested elsewhere, too
    [pytest.param(part, marks=pytest.mark.exhaustive) if part == "ranks" else part for part in PARTS],
)
def test_each_part_runs_in_its_small_form(part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And records what the tables show, by the same names, as far as the small form has them."""
    monkeypatch.setitem(os.environ, "OMP_NUM_THREADS", "1")
    out = tmp_path / "out.json"
    status = main(["--device", "cpu", "--small", "--out", str(out), "--parts", part])
    result = Results.read(out).parts[part]
    assert (status, result.state) == (0, "passed"), result
    assert result.records
    assert any(record.passed for record in result.records) or part in ("waits", "fusion")
