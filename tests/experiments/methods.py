"""Which method for missing modalities is best on a CLIP, and what does each cost?

All methods train on the same samples with the same masks, and are tested under the same conditions, see `methods.yaml`.

    make methods
"""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Iterator
from pathlib import Path
from statistics import mean, stdev

from experiments.protocols import run, states_of
from experiments.records import RUNS, Results

PROTOCOL = Path(__file__).with_suffix(".yaml")
TRAINED = re.compile(r"^([\d,]+) parameters? (?:is|are) trained", re.MULTILINE)


def parameters(runs: Path) -> dict[tuple[str, str], int | None]:
    """Return the number of trained parameters by data set and method; None for a model that is fitted at once.

    Args:
        runs: Folder of the runs of all protocols.
    """
    found = {}
    for state in states_of(PROTOCOL, runs):
        assert state.folder is not None
        trained = TRAINED.search((state.folder.parent / "fit.log").read_text(encoding="utf-8"))
        labels = state.run.labels
        found[labels["dataset"], labels["method"]] = int(trained[1].replace(",", "")) if trained else None
    return found


def table(results: Results) -> str:
    """Return Markdown: trained parameters, seconds, and accuracy by condition with its deviation over seeds."""
    return "\n".join(_lines(results))


def _lines(results: Results) -> Iterator[str]:
    conditions = [name for name in results.jobs[0]["metrics"] if name != "mean"]
    heads = ["", "parameters", "seconds", *(name.replace("_", " ") for name in conditions)]
    yield f"| {' | '.join(heads)} |"
    yield "| --- " + "| ---: " * (len(heads) - 1) + "|"
    for dataset in dict.fromkeys(job["labels"]["dataset"] for job in results.jobs):
        yield f"| *{dataset}* " + "| " * (len(heads) - 1) + "|"
        jobs = [job for job in results.jobs if job["labels"]["dataset"] == dataset]
        methods = {
            method: [job for job in jobs if job["labels"]["method"] == method]
            for method in dict.fromkeys(job["labels"]["method"] for job in jobs)
        }
        means = {
            method: [mean(job["metrics"][name]["accuracy"] for job in own) for name in conditions]
            for method, own in methods.items()
        }
        best = [max(values) for values in zip(*means.values(), strict=True)]
        for method, own in methods.items():
            spreads = [stdev(job["metrics"][name]["accuracy"] for job in own) for name in conditions]
            cells = [f"{value:.3f} ± {spread:.3f}" for value, spread in zip(means[method], spreads, strict=True)]
            cells = [
                f"**{cell}**" if value == top else cell
                for cell, value, top in zip(cells, means[method], best, strict=True)
            ]
            count = own[0]["parameters"]
            seconds = f"{mean(job['seconds'] for job in own):.0f}"
            yield f"| {method} | {'-' if count is None else f'{count:,}'} | {seconds} | {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=Path("runs/protocols"), help="folder of the runs")
    parser.add_argument("--parallel", type=int, default=os.cpu_count(), help="runs at a time, one core each")
    given = parser.parse_args()
    runs = given.runs.resolve()
    results = run(PROTOCOL, runs, given.parallel, "python -m experiments.methods")
    counts = parameters(runs)
    for job in results.jobs:
        job["parameters"] = counts[job["labels"]["dataset"], job["labels"]["method"]]
    results.write(RUNS / "methods" / "results.json")
    print(table(results))


if __name__ == "__main__":
    main()
