"""Import of pandas, which robusttune itself does not need."""

from __future__ import annotations

from typing import Any

from robusttune.errors import RobustTuneError


def import_pandas() -> Any:
    """Return the module pandas.

    Raises:
        RobustTuneError: It is not installed.
    """
    try:
        import pandas
    except ImportError:
        raise RobustTuneError("pandas is not installed, and a table was asked for: pip install pandas") from None
    return pandas
