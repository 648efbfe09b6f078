"""Reading of the YAML files that users write: configurations, protocols, search spaces."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from robusttune.errors import RobustTuneError
from robusttune.plain_yaml import OnceLoader
from robusttune.regular_files import describe_path, read_regular_text


def read_yaml_file(path: Path, what: str) -> Any:
    """Read a YAML file as plain data.

    Args:
        path: File.
        what: What the file is, for error messages, such as ``configuration``.

    Raises:
        RobustTuneError: The file does not exist, is no regular file, is not UTF-8 or not YAML, or has a key twice.
    """
    problem = describe_path(path)
    if problem is not None:  # A pipe is one, too: several processes read the file.
        raise RobustTuneError(f"the {what} {path!s:.300} {problem}: give the path of a YAML file")
    try:
        return yaml.load(read_regular_text(path), OnceLoader)
    except UnicodeDecodeError as error:
        raise RobustTuneError(f"{path} is no UTF-8 text (byte {error.start}): give a YAML file") from None
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise RobustTuneError(f"{path}{line} is not YAML ({error.problem}): correct it") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: an impossible date
        raise RobustTuneError(f"{path} is not YAML ({' '.join(str(error).split())}): give a YAML file") from None
