"""What 64 conditions cost on 2,000 demo samples, beside the encoder passes that their distinct variants need.

One test with `configs/conditions/full.yaml`, without a cache: reading, noise, encoders, the model in every view,
metrics, intervals and files. The encoders' own time is taken in the same run: what slows the machine slows both.

`python tests/benchmarks/bench_conditions.py`
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from time import perf_counter
from typing import Any

from rich.console import Console

from robusttune.callbacks.run_folder import next_folder
from robusttune.cli import main as robusttune
from robusttune.encoders import FrozenEncoder

CONFIGS = Path(__file__).parents[2] / "configs"
FOLDER = Path("runs/benchmarks")
ROUNDS = 3


def run(*args: str) -> None:
    if robusttune(args):
        sys.exit(1)


def main() -> None:
    root = next_folder(FOLDER / "conditions")
    quiet = ["--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false", "--data.cache.folder=null"]
    run("fit", f"--config={CONFIGS}/demo.yaml", f"--run_root={root}", "--trainer.max_epochs=1", *quiet)
    folder, spent, rows = root / "demo/0", [0.0], [0]
    plain = FrozenEncoder.__call__

    def timed(self: FrozenEncoder, inputs: Any) -> Any:
        start = perf_counter()
        encoded = plain(self, inputs)
        spent[0] += perf_counter() - start
        rows[0] += len(inputs)
        return encoded

    FrozenEncoder.__call__ = timed  # type: ignore[method-assign]
    found = []
    for _ in range(ROUNDS):
        spent[0], rows[0], start = 0.0, 0, perf_counter()
        checkpoint = f"--ckpt_path={folder}/checkpoints/last.ckpt"
        full = f"--config={CONFIGS}/conditions/full.yaml"
        run("test", f"--config={folder}/config.yaml", full, checkpoint, *quiet, *sys.argv[1:])
        whole = perf_counter() - start
        found.append({"test_s": whole, "encoders_s": spent[0], "ratio": whole / spent[0], "inputs": rows[0]})
        Console().print(found[-1])
    (FOLDER / "conditions.json").write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
