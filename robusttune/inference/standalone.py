"""Standalone folders: a tuned model with its frozen encoders and tokenizer, in safetensors and JSON files.

`robusttune.json` has the settings, the facts about the training data, and digests; `model.safetensors` has the trained
weights; each encoder has a folder that its library can load by itself, with merged updates (`LoRA`) in its weights.
"""

from __future__ import annotations

import json
import shutil
from inspect import signature
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from robusttune.checkpoint_file import KEY, digest_of
from robusttune.encoders import Encoder
from robusttune.encoders.layered import LayeredEncoder
from robusttune.encoders.low_rank import is_update
from robusttune.errors import RobustTuneError
from robusttune.inference.construction import CLASSIFIERS, construct, own_weights, set_weights
from robusttune.models.classifier import ENCODERS, Classifier
from robusttune.paths import digest_of_file, partial_of
from robusttune.regular_files import describe_path
from robusttune.settings import argument_to_plain, from_plain, plain, to_plain
from robusttune.types import Facts

NAME, WEIGHTS, CARD = "robusttune.json", "model.safetensors", "README.md"
FORMAT = 1  # Raise it whenever folders of the version before can no longer be read.
SHARED = "encoder"  # folder of both encoders, if they are towers of one model
CONTENT = {"format", "digest", "task", "settings", "facts", "classes", *ENCODERS, "inputs", "sha256", "files"}
# Arguments of a classifier's constructor that are stored on their own, or change no prediction.
UNSTORED = {*ENCODERS, "facts", "compile", "checkpoint_activations"}
LONGEST = 1 << 28  # bytes of a JSON file


def is_standalone(path: Path) -> bool:
    """Return True if a path is a standalone folder."""
    return (path / NAME).is_file()


def write_standalone(classifier: Classifier, folder: Path, card: str) -> None:
    """Write a classifier with its encoders to a new folder, which appears only when it is complete and was read again.

    Args:
        classifier: Classifier on any device, whose weights are float32.
        folder: Folder that is created.
        card: Text of the model card, ``README.md``.

    Raises:
        RobustTuneError: The folder exists, the weights are not float32, or the encoders cannot be loaded again.
    """
    refuse_existing(folder)
    if classifier.temperatures.values.dtype != torch.float32:
        raise RobustTuneError("the model is in half precision: load it with dtype float32 to save it")
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = partial_of(folder)
    try:
        partial.mkdir()
        (partial / CARD).write_text(card, encoding="utf-8")
        _write(classifier, partial)
        read_standalone(partial)
        if folder.exists():  # an empty folder
            folder.rmdir()
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def read_standalone(folder: Path) -> Classifier:
    """Construct the classifier of a standalone folder, with all weights, on the CPU. Nothing is fetched.

    Raises:
        RobustTuneError: The folder is damaged, was changed, or was written by another version.
    """
    metadata, path = _read_metadata(folder), folder / WEIGHTS
    problem = describe_path(path)
    if problem is not None:
        raise RobustTuneError(f"{path} {problem}: fetch or export the folder again")
    try:
        weights = load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise RobustTuneError(f"{path} is damaged ({error!s:.100}): fetch or export the folder again") from None
    if metadata.get("digest") != digest_of({KEY: metadata, "state_dict": weights}):
        raise RobustTuneError(
            f"{folder} is not as it was written (its digest does not fit what it holds): use an unchanged copy"
        )
    _check_files(folder, metadata["files"])
    classifier = construct(metadata | {name: _located(metadata[name], folder) for name in ENCODERS})
    set_weights(classifier, weights, folder)
    if metadata["classes"] != classifier.class_names:
        classifier.set_classes(metadata["classes"])
    return classifier


def refuse_existing(folder: Path) -> None:
    """Check that a folder does not exist, or is empty.

    Raises:
        RobustTuneError: It exists.
    """
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise RobustTuneError(f"{folder} exists: give the name of a new folder")


