"""Tables with published numbers beside one's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from robusttune.protocols.ledger import AVERAGE, Published
from robusttune.protocols.measured import Measured
from robusttune.protocols.summaries.summary import Key
from robusttune.report.document import Section
from robusttune.report.sentences import heading
from robusttune.report.tables import Cell, Rows, Table

COLUMNS = ["ours", "published", "difference", "published spread", "origin"]
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
    """Return the table of a method, with a group per metric and a row per data set."""
    several = len({key.condition for key, _, _ in matches}) > 1
    groups: dict[str, Rows] = {}
    for key, measured, published in matches:
        name = ", ".join(filter(None, [key.dataset, key.condition if several else "", published.precision]))
        title = heading(key.metric)
        groups.setdefault(title, Rows(title, [])).rows.append((name, _cells(measured, published)))
    note = _note(source, [published for _, _, published in matches])
    return Table(f"{method} beside {source}", COLUMNS, [*groups.values()], note)


def _cells(measured: Measured, published: Published) -> list[Cell]:
    """Return the cells of `COLUMNS`. There is no difference for an average without some of its data sets."""
    assert published.value is not None
    spread = "" if published.spread is None else f" ± {published.spread:.2f}"
    mean = measured.final if published.over else measured.mean
    difference = None if mean is None else f"{mean - published.value:+.2f}"
    within = None if measured.final is None else published.has_within_spread(measured.final)
    judged = {None: Cell(), True: Cell("within the published spread"), False: Cell("outside the published spread")}
    numbers = [Cell(measured.text), Cell(f"{published.value:.2f}{spread}"), Cell(difference) if difference else Cell()]
    return [*numbers, judged[within], Cell(published.origin)]


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
    """Return the table of published methods that are not part of the protocol, with a column per method and source.

    If there are averages over the data sets of the protocol, it has these only.
    """
    methods = {key.method for key in cells}
    places = dict.fromkeys(key._replace(method="") for key in cells)
    found = [(key, p) for key in places for p in known if p.method not in methods and _same_place(key, p)]
    found = [(key, p) for key, p in found if key.dataset == AVERAGE] or found
    if not found:
        return None
    columns = [*dict.fromkeys(_source_name(p.method, p.source, p.origin) for _, p in found)]
    rows: dict[str, dict[str, Cell]] = {}
    for key, p in found:
        name = ", ".join(filter(None, [key.dataset, key.condition, heading(key.metric), p.precision]))
        rows.setdefault(name, {})[_source_name(p.method, p.source, p.origin)] = Cell(f"{p.value:.2f}")
    body = [(name, [row.get(column, Cell()) for column in columns]) for name, row in rows.items()]
    note = f"In percent. {'; '.join(dict.fromkeys(p.setting for _, p in found))}. Not run here."
    return Table("Other published methods", columns, [Rows("", body)], note)


def _source_name(method: str, source: str, origin: str) -> str:
    """Return the header of a column: the method, its source and the origin.

    Example:
        >>> _source_name("SyP", "SyP (ICCV 2025)", "note by others"), _source_name("LoRA", "MoRA's table", "paper")
        ('SyP (ICCV 2025), note by others', "LoRA (MoRA's table), paper")
    """
    return f"{source if source.startswith(method) else f'{method} ({source})'}, {origin}"
