"""Tables with published numbers beside one's own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from robusttune.protocols.ledger import AVERAGE, Published
from robusttune.protocols.measured import Measured
from robusttune.protocols.summaries.summary import Key
from robusttune.report.document import Section
from robusttune.report.sentences import heading
from robusttune.report.tables import Cell, Rows, Table

Matches = list[tuple[Key, Measured, Published]]


def published_sections(cells: Mapping[Key, Measured], ledger: Sequence[Published]) -> list[Section]:
    """Return a section for each method and source with published numbers, and one for other published methods.

    Args:
        cells: Values of the protocol.
        ledger: Published numbers for its kind of summary.
    """
    known = [published for published in ledger if published.value is not None]
    groups: dict[tuple[str, str], Matches] = {}
    for key, measured in cells.items():
        for published in known:
            if published.method == key.method and _same_place(key, published) and measured.values:
                groups.setdefault((key.method, published.source), []).append((key, measured, published))
    tables = [_beside(method, source, matches) for (method, source), matches in groups.items()]
    others = _other_methods(cells, known)
    return [Section(table.title, table, {}) for table in [*tables, *([others] if others else [])]]


def _same_place(key: Key, published: Published) -> bool:
    """Return whether a published number has the data set, condition and metric of a value."""
    same_kind = (published.condition, published.metric) == (key.condition, key.metric)
    return same_kind and published.is_for(key.dataset, key.over)


def _beside(method: str, source: str, matches: Matches) -> Table:
    """Return the table of a method, with a row per data set and three columns per metric."""
    metrics = [*dict.fromkeys(key.metric for key, _, _ in matches)]
    several = len({key.condition for key, _, _ in matches}) > 1
    rows: dict[str, dict[str, tuple[Measured, Published]]] = {}
    for key, measured, published in matches:
        rows.setdefault(_row_name(key, published, several), {})[key.metric] = (measured, published)
    columns = [f"{heading(metric)}, {kind}" for metric in metrics for kind in ("ours", "published", "difference")]
    body = [
        (name, [cell for m in metrics for cell in _cells(row.get(m))] + [Cell(_origins(p for _, p in row.values()))])
        for name, row in rows.items()
    ]
    note = _note(source, [published for _, _, published in matches])
    return Table(f"{method} beside {source}", [*columns, "origin"], [Rows("", body)], note)


def _row_name(key: Key, published: Published, several: bool) -> str:
    """Return the name of a row: the data set, and what distinguishes it from other rows of the data set."""
    return ", ".join(filter(None, [key.dataset, key.condition if several else "", published.precision]))


def _cells(found: tuple[Measured, Published] | None) -> list[Cell]:
    """Return own value, published value and difference."""
    if found is None:
        return [Cell(), Cell(), Cell()]
    measured, published = found
    mean = measured.mean
    assert mean is not None
    assert published.value is not None
    spread = "" if published.spread is None else f" ± {published.spread:.2f}"
    within = published.has_within_spread(mean)
    judged = {None: "", True: ", within the published spread", False: ", outside the published spread"}[within]
    return [
        Cell(measured.text),
        Cell(f"{published.value:.2f}{spread}"),
        Cell(f"{mean - published.value:+.2f}{judged}"),
    ]


def _origins(row: Iterable[Published]) -> str:
    return "; ".join(dict.fromkeys(published.origin for published in row))


def _note(source: str, entries: Sequence[Published]) -> str:
    """Return the setting of published numbers, their seeds, rules of averaging and remarks."""
    parts = [f"In percent. {source}: {'; '.join(dict.fromkeys(p.setting for p in entries))}."]
    seeds = {published.seeds for published in entries}
    parts += [f"Mean over {count} seeds." for count in seeds if count is not None and len(seeds) == 1]
    averages = dict.fromkeys(
        f"{heading(p.metric)} of the average row is the {p.averaging}" for p in entries if p.dataset == AVERAGE
    )
    parts += [f"Published {'; '.join(averages)}."] if averages else []
    spreads = any(p.spread is not None for p in entries)
    parts += [f"A published spread is known for {'some cells only' if spreads else 'no cell'}."]
    notes: dict[str, list[str]] = {}
    for p in entries:
        if p.note:
            notes.setdefault(p.note, []).append(f"{p.dataset}, {heading(p.metric)}")
    everywhere = len(entries)
    parts += [
        f"{note[0].upper()}{note[1:]}." if len(places) == everywhere else f"{'; '.join(places)}: {note}."
        for note, places in notes.items()
    ]
    return " ".join(parts)


def _other_methods(cells: Mapping[Key, Measured], known: Sequence[Published]) -> Table | None:
    """Return the table of published methods that are not part of the protocol.

    If there are averages, it has these only. A method with several sources has a row for each.
    """
    methods = {key.method for key in cells}
    places = {key._replace(method="") for key in cells}
    found = [
        (key, p) for key in sorted(places) for p in known if p.method not in methods and _same_place(key, p)
    ]
    found = [(key, p) for key, p in found if key.dataset == AVERAGE] or found
    if not found:
        return None
    columns = [*dict.fromkeys(key for key, _ in found)]
    rows: dict[tuple[str, str, str], dict[Key, Published]] = {}
    for key, p in found:
        rows.setdefault((p.method, p.source, p.origin), {})[key] = p
    body = [
        (_source_name(*row), [Cell(f"{by_key[key].value:.2f}") if key in by_key else Cell() for key in columns])
        for row, by_key in rows.items()
    ]
    headers = [", ".join(filter(None, [key.dataset, key.condition, heading(key.metric)])) for key in columns]
    note = f"In percent. {'; '.join(dict.fromkeys(p.setting for _, p in found))}. Not run here."
    return Table("Other published methods", headers, [Rows("", body)], note)


def _source_name(method: str, source: str, origin: str) -> str:
    """Return the name of a row: the method, its source unless it is the same, and the origin.

    Example:
        >>> _source_name("VaMP", "VaMP", "note by others")
        'VaMP (note by others)'
    """
    return f"{method} ({', '.join(filter(None, [source if source != method else '', origin]))})"
