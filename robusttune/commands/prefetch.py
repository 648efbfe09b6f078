"""The command ``prefetch``: download all files of a configuration, and check that it then works without a network."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple, get_args

from huggingface_hub import constants
from huggingface_hub.utils import get_session  # type: ignore[attr-defined]
from jsonargparse import Namespace
from rich.console import Console
from rich.filesize import decimal
from rich.table import Table

from robusttune.commands.data_config import read_data
from robusttune.commands.hub_cache import Repository, tables_folder
from robusttune.data import ImageTextDataModule
from robusttune.data.sources import HuggingFace
from robusttune.encoders import Encoder
from robusttune.encoders.hub import PREFETCH, offline
from robusttune.encoders.weights import record_repositories
from robusttune.errors import RobustTuneError
from robusttune.escaping import shell
from robusttune.paths import user_path
from robusttune.terminal import cell, print_line
from robusttune.types import Split

OF_THE_HUB = ("HF_", "HUGGINGFACE_", "TRANSFORMERS_")  # prefixes of the hub clients' environment variables
TRY = "import sys; from robusttune.commands.prefetch import load_all; load_all(sys.argv[1:])"


class Loaded(NamedTuple):
    """The outcome of loading everything that a configuration names.

    Attributes:
        given: Parsed settings.
        repositories: Hub repositories that were looked up, each with the names of the settings that refer to it.
        problem: Error that ended the loading, or None.
    """

    given: Namespace
    repositories: dict[Repository, list[str]]
    problem: RobustTuneError | None


def run(args: list[str]) -> None:
    """Run the command. In offline mode (``HF_HUB_OFFLINE=1``) it only checks the files on disk.

    Args:
        args: Arguments of the command line after ``prefetch``.

    Raises:
        RobustTuneError: A file is not available or is damaged.
    """
    if not offline():
        _check_connection()
    given, repositories = _fetch(args)
    environment = _environment(repositories)
    if not offline():
        _try_offline(args, environment)
    table = _table(given, repositories)
    if table.row_count:
        Console().print(table)
    print_line(
        "All files are on disk and can be loaded without a network, if the job finds them at the same paths, on a file "
        "system that its nodes share. Set there:"
    )
    print_line("")
    for name, value in environment.items():
        print_line(f"export {name}={shell(value)}")


def _check_connection() -> None:
    """Check that the hub answers. Its clients themselves would retry for a minute with every file.

    Raises:
        RobustTuneError: The hub does not answer.
    """
    try:
        get_session().head(constants.ENDPOINT, timeout=constants.HF_HUB_ETAG_TIMEOUT)
    except Exception as error:  # The type depends on the HTTP library of the client.
        raise RobustTuneError(
            f"{constants.ENDPOINT} cannot be reached ({error}): run this with a network, or with "
            "HF_HUB_OFFLINE=1 to check the files on disk"
        ) from None


def load_all(args: list[str]) -> None:
    """Load all encoders and data that fit, test and predict load with a configuration, one after the other.

    Args:
        args: Arguments of the command line after ``prefetch``.

    Raises:
        RobustTuneError: A file is neither on disk nor can it be downloaded.
    """
    problem = _load(args).problem
    if problem is not None:
        raise problem


def _load(args: list[str]) -> Loaded:
    given, data = read_data("prefetch", "Download what a configuration needs.", args, lambda _: None)
    found: dict[Repository, list[str]] = {}
    try:
        for setting, encoder in {"image_encoder": data.image_encoder, "text_encoder": data.text_encoder}.items():
            with record_repositories() as names:
                try:
                    _load_encoder(encoder)
                finally:
                    for name in sorted(names):
                        found.setdefault(Repository(name, encoder.revision, "model"), []).append(setting)
        if isinstance(data.source, HuggingFace) and data.source.on_hub:
            found[Repository(data.source.path, data.source.revision, "dataset")] = ["data.source"]
            if data.source.stream is not None:
                raise RobustTuneError("data.source.stream reads from the hub while training: it needs a network there")
        _load_data(data)
    except RobustTuneError as error:
        return Loaded(given, found, error)
    return Loaded(given, found, None)


def _load_encoder(encoder: Encoder) -> None:
    encoder.inputs()
    encoder.load()


def _load_data(data: ImageTextDataModule) -> None:
    rows = {split: data.rows(split) for split in get_args(Split)}
    if rows["train"] is not None:
        data.check("fit")


def _fetch(args: list[str]) -> tuple[Namespace, dict[Repository, list[str]]]:
    """Load everything. Remove damaged files and load again, until no file is damaged.

    Raises:
        RobustTuneError: A file is not available, or is damaged again after it was downloaded once more.
    """
    removed: set[Path] = set()
    while True:
        given, repositories, problem = _load(args)
        found = {repository: repository.damaged() for repository in repositories}
        damaged = [path for paths in found.values() for path in paths]
        if not damaged:
            break
        if offline():
            raise RobustTuneError(f"{damaged[0]} is damaged: {PREFETCH}")
        if again := removed.intersection(damaged):
            raise RobustTuneError(f"{min(again)} is damaged again after a second download: check the network and disk")
        for repository, paths in found.items():
            if paths:
                repository.remove(paths)
        for path in damaged:
            print_line(f"{path} was damaged, and is downloaded again")
        removed.update(damaged)
    if problem is not None:
        raise problem
    # With random weights, only a model's configuration is read, or nothing. So leave out repositories without files.
    return given, {repository: settings for repository, settings in repositories.items() if repository.folder}


def _environment(repositories: dict[Repository, list[str]]) -> dict[str, str]:
    """Return the environment variables to set on a machine without a network."""
    environment = {"HF_HUB_OFFLINE": "1"}
    if not repositories:
        return environment
    home = Path(constants.HF_HOME).absolute()
    environment["HF_HOME"] = str(home)
    locations = {"HF_HUB_CACHE": (Path(constants.HF_HUB_CACHE), home / "hub")}
    if ["data.source"] in repositories.values():
        locations["HF_DATASETS_CACHE"] = (tables_folder(), home / "datasets")
    return environment | {
        name: str(path.absolute()) for name, (path, default) in locations.items() if path.absolute() != default
    }


def _try_offline(args: list[str], environment: dict[str, str]) -> None:
    """Load everything in another process that has only these variables of the hub's clients, and so is offline.

    Raises:
        RobustTuneError: The loading fails.
    """
    other = {name: value for name, value in os.environ.items() if not name.startswith(OF_THE_HUB)}
    done = subprocess.run(
        [sys.executable, "-c", TRY, *args], env=other | environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        reason = (done.stderr.strip() or f"exit status {done.returncode}").splitlines()[-1]
        reason = reason.rpartition("RobustTuneError: ")[2]
        raise RobustTuneError(f"the downloaded files cannot be loaded without a network: {reason}")


def _table(given: Namespace, repositories: dict[Repository, list[str]]) -> Table:
    table = Table()
    for title in ("setting", "name", "revision", "where", "size"):
        table.add_column(title, overflow="fold", justify="right" if title == "size" else "left")
    for repository, settings in repositories.items():
        revision = f"{repository.revision or 'main'} ({repository.commit:.7})"
        where, size = _short(repository.folder), decimal(repository.size)
        table.add_row(*map(cell, (", ".join(settings), repository.name, revision, where, size)))
    for setting, path in _local(given):
        size = decimal(path.stat().st_size) if path.is_file() else ""
        table.add_row(setting, "", "", cell(path.absolute()), size)
    return table


def _short(path: Path | None) -> str:
    """Return a path with its beginning abbreviated to ``$HF_HOME``."""
    return str(path).replace(f"{constants.HF_HOME}/", "$HF_HOME/", 1)


def _local(given: Namespace) -> list[tuple[str, Path]]:
    """Return the files and folders that the configuration names, each with its setting."""
    return [
        (name.replace(".init_args", ""), user_path(value))
        for name, value in given.items()
        if name.startswith(("data.", "image_encoder.", "text_encoder.")) and _is_path(name, value)
    ]


def _is_path(name: str, value: Any) -> bool:
    return isinstance(value, str) and not name.endswith(("_column", "class_path")) and user_path(value).exists()
