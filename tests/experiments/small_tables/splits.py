"""Three stratified splits of a table, whose test rows are disjoint: every row is tested once."""

from __future__ import annotations

from collections import Counter, defaultdict

from experiments.small_tables.rows import Row, SmallTable, order

SPLITS = (1, 2, 3)


def tested_in(table: SmallTable) -> dict[str, int]:
    """Return the split in which each row is tested, by id.

    Rows are dealt to the splits class by class in a random order. Those of a multi-label table are dealt by their
    rarest class, so that rare classes are in every split.
    """
    sizes = table.class_sizes()
    strata: dict[str, list[Row]] = defaultdict(list)
    for row in order(table.rows, "split"):
        strata[min(row.labels, key=lambda label: (sizes[label], label))].append(row)
    in_order = [row for name in sorted(strata) for row in strata[name]]
    return {row.id: SPLITS[place % len(SPLITS)] for place, row in enumerate(in_order)}


def split_rows(table: SmallTable, split: int) -> tuple[list[Row], list[Row]]:
    """Return the training rows and the test rows of a split, both in the order of the table."""
    tested = tested_in(table)
    test = [row for row in table.rows if tested[row.id] == split]
    train = [row for row in table.rows if tested[row.id] != split]
    return (train if table.per_class is None else _few(train, table.per_class, split)), test


def _few(rows: list[Row], per_class: int, split: int) -> list[Row]:
    """Return a number of rows of each class."""
    taken: Counter[str] = Counter()
    chosen = set()
    for row in order(rows, f"few {split}"):
        if taken[row.labels[0]] < per_class:
            taken[row.labels[0]] += 1
            chosen.add(row.id)
    return [row for row in rows if row.id in chosen]
