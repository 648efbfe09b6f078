"""Methods that are composed of others, such as one whose setting was chosen separately for each target."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

from robusttune.protocols.outcomes import Outcome
from robusttune.protocols.results import Result

Test = TypeVar("Test", Outcome, Result)


def with_composed(tests: Sequence[Test], composed: Mapping[str, Mapping[str, str]]) -> list[Test]:
    """Add the tests of composed methods.

    Args:
        tests: Outcomes or results of all tests.
        composed: Method by the data set of the test, which is the target if there is one, for each composed method.

    Returns:
        The tests, and copies with the labels of the composed methods.

    Example:
        >>> tests = [Outcome({"dataset": "ImageNet", "target": "DTD", "method": f"beta {beta}"}) for beta in (0.5, 0.9)]
        >>> with_composed(tests, {"beta per target": {"DTD": "beta 0.5"}})[2].labels["method"]
        'beta per target'
    """
    found = [*tests]
    for label, methods in composed.items():
        for test in tests:
            dataset = test.labels.get("target", test.labels.get("dataset", ""))
            if dataset in methods and test.labels.get("method") == methods[dataset]:
                found.append(replace(test, labels=test.labels | {"method": label}))
    return found
