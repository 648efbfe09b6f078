"""Find configurations by name: a local file first, then the files that come with the package."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from robusttune.errors import RobustTuneError
from robusttune.paths import user_path
from robusttune.regular_files import describe_path

SUFFIXES = (".yaml", ".sbatch")
A_NAME = "a name that robusttune configs lists"


def packaged_folder() -> Path:
    """Return the folder of the packaged configurations: in the wheel, or the clone's ``configs`` if run from there."""
    package = Path(__file__).parent
    inside = package / "configs"
    return inside if inside.is_dir() else package.parent / "configs"


def packaged_files() -> dict[str, Path]:
    """Return the packaged files by name, folder by folder: ``food101``, ``conditions/full``, ``slurm/fit.sbatch``."""
    folder = packaged_folder()
    files = (path for path in folder.rglob("*") if path.suffix in SUFFIXES)
    in_order = sorted(files, key=lambda path: (path.parent, path.name))
    return {path.relative_to(folder).as_posix().removesuffix(".yaml"): path for path in in_order}


def packaged_name(given: str) -> str:
    r"""Return the name that a path has in the package.

    Example:
        >>> [packaged_name(path) for path in ("food101.yaml", "configs/food101", r"configs\conditions\full.yaml")]
        ['food101', 'food101', 'conditions/full']
    """
    return str(PurePosixPath(given.replace("\\", "/"))).removeprefix("configs/").removesuffix(".yaml")


def find_config(given: str) -> Path:
    """Return the file that ``--config`` names: a local one if there is one, else the packaged one.

    Whatever else exists at the path, such as a pipe, is returned for the reader to refuse; a folder is passed over.

    Raises:
        RobustTuneError: No such file exists.
    """
    if not given.strip():
        raise RobustTuneError(f"--config is empty: give the path of a YAML file, or {A_NAME}")
    path, name = user_path(given), packaged_name(given)
    what = describe_path(path)
    if what not in ("does not exist", "is a folder") or (path.is_symlink() and not path.exists()):
        return path
    packaged = {name: file for name, file in packaged_files().items() if file.suffix == ".yaml"}
    candidates = [Path(f"{path}.yaml"), *_in_local_configs(name), *([packaged[name]] if name in packaged else [])]
    found = next((candidate for candidate in candidates if describe_path(candidate) is None), None)
    if found is None:
        near = _near_matches(name, packaged)
        raise RobustTuneError(f"the configuration {given:.300} {what}: give the path of a YAML file, or {A_NAME}{near}")
    return found


def find_packaged(given: str) -> Path:
    """Return a packaged file by its name, or by its path in ``configs``.

    Raises:
        RobustTuneError: The package has no such file.
    """
    name, packaged = packaged_name(given), packaged_files()
    if name not in packaged:
        near = _near_matches(name, packaged)
        raise RobustTuneError(f"{given:.300} does not come with robusttune: give {A_NAME}{near}")
    return packaged[name]


def _in_local_configs(name: str) -> list[Path]:
    """Return where a name lies in the folder ``configs`` of the working folder; nowhere if it leads out of it."""
    return [] if ".." in PurePosixPath(name).parts else [Path("configs", f"{name}.yaml")]


def _near_matches(name: str, packaged: Iterable[str]) -> str:
    """Suggest up to five packaged names whose last part, or folder, is spelt like the last part of a name."""
    by_word: dict[str, list[str]] = {}
    for other in packaged:
        folder, _, last = other.rpartition("/")
        for word in {last, folder} - {""}:
            by_word.setdefault(word, []).append(other)
    word = name.rpartition("/")[2].lower()
    words = [word] if word in by_word else difflib.get_close_matches(word, by_word, cutoff=0.7)
    near = list(dict.fromkeys(other for word in words for other in by_word[word]))[:5]
    return f" (did you mean {', '.join(near)}?)" if near else ""