def _write(classifier: Classifier, folder: Path) -> None:
    """Write the files of a classifier, see `write_standalone`."""
    places = _save_encoders(classifier, folder)
    own = {name: tensor for name, tensor in own_weights(classifier).items() if not is_update(name)}
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in own.items()}
    save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})
    others = sorted(path for path in folder.rglob("*") if path.is_file() and path.suffix != ".safetensors")
    metadata: dict[str, Any] = {
        "format": FORMAT,
        "task": next(name for name, cls in CLASSIFIERS.items() if type(classifier) is cls),
        "settings": {
            name: argument_to_plain(getattr(classifier, name))
            for name in signature(type(classifier)).parameters
            if name not in UNSTORED
        },
        "facts": classifier.facts._asdict(),
        "classes": list(classifier.class_names),
        **{name: _moved(to_plain(classifier.encoder_settings[name]), places[name]) for name in ENCODERS},
        "inputs": {name: plain(classifier.encoder_settings[name].inputs()) for name in ENCODERS},
        "sha256": {name: _hash_of_saved(classifier, name, folder / places[name]) for name in ENCODERS},
        "files": {str(path.relative_to(folder)): digest_of_file(path) for path in others if path.name != CARD},
    }
    metadata["digest"] = digest_of({KEY: metadata, "state_dict": weights})
    (folder / NAME).write_text(json.dumps(metadata, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _save_encoders(classifier: Classifier, folder: Path) -> dict[str, str]:
    """Save both encoders, towers of one whole model only once. Return the name of each encoder's folder."""
    settings = classifier.encoder_settings
    origins = [(each.name, each.weights, each.revision, getattr(each, "depth", None)) for each in settings.values()]
    is_adapted = any(each.is_adapted for each in settings.values())
    shared = origins[0] == origins[1] and origins[0][-1] is None and not is_adapted
    places = {name: SHARED if shared else name for name in ENCODERS}
    for name, encoder in settings.items():
        if isinstance(encoder, LayeredEncoder):
            encoder.save(folder / places[name], classifier.encoder(name).updated_weights())
        else:
            encoder.save(folder / places[name])
    return places


def _hash_of_saved(classifier: Classifier, name: str, place: Path) -> str:
    """Return the hash of the weights that an encoder has when it is loaded from its folder."""
    settings = classifier.encoder_settings[name]
    if not settings.is_adapted:
        return classifier.encoder(name).sha256
    saved: Encoder = from_plain(_moved(to_plain(settings), str(place)), Encoder)
    return saved.load().sha256


def _moved(encoder: dict[str, Any], place: str) -> dict[str, Any]:
    """Return the plain settings of an encoder with another location. Its weights are those in the folder."""
    moved = {**encoder["init_args"], "name": place, "weights": "pretrained", "revision": None}
    moved |= {"lora": None} if "lora" in moved else {}  # Updates are part of the weights there.
    return {"class_path": encoder["class_path"], "init_args": moved}


def _located(encoder: Any, folder: Path) -> dict[str, Any]:
    """Return the plain settings of a stored encoder with the path of its folder.

    Raises:
        RobustTuneError: The settings name another location.
    """
    arguments = encoder.get("init_args") if isinstance(encoder, dict) else None
    place = arguments.get("name") if isinstance(arguments, dict) else None
    if place not in (*ENCODERS, SHARED):
        raise RobustTuneError(f"{folder} names the encoder {place!s:.100}, which is not part of it: use another copy")
    return _moved(encoder, str((folder / place).absolute()))


def _read_metadata(folder: Path) -> dict[str, Any]:
    """Read the JSON file of a standalone folder.

    Raises:
        RobustTuneError: It is damaged, incomplete, or has another format number.
    """
    path = folder / NAME
    try:
        if path.stat().st_size > LONGEST:
            raise ValueError("it is too long")
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise RobustTuneError(f"{path} is damaged ({error!s:.100}): fetch or export the folder again") from None
    found = content.get("format") if isinstance(content, dict) else None
    if isinstance(found, int) and found > FORMAT:
        raise RobustTuneError(f"{path} has format {found}, and this version reads format {FORMAT}: update robusttune")
    if found != FORMAT or not content.keys() >= CONTENT or content["task"] not in CLASSIFIERS:
        raise RobustTuneError(f"{path} does not describe a model of this version: export the model again")
    facts, files = content["facts"], content["files"]
    if not isinstance(facts, dict) or facts.keys() != {*Facts._fields} or not isinstance(files, dict):
        raise RobustTuneError(f"{path} does not describe a model of this version: export the model again")
    return dict(content)


def _check_files(folder: Path, digests: dict[str, str]) -> None:
    """Check the configurations and tokenizers of the encoders, whose weights have their own hash.

    Raises:
        RobustTuneError: A file is missing, was changed, or lies outside of the folder.
    """
    for name, digest in digests.items():
        path, parts = folder / name, PurePosixPath(name)
        if parts.is_absolute() or ".." in parts.parts or not path.is_file() or digest_of_file(path) != digest:
            raise RobustTuneError(f"{path} is missing or was changed: fetch or export the folder again")
