"""Overhead of `protocol run` over the bare commands, and seconds of `protocol status` of 500 runs.

The first part runs commands that do nothing, so that only the runner's own time remains: it starts them, looks for
their end, and writes records. The second part runs two real fits with a test each, in turn bare and as a protocol, from
an empty memory of identities: the difference contains the check of all settings before the first fit.

`python tests/benchmarks/bench_protocol.py`; add `--rounds 1` to see whether it runs.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter

sys.path.insert(0, str(Path(__file__).parents[1]))

import yaml
from benchmarks.paired import compare
from protocols import stand_in_runner

from robusttune.protocols.identity import Identified, IdentifiedRun
from robusttune.protocols.matrix import Overlay, PlannedRun
from robusttune.protocols.reading import read_states

STAND_INS, RUNS = 10, 2
SETTINGS = {
    "trainer.max_epochs": 1,
    "trainer.log_every_n_steps": 1,
    "trainer.enable_progress_bar": False,
    "data.batch_size": 16,
    "data.source.train": 100,
    "data.source.val": 40,
    "data.source.test": 40,
    "image_encoder.layers": 2,
    "text_encoder.layers": 2,
}


def call(folder: Path, *args: str) -> None:
    environment = {**os.environ, "XDG_CACHE_HOME": str(folder / "cache_home"), "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run(
        [sys.executable, "-m", "robusttune", *args], cwd=folder, env=environment, check=True, capture_output=True
    )


def bare(seeds: range) -> float:
    """Seconds of the fits and tests of some seeds."""
    with tempfile.TemporaryDirectory() as name:
        flags = [f"--{setting}={value}" for setting, value in SETTINGS.items()]
        start = perf_counter()
        for seed in seeds:
            call(Path(name), "fit", "--config=demo", *flags, f"--seed_everything={seed}", "--name=bare")
            call(Path(name), "test", f"--ckpt_path=runs/bare/{seed}")
        return perf_counter() - start


def as_protocol(seeds: range) -> float:
    """Seconds of the same as a protocol."""
    with tempfile.TemporaryDirectory() as name:
        values = {seed: {"settings": {"seed_everything": seed}} for seed in seeds}
        content = {"configs": ["demo"], "settings": SETTINGS, "axes": {"seed": values}}
        (Path(name) / "seeds.yaml").write_text(yaml.safe_dump(content))
        start = perf_counter()
        call(Path(name), "protocol", "run", "seeds.yaml")
        return perf_counter() - start


def commands_alone() -> float:
    """Seconds of stand-ins without a runner, per run."""
    with tempfile.TemporaryDirectory() as name:
        script = str(Path(stand_in_runner.__file__).with_name("stand_in.py"))
        start = perf_counter()
        for seed in range(STAND_INS):
            home = Path(name) / f"{seed}"
            home.mkdir()
            fit = ["fit", f"--seed={seed}", f"--run_root={name}", f"--name={seed}", "--seconds=0"]
            subprocess.run([sys.executable, script, *fit], check=True)
            for report in stand_in_runner.TESTS:
                test = ["test", f"--ckpt_path={home}/0/checkpoints/last.ckpt", f"--report={report}"]
                subprocess.run([sys.executable, script, *test], check=True)
        return (perf_counter() - start) / STAND_INS


def commands_of_a_runner() -> float:
    """Seconds of the same stand-ins as children of a runner, per run."""
    with tempfile.TemporaryDirectory() as name, open(os.devnull, "w") as nowhere:  # noqa: PTH123
        before, sys.stdout = sys.stdout, nowhere
        try:
            start = perf_counter()
            stand_in_runner.run(Path(name), STAND_INS, 1, "--seconds=0")
            return (perf_counter() - start) / STAND_INS
        finally:
            sys.stdout = before


def status_of_many() -> float:
    """Seconds to read the states of 500 finished runs."""
    config = Path(__file__).parents[2] / "configs/demo.yaml"
    with tempfile.TemporaryDirectory() as name:
        runs = [
            IdentifiedRun(PlannedRun({"seed": str(seed)}, Overlay(), ()), Identified(f"{seed:08}", {}, ()), ())
            for seed in range(500)
        ]
        for run in runs:
            folder = Path(name) / run.name / "0"
            folder.mkdir(parents=True)
            (folder / "config.yaml").write_bytes(config.read_bytes())
            (folder / "finished.json").write_text("{}")
        start = perf_counter()
        read_states(runs, Path(name), None)
        return perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    compare(
        "protocol-runner",
        "s a run with a fit and two tests",
        {"as a protocol": commands_of_a_runner, "bare": commands_alone},
        rounds=rounds,
    )
    seeds = range(RUNS)
    compare(
        "protocol",
        f"s of {RUNS} runs with a fit and a test each",
        {"as a protocol": lambda: as_protocol(seeds), "bare": lambda: bare(seeds)},
        rounds=rounds,
    )
    print(f"states of 500 finished runs: {status_of_many():.2f} s")


if __name__ == "__main__":
    main()
