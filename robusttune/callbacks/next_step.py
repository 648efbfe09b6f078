"""The sentence at the end of a test: what to try next."""

from __future__ import annotations

from pathlib import Path

from robusttune.data import ImageTextDataModule
from robusttune.data.sources import Shapes
from robusttune.escaping import shell


def next_step(run: Path, data: object) -> str:
    """Return a sentence with commands that use a tested model.

    Args:
        run: Folder of the run.
        data: Data module of the test. After generated scenes, a fit on a table of one's own comes next.

    Example:
        >>> next_step(Path("runs/food101/0"), None)
        'Next: robusttune demo --ckpt_path runs/food101/0 tries it on a page, and robusttune predict ...'
    """
    checkpoint = f"--ckpt_path {shell(str(run))}"
    page = f"Next: robusttune demo {checkpoint} tries it on a page"
    if isinstance(data, ImageTextDataModule) and isinstance(data.source, Shapes):
        return f"{page}, and robusttune fit --config table --data.source.train my.csv trains on your own table"
    return f"{page}, and robusttune predict {checkpoint} --input my.csv predicts a table"
