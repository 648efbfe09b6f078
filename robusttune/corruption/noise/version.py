"""Which code made noise."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import PIL

from robusttune.corruption import dropout
from robusttune.paths import code_hash


@cache
def noise_version() -> str:
    """What noise depends on beside its settings: this code, and the libraries whose numbers and filters it takes."""
    files = [*sorted(Path(__file__).parent.glob("*.py")), Path(dropout.__file__)]
    return f"numpy {np.__version__} pillow {PIL.__version__} {code_hash(*files)}"
