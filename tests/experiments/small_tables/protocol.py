"""Write the protocol of the suite, `protocol.yaml`, from the descriptions of the tables that are built.

PYTHONPATH=tests python -m experiments.small_tables.protocol data/small_tables
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from experiments.records import ROOT
from experiments.small_tables.features import LINKED, descriptions, encoder_file
from experiments.small_tables.splits import SPLITS

PROTOCOL = Path(__file__).with_suffix(".yaml")
HEAD = """\
# Protocol: small real tables, three splits each, complete samples, no image and no text. Every row is tested once.
#   make small-tables WEIGHTS=mobilenetv2_100.safetensors    # builds the tables in data/small_tables
#   robusttune protocol run tests/experiments/small_tables/protocol.yaml    # from the root of the clone
# Written by python -m experiments.small_tables.protocol. A seed stands for a split, the seed of the initial weights and
# that of the rows that are held out for validation.
title: Small tables
summary: conditions
"""
TAIL = """\
settings:
  data.source.id_column: id
  data.evaluation.conditions: [complete, no_image, no_text]
  data.cache.folder: auto
  data.loader.workers: 0  # the features are in memory
"""
METHODS = {
    "auto": "{}",  # the recipe of table.yaml chooses
    "linear": "{configs: [fusion/linear]}",
    "stacking": "{configs: [fusion/stacking]}",
    "MoLT": "{configs: [fusion/molt]}",
    "Experts": "{configs: [fusion/experts]}",
    "late fusion": "{configs: [baselines/late_fusion]}",
}


def protocol(tables: list[dict[str, Any]]) -> str:
    """Return the protocol for tables with these descriptions."""
    return HEAD + "\n".join(_lines(tables)) + "\n" + TAIL


def _lines(tables: list[dict[str, Any]]) -> Iterator[str]:
    yield "axes:"
    yield "  dataset:"
    for one in tables:
        encoders = encoder_file(one["encoders"]).relative_to(ROOT)
        labels = ", settings: {data.source.multilabel: true}" if one["task"] == "multi-label" else ""
        yield f"    {one['name']}: {{configs: [table, {encoders}]{labels}}}"
    yield "  method:"
    yield from (f"    {name}: {overlay}" for name, overlay in METHODS.items())
    yield "  seed:"
    yield from (f"    {split}: {{settings: {{seed_everything: {split}, data.seed: {split}}}}}" for split in SPLITS)
    yield "combinations:"
    for one in tables:
        for split in SPLITS:
            folder = f"{LINKED}{one['name']}"
            files = f"data.source.train: {folder}/{split}-train.jsonl, data.source.test: {folder}/{split}-test.jsonl"
            yield f"  - {{where: {{dataset: {one['name']}, seed: {split}}}, settings: {{{files}}}}}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("suite", type=Path, help="tables that `python -m experiments.small_tables.build` has written")
    PROTOCOL.write_text(protocol(descriptions(parser.parse_args().suite)), encoding="utf-8")


if __name__ == "__main__":
    main()
