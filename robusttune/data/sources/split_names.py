"""The names of splits in Hugging Face data sets."""

from __future__ import annotations

import logging
from collections.abc import Collection
from dataclasses import dataclass, fields

from robusttune.errors import RobustTuneError
from robusttune.types import Split

log = logging.getLogger(__name__)

ALIASES: dict[Split, tuple[str, ...]] = {  # other names of a split, used where the data set lacks the usual one
    "train": ("training",),
    "val": ("valid", "val", "dev", "eval", "evaluation", "development"),
    "test": ("testing",),
}


@dataclass(frozen=True)
class SplitNames:
    """The data set's own names of the four splits.

    If a field has its default and the data set has no split of that name, a synonym in `ALIASES` is used, such as
    ``dev`` for ``validation``. This is logged, and so are splits of the data set that remain unused.

    Args:
        train: Split to train on, or null for none.
        val: Split to validate on, or null to hold out a part of ``train``.
        test: Split to test on, or null for none.
        predict: Split to predict, or null for none.
    """

    train: str | None = "train"
    val: str | None = "validation"
    test: str | None = "test"
    predict: str | None = None

    def find(self, path: str, found: Collection[str]) -> dict[Split, str]:
        """Find the data set's splits that are used, and log replaced names and unused splits.

        Args:
            path: Name or path of the data set, for messages.
            found: Names of all splits of the data set.

        Returns:
            Names of the splits in the data set, by robusttune's split. Splits that the data set lacks are left out.

        Raises:
            RobustTuneError: If a name differs from its default and the data set has no split of that name.

        Example:
            >>> SplitNames().find("own", ["train", "dev"])
            {'train': 'train', 'val': 'dev'}
        """
        given: dict[Split, str | None] = {field.name: getattr(self, field.name) for field in fields(self)}  # type: ignore[misc]
        used: dict[Split, str] = {}
        for split, name in given.items():
            if name is None or name in found:
                match = name
            elif name == getattr(SplitNames, split):
                match = next((s for s in ALIASES[split] if s in found and s not in given.values()), None)
            else:
                has = ", ".join(found)
                raise RobustTuneError(f"{path} has no split {name!r} (it has {has}): correct data.source.split_names")
            if match is not None:
                used[split] = match
            if match != name and match is not None:
                log.warning("%s has no split %s: its split %s is used", path, name, match)
        left_out = [split for split, name in given.items() if name is None and split != "predict"]
        known = {*used.values()} | {name for s in left_out for name in (getattr(SplitNames, s), *ALIASES[s])}
        unused = [name for name in found if name not in known]
        if unused:
            log.warning(
                "%s has splits that are not used, %s: name them in data.source.split_names if they should be",
                *(path, ", ".join(unused)),
            )
        return used
