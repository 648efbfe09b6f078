"""Write run folders as `fit` and `test` leave them, without running either."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from numpy.typing import NDArray

from robusttune.paths import digest_of_file

CONDITIONS = ("complete", "no_image", "no_text")
CLASSES = ("pie", "soup", "stew")
SHARD = "test.parquet/00000.parquet"  # predictions of the first process


def write_config(folder: Path, name: str, settings: Mapping[str, Any], seed: int) -> None:
    """Write the configuration of a run.

    Args:
        folder: Folder of the run, which is created.
        name: Name of the run.
        settings: Additional settings by their dotted path.
        seed: Value of all seeds, and of settings without influence on the results.
    """
    config: dict[str, Any] = {
        "seed_everything": seed,
        "name": name,
        "run_root": "runs",
        "model": {"class_path": "robusttune.tasks.FusionTask", "init_args": {"beta": 0.1}},
        "data": {
            "seed": seed,
            "loader": {"workers": seed},
            "missing": {"train": None},
            "source": {"class_path": "robusttune.data.sources.Shapes", "init_args": {"seed": seed, "train": 10}},
        },
        "trainer": {"max_epochs": 6, "enable_progress_bar": bool(seed)},
    }
    for path, value in settings.items():
        *groups, last = path.split(".")
        part = config
        for group in groups:
            part = part.setdefault(group, {})
        part[last] = value
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(config, allow_unicode=True))


def write_run(
    folder: Path,
    name: str,
    correct: Mapping[str, NDArray[np.bool_]],
    settings: Mapping[str, Any] | None = None,
    seed: int = 0,
    labels: Sequence[int] | None = None,
    ids: Sequence[str] | None = None,
    class_names: Sequence[str] = CLASSES,
    finished: bool = True,
    tested: bool = True,
    more: Mapping[str, Any] | None = None,
) -> Path:
    """Write a run on data with a single label per sample, and return its folder.

    Args:
        folder: Folder of the run, which is created.
        name: Name of the run in its configuration.
        correct: Flags of correct predictions by condition, shape (N,). A wrong prediction is the next class. If it is
            empty, the run is not tested.
        settings: Additional settings of the configuration by their dotted path.
        seed: Value of all seeds.
        labels: N class indices; by default the classes alternate.
        ids: N sample ids; by default they are generated.
        class_names: Names of the classes.
        finished: Flag for a fit that was not interrupted.
        tested: Flag for a run with test results.
        more: Entries of test.json that replace the generated ones; those under ``data`` are merged.
    """
    write_config(folder, name, settings or {}, seed)
    if finished:
        (folder / "finished.json").write_text(json.dumps({"epochs": 6, "steps": 144, "seconds": 31.2}))
    if not tested or not correct:
        return folder
    samples, classes = len(next(iter(correct.values()))), len(class_names)
    label = np.arange(samples) % classes if labels is None else np.asarray(labels)
    names = [f"s{number:06}" for number in range(samples)] if ids is None else list(ids)
    rng = np.random.default_rng(seed)
    columns: dict[str, list[Any]] = {key: [] for key in ("condition", "id", "label", "prediction", "confidence")}
    columns |= {"label_probability": [], "label_rank": []}
    for condition, right in correct.items():
        order = rng.permutation(samples)  # readers must not rely on the order of the rows
        predicted = np.where(right, label, (label + 1) % classes)
        confidence = rng.beta(5, 2, samples).astype(np.float32)
        columns["condition"] += [condition] * samples
        columns["id"] += [names[row] for row in order]
        columns["label"] += [class_names[label[row]] for row in order]
        columns["prediction"] += [class_names[predicted[row]] for row in order]
        columns["confidence"] += confidence[order].tolist()
        columns["label_probability"] += np.where(right, confidence, (1 - confidence) / 2)[order].tolist()
        columns["label_rank"] += np.where(right, 1, 2 + np.arange(samples) % 6)[order].tolist()
    types = {
        "condition": pa.dictionary(pa.int32(), pa.string()),
        "id": pa.string(),
        "label": pa.string(),
        "prediction": pa.string(),
        "confidence": pa.float32(),
        "label_probability": pa.float32(),
        "label_rank": pa.int32(),
    }
    values = {
        condition: {
            "accuracy": float(right.mean()),
            "top5_accuracy": float((right | (np.arange(samples) % 6 < 4)).mean()),
            "auroc": 0.5 + float(right.mean()) / 2,
            "calibration_error": 0.3 - float(right.mean()) / 5,
            "brier": 1 - float(right.mean()),
            "loss": 1.5 - float(right.mean()),
        }
        for condition, right in correct.items()
    }
    write_predictions(folder, columns, types, class_names, multilabel=False)
    write_test(folder, values, "accuracy", samples, seed, more)
    return folder


def write_multilabel_run(
    folder: Path, name: str, label: NDArray[np.bool_], prediction: Mapping[str, NDArray[np.bool_]], seed: int = 0
) -> Path:
    """Write a finished and tested run on multi-label data, and return its folder.

    Args:
        folder: Folder of the run, which is created.
        name: Name of the run in its configuration.
        label: Flags of the classes of each sample, shape (N, C).
        prediction: Flags of the predicted classes by condition, shape (N, C).
        seed: Value of all seeds.
    """
    write_config(folder, name, {}, seed)
    (folder / "finished.json").write_text(json.dumps({"epochs": 1, "steps": 1, "seconds": 1.0}))
    classes = [f"genre {number}" for number in range(label.shape[1])]
    rng = np.random.default_rng(seed)
    columns: dict[str, list[Any]] = {key: [] for key in ("condition", "id", "label", "prediction", "probabilities")}
    for condition, hot in prediction.items():
        columns["condition"] += [condition] * len(label)
        columns["id"] += [f"s{number:06}" for number in range(len(label))]
        columns["label"] += [[classes[c] for c in row.nonzero()[0]] for row in label]
        columns["prediction"] += [[classes[c] for c in row.nonzero()[0]] for row in hot]
        columns["probabilities"] += np.where(
            hot, rng.uniform(0.5, 1, hot.shape), rng.uniform(0, 0.5, hot.shape)
        ).tolist()
    types = {
        "condition": pa.dictionary(pa.int32(), pa.string()),
        "id": pa.string(),
        "label": pa.list_(pa.string()),
        "prediction": pa.list_(pa.string()),
        "probabilities": pa.list_(pa.float32()),
    }
    values = {}
    for condition, hot in prediction.items():
        hits, both = (hot & label).sum(0), hot.sum(0) + label.sum(0)
        class_f1 = np.where(both > 0, 2 * hits / np.maximum(both, 1), 0.0)
        values[condition] = {
            "f1_macro": float(class_f1.mean()),
            "f1_micro": float(2 * hits.sum() / max(both.sum(), 1)),
            "f1_weighted": float((class_f1 * label.sum(0)).sum() / label.sum()),
            "f1_samples": float((2 * (hot & label).sum(1) / np.maximum(hot.sum(1) + label.sum(1), 1)).mean()),
            "average_precision": 0.5,
            "loss": 0.4,
        }
    write_predictions(folder, columns, types, classes, multilabel=True)
    write_test(folder, values, "f1_macro", len(label), seed, None)
    return folder


def write_test(
    folder: Path,
    values: dict[str, dict[str, float]],
    headline: str,
    samples: int,
    seed: int,
    more: Mapping[str, Any] | None,
) -> None:
    """Write ``report/test.json``; the intervals extend 0.01 below and above the values.

    Args:
        folder: Folder of the run, which already has its predictions.
        values: Values by condition and metric.
        headline: Name of the headline metric.
        samples: Number of test samples.
        seed: Seed of the data.
        more: Entries that replace the generated ones; those under ``data`` are merged.
    """
    more = dict(more or {})
    metrics = [*next(iter(values.values()))]
    average = {m: float(np.mean([row[m] for row in values.values()])) for m in metrics}
    complete = values.get("complete", {}).get(headline)
    curves = {}
    for kind, all_missing in (("image", "no_image"), ("text", "no_text"), ("both", None)):
        rates = sorted(
            int(name.rpartition("_")[2]) for name in values if name.startswith(f"missing_{kind}_") and "+" not in name
        )
        names = ["complete", *(f"missing_{kind}_{rate}" for rate in rates)]
        fractions = [0.0, *(rate / 100 for rate in rates)]
        if all_missing in values:
            names, fractions = [*names, all_missing], [*fractions, 1.0]
        if rates and complete:
            heights = [values[name][headline] for name in names]
            curves[kind] = {
                "rates": fractions,
                "conditions": names,
                "values": heights,
                "area": float(np.dot(np.diff(fractions), np.add(heights[1:], heights[:-1]) / 2) / fractions[-1]),
            }
    content = {
        "checkpoint": str(folder / "checkpoints/best.ckpt"),
        "data": {
            "splits": {"val_fraction": 0.1, "shots": None, "classes": "all", "subset": None},
            "classes": "training",
            "seed": seed,
            "noise": {"image": None, "text": None},
            "missing": None,
            "mask": None,
            "samples": {"complete": samples, "image_only": 0, "text_only": 0, "neither": 0},
            **more.pop("data", {}),
        },
        "headline": headline,
        "samples": samples,
        "conditions": {**values, "mean": average},
        "intervals": {
            name: {m: [value - 0.01, value + 0.01] for m, value in row.items() if m != "calibration_error"}
            for name, row in {**values, "mean": average}.items()
        },
        "robustness": {
            "relative": {name: row[headline] / complete for name, row in values.items() if name != "complete"}
            if complete
            else {},
            "curves": curves,
        },
        "canonical_correlation": None,
        "files": {SHARD: digest_of_file(folder / "report" / SHARD)},
        **more,
    }
    (folder / "report/test.json").write_text(json.dumps(content))


def write_predictions(
    folder: Path, columns: dict[str, list[Any]], types: dict[str, Any], class_names: Sequence[str], multilabel: bool
) -> None:
    """Write ``report/test.parquet``, with one file.

    Args:
        folder: Folder of the run.
        columns: Values of each column by name.
        types: Arrow type of each column by name.
        class_names: Names of the classes.
        multilabel: Flag for samples with several labels.
    """
    (folder / "report" / SHARD).parent.mkdir(parents=True, exist_ok=True)
    metadata = {"multilabel": multilabel, "class_names": [*class_names]}
    schema = pa.schema(list(types.items()), metadata={b"robusttune": json.dumps(metadata).encode()})
    arrays = {
        name: pa.array(values, pa.string()).dictionary_encode()
        if pa.types.is_dictionary(types[name])
        else pa.array(values, types[name])
        for name, values in columns.items()
    }
    pq.write_table(pa.table(arrays, schema=schema), folder / "report" / SHARD)


def shares(samples: int, seed: int, **share: float) -> dict[str, NDArray[np.bool_]]:
    """Draw which samples are predicted correctly under each condition.

    The samples have random difficulties that all conditions share, so easy samples are correct under most of them.

    Args:
        samples: Number of samples N.
        seed: Random seed.
        share: Approximate fraction of correct predictions by condition, in [0, 1].

    Returns:
        Flags of correct predictions by condition, shape (N,).
    """
    rng = np.random.default_rng(seed)
    difficulty = rng.random(samples)
    return {name: difficulty + rng.normal(0, 0.05, samples) < value for name, value in share.items()}
