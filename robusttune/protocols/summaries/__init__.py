"""Summaries of a protocol's outcomes: tables and plots for each kind of protocol."""

from __future__ import annotations

from collections.abc import Callable

from robusttune.errors import RobustTuneError
from robusttune.protocols.outcomes import Outcome
from robusttune.protocols.summaries import base_to_new, conditions, few_shot, missing_rates, transfer
from robusttune.protocols.summaries.summary import Chosen, Summary

FUNCTIONS: dict[str, Callable[[list[Outcome], Chosen], Summary]] = {
    "base_to_new": base_to_new.summarise,
    "few_shot": few_shot.summarise,
    "transfer": transfer.summarise,
    "missing_rates": missing_rates.summarise,
    "conditions": conditions.summarise,
}


def summarise(kind: str, outcomes: list[Outcome], chosen: Chosen) -> Summary:
    """Return the tables and plots of a protocol.

    Args:
        kind: Kind of summary, one of `robusttune.protocols.kinds.AXES`.
        outcomes: Outcomes of all planned tests, at least one.
        chosen: Metric of each data set that replaces the main metric of its tests.

    Raises:
        RobustTuneError: There is no such kind of summary.
    """
    if kind not in FUNCTIONS:
        raise RobustTuneError(f"there is no summary {kind!r:.100}: choose from {', '.join(FUNCTIONS)}")
    return FUNCTIONS[kind](outcomes, chosen)


__all__ = ["Summary", "summarise"]
