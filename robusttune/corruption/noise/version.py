"""Version of the noise, which becomes part of the keys of cached features."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import PIL

from robusttune.code_hash import code_hash
from robusttune.corruption import dropout


@cache
def noise_version() -> str:
    """Return a string that changes when the same settings may give other noise.

    It names the versions of NumPy and Pillow, whose random numbers and filters the noise uses, and a hash of the source
    files of this package and of the sample generator.

    Example:
        >>> noise_version().split()[::2][:2]
        ['numpy', 'pillow']
    """
    files = [*sorted(Path(__file__).parent.glob("*.py")), Path(dropout.__file__)]
    return f"numpy {np.__version__} pillow {PIL.__version__} {code_hash(*files)}"
