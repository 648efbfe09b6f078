"""The model card of a tuned model: its data, classes, measured results, limits and encoders, as Markdown."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import yaml

from robusttune.counting import counted
from robusttune.encoders.weights import PACKAGED
from robusttune.models.classifier import Classifier
from robusttune.paths import user_path

FRONT = """---
library_name: robusttune
tags:
- image-classification
- text-classification
- multimodal
- missing-modality
---
"""
USE = """## Use

```python
import robusttune

model = robusttune.load("{place}")
print(model.predict(image="photo.jpg", text="a caption"))  # either may be left out
```

The folder is complete: robusttune loads it without a network.
"""
LIMITS = """## Limits

* The results above hold for data like that of the test. On other data, measure again: `robusttune test`.
* With neither image nor text, the prediction is the class frequencies of training.
* {classes}
* {probabilities}
* The encoders were trained by others on data that is not part of this model, and pass on its biases.
"""
CLOSED = "Every sample gets one of the classes above, also one that belongs to none of them."
SEVERAL = "A sample may get several of the classes above, or none. It never gets another one."
CALIBRATED = """Probabilities are calibrated on the validation split, with a temperature for image and text, one for the
  image alone and one for the text alone. On other data they may be too high."""
UNCALIBRATED = "Probabilities are not calibrated, and may be too high."
SHOWN = ("accuracy", "base_accuracy", "new_accuracy", "harmonic_mean", "balanced_accuracy", "f1_macro", "f1_micro")
OTHERS = ("average_precision", "calibration_error", "loss")


def model_card(classifier: Classifier, origin: str | Path | None) -> str:
    """Return the text of a model card, with the results of a run's test if it has been tested.

    Args:
        classifier: Classifier to describe.
        origin: Path that the classifier was loaded from. The card of a standalone folder is kept.
    """
    path = None if origin is None else user_path(origin)
    if path is not None and (path / "robusttune.json").is_file() and (path / "README.md").is_file():
        return (path / "README.md").read_text(encoding="utf-8")
    run = _run_folder(path)
    name = "A tuned model" if run is None else run.resolve().parent.name
    facts = classifier.facts
    kind = "any number" if facts.multilabel else "one"
    parts = [
        f"{FRONT}\n# {_plain(name)}\n\nThis model predicts {kind} of {len(classifier.class_names)} classes "
        "from an image, a text, or both. It is a small network "
        f"(`{type(classifier).__name__}`) on two frozen encoders, trained with robusttune so that a modality may be "
        "missing.\n",
        USE.format(place="owner/name"),
        f"## Data\n\n{_data(classifier, run)}\n",
        f"## Classes\n\n{_classes(classifier)}\n",
        f"## Results\n\n{_results(run, path)}\n",
        LIMITS.format(
            classes=SEVERAL if facts.multilabel else CLOSED,
            probabilities=CALIBRATED if (classifier.temperatures.values != 1).any() else UNCALIBRATED,
        ),
        f"## Encoders\n\n{_encoders(classifier)}\n",
    ]
    return "\n".join(parts)


def _run_folder(path: Path | None) -> Path | None:
    """Return the folder of the run that a path or a checkpoint belongs to, or None."""
    if path is None:
        return None
    candidates = [path, path.parent.parent] if path.is_file() else [path]
    return next((folder for folder in candidates if (folder / "checkpoints").is_dir()), None)


def _data(classifier: Classifier, run: Path | None) -> str:
    samples = classifier.facts.training_samples
    lines = ["* Training samples: " + ("unknown" if samples is None else f"{samples:,}")]
    config = _read(run, "config.yaml")
    source = config.get("data", {}).get("source", {}) if isinstance(config.get("data"), dict) else {}
    if isinstance(source, dict) and source.get("class_path"):
        lines.insert(0, f"* Source: {_plain(source['class_path'])}")
    report = _read(run, "report/test.json")
    counts = (report.get("data") or {}).get("samples")
    if isinstance(counts, dict):
        named = ", ".join(f"{value:,} {key.replace('_', ' ')}" for key, value in counts.items())
        lines.append(f"* Test samples: {report.get('samples', 0):,} ({named})")
    return "\n".join(lines)


def _classes(classifier: Classifier) -> str:
    """Return a table of the classes with their frequencies in training."""
    known = dict(zip(classifier.facts.class_names, classifier.facts.class_frequencies, strict=True))
    rows = [
        f"| {_plain(name)} | {f'{known[name]:.2%}' if name in known else 'not in training'} |"
        for name in classifier.class_names
    ]
    return "\n".join(["| Class | Frequency in training |", "| --- | --- |", *rows])


def _results(run: Path | None, path: Path | None) -> str:
    """Return a table with one row per condition, with 95 % intervals where they are known."""
    report = _read(run, "report/test.json")
    conditions, intervals = report.get("conditions"), report.get("intervals") or {}
    if not isinstance(conditions, dict) or not conditions:
        return "This model has not been tested: run `robusttune test` and write the card again."
    first = next(iter(conditions.values()))
    metrics = [name for name in (*SHOWN, *OTHERS) if name in first]
    lines = ["| Condition | " + " | ".join(name.replace("_", " ") for name in metrics) + " |"]
    lines.append("| --- |" + " --- |" * len(metrics))
    for condition, row in conditions.items():
        cells = [_cell(row.get(name), (intervals.get(condition) or {}).get(name)) for name in metrics]
        lines.append(f"| {_plain(condition)} | " + " | ".join(cells) + " |")
    tested = Path(str(report.get("checkpoint"))).name
    used = path.name if path is not None and path.is_file() else "best.ckpt"
    note = "" if tested == used else f" They are those of {_plain(tested)}, and this model is {_plain(used)}."
    text = f"Results on {counted(report.get('samples', 0), 'test sample')}, with 95 % confidence intervals.{note}"
    return f"{text}\n\n" + "\n".join(lines)


def _cell(value: float | None, interval: list[float] | None) -> str:
    if value is None:
        return "-"
    return f"{value:.3f}" if interval is None else f"{value:.3f} ({interval[0]:.3f} to {interval[1]:.3f})"


def _encoders(classifier: Classifier) -> str:
    lines = ["| Modality | Model | Revision | Licence |", "| --- | --- | --- | --- |"]
    for name, settings in classifier.encoder_settings.items():
        model = settings.name if settings.weights in ("pretrained", "random") else Path(settings.weights).name
        model = Path(model).name if Path(model).is_absolute() else model
        model += ", with low-rank updates of its weights" if settings.is_adapted else ""
        licence = "apache-2.0" if settings.name.startswith(PACKAGED) else settings.licence()
        licence = licence or "unknown: look it up before you pass the model on"
        revision = settings.revision or "-"
        lines.append(f"| {name.split('_')[0]} | {_plain(model)} | {_plain(revision)} | {_plain(licence)} |")
    return "\n".join(lines)


def _read(run: Path | None, name: str) -> dict[str, Any]:
    """Return the content of a YAML or JSON file of a run; an empty dictionary if it is missing or damaged."""
    try:
        text = "{}" if run is None else (run / name).read_text(encoding="utf-8")
        content = json.loads(text) if name.endswith(".json") else yaml.safe_load(text)
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    return content if isinstance(content, dict) else {}


def _plain(text: object) -> str:
    """Return a name on one line, without characters that Markdown or HTML would read."""
    return re.sub(r"([\\`*_{}\[\]<>#|])", r"\\\1", " ".join(str(text).split()))
