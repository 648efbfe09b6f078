"""The command lines of a protocol's fits and tests, and the data that their configurations name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from robusttune.packaged_configs import find_config
from robusttune.paths import user_path
from robusttune.protocols.matrix import Overlay, PlannedRun, PlannedTest
from robusttune.settings import as_flags

DATA = "data"  # the folder that the packaged configurations expect the data sets in
OF_THE_MODEL = ("model.", "image_encoder.", "text_encoder.", "trainer.")
WITH_FILES = ("data.source", "image_encoder", "text_encoder")
NEEDED = ("root", "image_root", "classnames")  # settings of a source that are always paths
WITHIN_ROOT = ("split_file", "image_folder")


def arguments_of_fit(run: PlannedRun) -> list[str]:
    """Return the arguments of a fit, without those of its folder."""
    return _arguments(run.overlay)


def arguments_of_test(run: PlannedRun, test: PlannedTest) -> list[str]:
    """Return the arguments of a test, without checkpoint and report.

    The settings of the fit come first, and the test is laid over them. If a configuration of the test sets the model,
    too, as that of another data set does, then the settings of the fit's model win over it.
    """
    own = {name: value for name, value in run.overlay.settings.items() if name.startswith(OF_THE_MODEL)}
    again = as_flags(own) if test.overlay.configs else []
    return [*_arguments(run.overlay), *_configs(test.overlay), *again, *as_flags(test.overlay.settings)]


def data_paths(settings: Mapping[str, Any]) -> dict[str, str]:
    """Return the paths of data in resolved settings, by the names of the settings.

    Args:
        settings: All settings of a command line, as nested plain data.

    Example:
        >>> data_paths({"data": {"source": {"class_path": "Food101", "init_args": {"root": "data/food101"}}}})
        {'data.source.root': 'data/food101'}
    """
    found = {}
    for group in WITH_FILES:
        part: Any = settings
        for key in group.split("."):
            part = (part or {}).get(key)
        for name, value in ((part or {}).get("init_args") or {}).items():
            if isinstance(value, str) and not name.endswith("_column") and (_is_below_data(value) or name in NEEDED):
                found[f"{group}.{name}"] = value
    source = (settings["data"].get("source") or {}).get("init_args") or {}
    within = [name for name in WITHIN_ROOT if isinstance(source.get(name), str) and "data.source.root" in found]
    # They come first: if the whole folder is missing, the name of the data set is in them.
    return {f"data.source.root/{name}": f"{source['root']}/{source[name]}" for name in within} | found


def data_root_flags(paths: Mapping[str, str], data_root: str | None) -> list[str]:
    """Return the flags that replace the leading ``data`` of relative paths by another folder.

    Args:
        paths: Paths by setting, see `data_paths`.
        data_root: The other folder; None changes nothing.

    Example:
        >>> data_root_flags({"data.source.root": "data/food101", "data.source.classnames": "/c.txt"}, "/sets")
        ['--data.source.root=/sets/food101']
    """
    if data_root is None:
        return []
    below = {name: path for name, path in paths.items() if _is_below_data(path) and "/" not in name}
    return [f"--{name}={_replaced(path, data_root)}" for name, path in below.items()]


def missing_data(paths: Mapping[str, str], data_root: str | None) -> str | None:
    """Return the first path that does not exist, or None if all do.

    Args:
        paths: Paths by setting, see `data_paths`.
        data_root: Folder that replaces a leading ``data``, or None.
    """
    for given in paths.values():
        path = given if data_root is None or not _is_below_data(given) else _replaced(given, data_root)
        if "://" not in path and not {*"*?["} & {*path} and not user_path(path).exists():
            return str(user_path(path))
    return None


def _is_below_data(path: str) -> bool:
    return path == DATA or path.startswith(f"{DATA}/")


def _replaced(path: str, data_root: str) -> str:
    return f"{data_root.rstrip('/') or '/'}{path.removeprefix(DATA)}"


def _arguments(overlay: Overlay) -> list[str]:
    return [*_configs(overlay), *as_flags(overlay.settings)]


def _configs(overlay: Overlay) -> list[str]:
    return [f"--config={path}" for path in map(find_config, overlay.configs)]
