"""Parity and size of ONNX exports, by model and pattern of present modalities, in each precision."""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from time import perf_counter

from inference.models import MODELS

from robusttune.inference.onnx import write_onnx

RESULTS = Path("runs/benchmarks/export.json")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="*", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("--precisions", nargs="*", default=["float32"])
    given = parser.parse_args()
    rows = []
    for name in given.models:
        for precision in given.precisions:
            with tempfile.TemporaryDirectory() as temporary:
                begun = perf_counter()
                report = write_onnx(MODELS[name](), Path(temporary) / "model", precision)
            row = {"model": name, "seconds": round(perf_counter() - begun, 1), **report}
            rows.append(row)
            differences = " ".join(f"{pattern} {value:.1e}" for pattern, value in report["difference"].items())
            size = report["bytes"]["model.onnx"] / 1e6
            print(f"{name:<32} {precision:<8} {size:6.1f} MB  {differences}  ({row['seconds']} s)", flush=True)
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
