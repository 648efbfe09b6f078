"""What Hugging Face data sets call their splits."""

from __future__ import annotations

import logging
from collections.abc import Collection
from dataclasses import dataclass, fields

from robusttune.errors import RobustTuneError
from robusttune.types import Split

log = logging.getLogger(__name__)

ALIASES: dict[Split, tuple[str, ...]] = {  # used where a data set has no split of the usual name
    "train": ("training",),
    "val": ("valid", "val", "dev", "eval", "evaluation", "development"),
    "test": ("testing",),
}


@dataclass(frozen=True)
class SplitNames:
    """Names that a data set has for the splits.

    A usual name that the data set lacks is replaced by one that means the same, such as ``dev`` for ``validation``;
    that is logged, and so are splits that are not used.

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

    def __post_init__(self) -> None:
        for field in fields(self):
            # `--data.source.split_names.val=null` arrives as a text: jsonargparse 4.53 prints a null this deep.
            if getattr(self, field.name) in ("None", "null", ""):
                object.__setattr__(self, field.name, None)

    def find(self, path: str, found: Collection[str]) -> dict[Split, str]:
        """Return the names of the splits that are used.

        Args:
            path: The data set, for messages.
            found: Names of all its splits.

        Raises:
            RobustTuneError: It has no split of a name that is not the usual one.

        Example:
            >>> SplitNames().find("own", ["train", "dev"])
            {'train': 'train', 'val': 'dev'}
        """
        given: dict[Split, str | None] = {field.name: getattr(self, field.name) for field in fields(self)}  # type: ignore[misc]
        used: dict[Split, str] = {}
        for split, name in given.items():
            if name is None or name in found:
                own = name
            elif name == getattr(SplitNames, split):
                own = next((other for other in ALIASES[split] if other in found and other not in given.values()), None)
            else:
                has = ", ".join(found)
                raise RobustTuneError(f"{path} has no split {name!r} (it has {has}): correct data.source.split_names")
            if own is not None:
                used[split] = own
            if own != name and own is not None:
                log.warning("%s has no split %s: its split %s is used", path, name, own)
        left_out = [split for split, name in given.items() if name is None and split != "predict"]
        known = {*used.values()} | {name for s in left_out for name in (getattr(SplitNames, s), *ALIASES[s])}
        unused = [name for name in found if name not in known]
        if unused:
            log.warning(
                "%s has splits that are not used, %s: name them in data.source.split_names if they should be",
                *(path, ", ".join(unused)),
            )
        return used
