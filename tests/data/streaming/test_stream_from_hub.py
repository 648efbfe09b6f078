"""Streams from a stand-in of the Hugging Face hub."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from datasets import ClassLabel, Dataset, Features, Value
from datasets import Image as ImageFeature
from stand_in_hub import StandInHub
from tars import COLOURS, png

READ = """
import json
from robusttune.data.sources import HuggingFace, Stream
from robusttune.data.streaming.order import Part, Position, samples
source = HuggingFace("someone/dishes", stream=Stream())
stream = source.training_stream
val = source.read("val")
rows = [row for row, _ in samples(stream, Part(0, 0, 0, 1), Position())]
table, images = stream.records(rows)
sizes = {images.read(name).size for name in table["image"].to_pylist()}
print(json.dumps([val.num_rows, stream.class_names, sorted(table["text"].to_pylist()), [*sizes]]))
"""


@pytest.mark.slow
def test_a_data_set_of_the_hub(tmp_path: Path) -> None:
    features = Features({"image": ImageFeature(), "text": Value("string"), "label": ClassLabel(names=[*COLOURS])})
    for name, numbers in {"train-0": range(10), "train-1": range(10, 30), "validation-0": range(40, 52)}.items():
        images = [{"bytes": png(COLOURS[number % 3]), "path": None} for number in numbers]
        rows = [
            {"image": image, "text": f"thing {n}", "label": n % 3} for image, n in zip(images, numbers, strict=True)
        ]
        Dataset.from_list(rows, features=features).to_parquet(tmp_path / "dishes" / f"{name}.parquet")
    with StandInHub() as hub:
        hub.add("datasets", "someone/dishes", tmp_path / "dishes")
        environment = os.environ | hub.environment(tmp_path / "home")
        done = subprocess.run(
            [sys.executable, "-c", READ], env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        val, class_names, texts, sizes = json.loads(done.stdout)
    assert (val, class_names, sizes) == (12, [*COLOURS], [[32, 32]])
    assert texts == sorted(f"thing {number}" for number in range(30))
    kept = [path for path in (tmp_path / "home").rglob("*") if path.is_file() and "train" in path.name]
    assert not kept  # the training samples are not downloaded to the disk
