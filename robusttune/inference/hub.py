"""Tuned models on the Hugging Face hub: a base class with the hub's usual methods, for `Predictor`."""

from __future__ import annotations

import re
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError, RepositoryNotFoundError

from robusttune.encoders.hub import offline
from robusttune.errors import RobustTuneError
from robusttune.inference.model_card import model_card
from robusttune.inference.standalone import NAME, write_standalone
from robusttune.models.classifier import Classifier
from robusttune.paths import user_path

if TYPE_CHECKING:
    from robusttune.inference.predictor import Predictor

REPOSITORY = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
FILES = ["*.safetensors", "*.json", "*.txt", "*.model", "*.md"]  # Nothing else of a repository is downloaded.


class HubModel:
    """A model with the methods ``save_pretrained``, ``from_pretrained`` and ``push_to_hub``.

    Attributes:
        classifiers: Classifiers of the model.
        origin: Path or name that the model was loaded from, or None.
    """

    classifiers: list[Classifier]
    origin: str | Path | None = None

    def save_pretrained(self, folder: str | Path) -> Path:
        """Write the model with its encoders, tokenizer and a model card to a folder, and return its path.

        `robusttune.load` reads the folder without a network, wherever it is moved to.

        Args:
            folder: Folder that is created.

        Raises:
            RobustTuneError: The folder exists, several models are averaged, or the model is in half precision.
        """
        if len(self.classifiers) > 1:
            raise RobustTuneError("several models are averaged, and a folder holds one: save each of them by itself")
        target = user_path(folder)
        write_standalone(self.classifiers[0], target, model_card(self.classifiers[0], self.origin))
        return target

    @classmethod
    def from_pretrained(cls, name: str | Path, **options: Any) -> Predictor:
        """Load a model from a folder that `save_pretrained` wrote, or from a repository of the Hugging Face hub.

        Args:
            name: Path of the folder, or name of the repository, as ``owner/name``.
            options: ``device`` and ``dtype``, see `robusttune.inference.load`.

        Raises:
            RobustTuneError: See `robusttune.inference.load`.
        """
        from robusttune.inference.loading import load

        return load(name, **options)

    def push_to_hub(self, name: str, private: bool = False, token: str | None = None) -> str:
        """Upload the model to the Hugging Face hub, in the form of `save_pretrained`, and return its address.

        Args:
            name: Name of the repository, as ``owner/name``. It is created if it does not exist.
            private: True to create a private repository.
            token: Token with the right to write; by default that of ``hf auth login``.

        Raises:
            RobustTuneError: The name is none of a repository, the upload fails, or see `save_pretrained`.
        """
        if not REPOSITORY.fullmatch(name):
            raise RobustTuneError(f"{name!r} is no name of a repository: give owner/name")
        if offline():
            raise RobustTuneError("HF_HUB_OFFLINE is set, and a model is uploaded through a network: unset it")
        with TemporaryDirectory() as temporary:
            folder = self.save_pretrained(Path(temporary) / "model")
            api = HfApi(token=token)
            try:
                api.create_repo(name, private=private, exist_ok=True)
                api.upload_folder(repo_id=name, folder_path=folder, commit_message="Upload model")
            except Exception as error:  # The client raises errors of many libraries.
                raise RobustTuneError(
                    f"{name} cannot be uploaded ({_reason(error)}): check the name, the token and the network"
                ) from error
        return f"{api.endpoint}/{name}"


def downloaded(name: str) -> Path | None:
    """Return the local copy of a repository of the Hugging Face hub; None if a name is a path.

    Args:
        name: Name as a user has passed it. It is a path if the folder before its slash exists.

    Raises:
        RobustTuneError: The repository does not exist, holds no model of this project, or cannot be downloaded.
    """
    # A mistyped path within a folder that exists is no repository, and asking a hub takes long without a network.
    if not REPOSITORY.fullmatch(name) or user_path(name).parent.is_dir():
        return None
    try:
        folder = Path(snapshot_download(name, allow_patterns=FILES))
    except LocalEntryNotFoundError:
        raise RobustTuneError(
            f"{name} is neither a path nor in the cache of the hub: check the path, or load it once with a network"
        ) from None
    except (RepositoryNotFoundError, EntryNotFoundError):
        raise RobustTuneError(f"{name} is neither a local path nor on the hub: check the name, and the token") from None
    except Exception as error:
        raise RobustTuneError(f"{name} is no local path, and cannot be downloaded ({_reason(error)})") from error
    if not (folder / NAME).is_file():
        raise RobustTuneError(f"{name} has no {NAME}: give a model that Predictor.push_to_hub uploaded")
    return folder


def _reason(error: Exception) -> str:
    return str(error).strip().split("\n")[0][:200].rstrip(".:") or type(error).__name__
