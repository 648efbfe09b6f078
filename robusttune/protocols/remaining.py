"""An estimate of the remaining time of a protocol, from the runs that were finished so far."""

from __future__ import annotations

from collections.abc import Sequence

from robusttune.protocols.matrix import Labels

Duration = tuple[Labels, float]  # labels of a finished run, and its seconds


def remaining_seconds(finished: Sequence[Duration], waiting: Sequence[Labels], parallel: int) -> float:
    """Estimate the remaining seconds: each run takes as long as the finished ones that are most alike.

    Args:
        finished: Finished runs, at least one.
        waiting: Labels of the runs that are left.
        parallel: Number of runs at a time.

    Example:
        >>> finished = [({"dataset": "DTD", "seed": "1"}, 10.0), ({"dataset": "SUN397", "seed": "1"}, 90.0)]
        >>> remaining_seconds(finished, [{"dataset": "DTD", "seed": "2"}, {"dataset": "DTD", "seed": "3"}], 1)
        20.0
    """
    return sum(_seconds(finished, labels) for labels in waiting) / min(parallel, max(len(waiting), 1))


def in_words(seconds: float) -> str:
    """Return a duration in one unit.

    Example:
        >>> in_words(7.6), in_words(400), in_words(30000)
        ('8 s', '7 min', '8.3 h')
    """
    return (
        f"{seconds:.0f} s"
        if seconds < 120
        else f"{seconds / 60:.0f} min"
        if seconds < 7200
        else f"{seconds / 3600:.1f} h"
    )


def _seconds(finished: Sequence[Duration], labels: Labels) -> float:
    common = [sum(labels.get(axis) == label for axis, label in other.items()) for other, _ in finished]
    alike = [seconds for (_, seconds), count in zip(finished, common, strict=True) if count == max(common)]
    return sum(alike) / len(alike)
