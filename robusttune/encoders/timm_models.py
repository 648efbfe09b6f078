"""Descriptions of timm models: from timm's own list, a repository of the Hugging Face hub, or a local folder."""

from __future__ import annotations

import difflib
import json
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any, NamedTuple

import timm
from huggingface_hub import hf_hub_download
from timm.models import PretrainedCfg

from robusttune.encoders.weights import fetching, named_folder
from robusttune.errors import RobustTuneError

HUB = "hf-hub:"  # prefix of the names of repositories, as in timm
FILES = ("model.safetensors", "open_clip_model.safetensors", "pytorch_model.bin")


class TimmModel(NamedTuple):
    """What is known of a timm model before it is built.

    Attributes:
        name: Name of the model in timm, which may have a tag.
        cfg: Description of its weights and of its input.
        args: Arguments of its constructor that it was published with.
        place: Repository or folder that it comes from, for messages.
        described: Flag, True if ``cfg`` comes from a repository or a folder, False if timm itself has it.
    """

    name: str
    cfg: Any
    args: dict[str, Any]
    place: str
    described: bool

    def pretrained_cfg(self) -> dict[str, Any] | None:
        """Return the description as an argument of ``timm.create_model``; None where timm itself has it."""
        return asdict(self.cfg) if self.described else None


def find_model(name: str, weights: str, revision: str | None) -> TimmModel:
    """Return the description of a model.

    Args:
        name: Name in timm, ``hf-hub:`` with the name of a repository, or the path of a folder with ``config.json``.
        weights: Setting ``weights`` of the encoder.
        revision: Branch, tag or commit of the repository.

    Raises:
        RobustTuneError: There is no such model, or its description cannot be fetched or read.
    """
    if name.lower().startswith((HUB, HUB.replace("-", "_"))):
        return _on_hub(name[len(HUB) :], weights, revision)
    folder = None if timm.is_model(name) else named_folder(name)
    return _in_timm(name, revision) if folder is None else _in_folder(folder)


def weights_file(path: Path) -> Path:
    """Return the weights file at a path: the file itself, or the one with a known name in a folder.

    Raises:
        RobustTuneError: The folder holds no file with a known name.
    """
    if path.is_file():
        return path
    for name in FILES:
        if (path / name).is_file():
            return path / name
    raise RobustTuneError(f"{path} holds no {FILES[0]}: set weights to the file itself")


def write_config(model: TimmModel, path: Path) -> None:
    """Write a model's description as a ``config.json`` that `find_model` reads, without the place of its weights."""
    places = ("url", "file", "state_dict", "hf_hub_id", "source", "custom_load")
    described = {key: value for key, value in asdict(model.cfg).items() if key not in places and value is not None}
    architecture = model.name.split(".")[0]
    content = {"architecture": architecture, "model_args": model.args, "pretrained_cfg": described}
    path.write_text(json.dumps(content, indent=2, default=str) + "\n", encoding="utf-8")


def _in_timm(name: str, revision: str | None) -> TimmModel:
    cfg = timm.get_pretrained_cfg(name) if timm.is_model(name) else None
    if cfg is None:
        near = difflib.get_close_matches(name, timm.list_models() + timm.list_pretrained(), n=3)
        hub = f"{HUB}{name} if it is a repository of the Hugging Face hub" if "/" in name else ""
        raise RobustTuneError(
            f"timm has no model {name!r}: "
            + (f"did you mean {', '.join(near)}?" if near else hub or "timm.list_models() lists them")
        )
    place = cfg.hf_hub_id or cfg.url or "timm/"
    place += f"{cfg.architecture}.{cfg.tag}" if place.endswith("/") else ""
    if revision is not None:
        cfg = replace(cfg, hf_hub_id=f"{place}@{revision}")
    return TimmModel(name, cfg, {}, place, described=False)


def _on_hub(repository: str, weights: str, revision: str | None) -> TimmModel:
    if "@" in repository:
        raise RobustTuneError(f"image_encoder.name has a revision, {repository!r}: set image_encoder.revision to it")
    with fetching(repository, weights):
        path = Path(hf_hub_download(repository, "config.json", revision=revision))
    name, cfg, args = _read_config(path, repository)
    at = repository if revision is None else f"{repository}@{revision}"
    return TimmModel(name, replace(cfg, hf_hub_id=at, source="hf-hub"), args, repository, described=True)


def _in_folder(folder: Path) -> TimmModel:
    name, cfg, args = _read_config(folder / "config.json", str(folder))
    return TimmModel(name, replace(cfg, file=str(folder)), args, str(folder), described=True)


def _read_config(path: Path, place: str) -> tuple[str, Any, dict[str, Any]]:
    """Return the architecture, the description without any place of weights, and the arguments in a ``config.json``.

    Raises:
        RobustTuneError: The file cannot be read, or does not describe a timm model that is installed.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RobustTuneError(f"{place} has no readable config.json ({error!s:.120}): fetch or save it again") from None
    name = content.get("architecture") if isinstance(content, dict) else None
    if not isinstance(name, str):
        raise RobustTuneError(
            f"{place} is no timm model, its config.json names no architecture: for a model of transformers, use "
            "TransformersImageEncoder"
        )
    if not timm.is_model(name):
        raise RobustTuneError(f"timm {timm.__version__} has no model {name!r}, which {place} is: install a newer timm")
    known = {field.name for field in fields(PretrainedCfg)} - {"url", "file", "state_dict", "hf_hub_id", "source"}
    found = content.get("pretrained_cfg", content)  # old files have no such part
    found = found if isinstance(found, dict) else {}
    values = {key: tuple(value) if isinstance(value, list) else value for key, value in found.items() if key in known}
    try:
        cfg = PretrainedCfg(**values | {"architecture": name, "custom_load": False, "hf_hub_filename": None})
        return name, cfg, dict(content.get("model_args") or {})
    except (TypeError, ValueError) as error:
        raise RobustTuneError(
            f"{place} has a config.json that cannot be used ({error!s:.120}): save it again"
        ) from None
