"""A model that knows no class names has base classes alone in a base-to-new table."""

from __future__ import annotations

from pathlib import Path

from robusttune.protocols.matrix import Protocol
from robusttune.protocols.outcomes import Outcome
from robusttune.protocols.report import document_of


def outcome(method: str, dataset: str, values: dict[str, float]) -> Outcome:
    return Outcome({"dataset": dataset, "method": method, "seed": "1"}, headline="x", values={"complete": {**values}})


def test_its_accuracy_is_that_of_base_classes() -> None:
    both = {"base_accuracy": 0.8, "new_accuracy": 0.6, "harmonic_mean": 0.6857}
    outcomes = [outcome("MMRL", dataset, both) for dataset in ("one", "two")]
    outcomes += [outcome("linear probe", dataset, {"accuracy": 0.9}) for dataset in ("one", "two")]
    protocol = Protocol("small", Path("small.yaml"), "Small", "base_to_new", axes={})
    [table] = document_of(protocol, outcomes).tables
    rows = {(title, name): [cell.text for cell in cells] for title, group in table.groups for name, cells in group}
    assert [row[0] for (_, name), row in rows.items() if name == "linear probe"] == ["90.00"] * 3
    assert {text for (_, name), row in rows.items() if name == "linear probe" for text in row[1:]} == {"-"}
    assert [row[1] for (_, name), row in rows.items() if name == "MMRL"] == ["60.00"] * 3
