"""Reading of YAML as plain data, within limits. A few lines of aliases can expand to more values than fit in memory."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import yaml

REPEATED = 100_000  # largest number of values that aliases may add
DEPTH = 100  # largest number of nested lists and mappings


class LimitError(yaml.MarkedYAMLError):  # type: ignore[misc]
    """The error that a YAML document exceeds the limits, or that an alias refers to a node that contains it."""


class Limited:
    """A mix-in for PyYAML loaders that checks a document against the limits before any object is constructed.

    Args:
        stream: YAML document, a string, bytes or a file object.

    Raises:
        LimitError: The document exceeds the limits.
    """

    def __init__(self, stream: Any) -> None:
        text = stream if isinstance(stream, str | bytes) else stream.read()
        check_depth(text)
        super().__init__(text)  # type: ignore[call-arg]

    def get_single_node(self) -> yaml.Node | None:
        """Return the root node of the document, or None if it is empty.

        Raises:
            LimitError: See `check_limits`.
        """
        node: yaml.Node | None = super().get_single_node()  # type: ignore[misc]
        if node is not None:
            check_limits(node)
        return node


class PlainLoader(Limited, getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """A YAML loader that constructs numbers, strings, dates, lists and dicts only, within the limits."""


class OnceLoader(Limited, yaml.SafeLoader):  # type: ignore[misc]
    """A YAML loader that refuses duplicate keys; plain YAML silently keeps the last value."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        keys: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.value == "<<":
                continue
            if key.value in keys:
                raise yaml.MarkedYAMLError(problem=f"{key.value} is given twice", problem_mark=key.start_mark)
            keys.add(key.value)
        mapping: dict[Hashable, Any] = super().construct_mapping(node, deep)
        return mapping


def read_plain_yaml(text: str) -> Any:
    """Parse a YAML document into plain data.

    Raises:
        yaml.YAMLError: The text is not valid YAML, names Python objects, or exceeds the limits.
        ValueError: The document contains a date that does not exist.

    Example:
        >>> read_plain_yaml("model: {alpha: 0.7}")
        {'model': {'alpha': 0.7}}
    """
    return yaml.load(text, PlainLoader)


def find_excess(value: Any) -> tuple[str, LimitError] | None:
    """Return a text in nested lists and dicts that exceeds the limits if it is read as YAML, and why; else None.

    Example:
        >>> found = find_excess({"name": ["a", "&a [*a]"]})
        >>> found[0], found[1].problem
        ('&a [*a]', 'an alias contains itself')
    """
    waiting = [value]
    while waiting:
        part = waiting.pop()
        if isinstance(part, list | dict):
            waiting += part.values() if isinstance(part, dict) else part
        elif isinstance(part, str) and ("*" in part or len(part) > DEPTH):  # Others are too short to exceed a limit.
            try:
                PlainLoader(part).get_single_node()
            except LimitError as error:
                return part, error
            except (yaml.YAMLError, UnicodeError):  # a text, and no YAML
                continue
    return None


def check_depth(text: str | bytes) -> None:
    """Check the nesting depth of a document, without expanding its aliases.

    LibYAML's loader composes nodes recursively, so that a document nested too deep overflows the stack.

    Raises:
        LimitError: The document has more than `DEPTH` levels.
    """
    depth = 0
    try:
        for event in yaml.parse(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > DEPTH:
                break
    except (yaml.YAMLError, UnicodeError, ValueError):  # The loader reports what is wrong.
        return
    if depth > DEPTH:
        problem = f"it is nested more than {DEPTH} levels deep"
        raise LimitError(problem=problem, problem_mark=event.start_mark)


def check_limits(document: yaml.Node) -> None:
    """Check the number of values and the nesting depth of a document after its aliases are expanded.

    Raises:
        LimitError: The document exceeds the limits, or an alias refers to a node that contains it.
    """
    values: dict[int, int] = {}  # number of values in each node's subtree, by the node's id
    depths: dict[int, int] = {}  # height of each node's subtree, by the node's id
    open_nodes: set[int] = set()
    waiting = [document]
    while waiting:
        node = waiting[-1]
        children = _children(node)
        if id(node) in values:
            waiting.pop()
        elif id(node) not in open_nodes:
            open_nodes.add(id(node))
            inner = next((child for child in children if id(child) in open_nodes), None)
            if inner is not None:
                raise LimitError(problem="an alias contains itself", problem_mark=inner.start_mark)
            waiting += [child for child in children if id(child) not in values]
        else:
            waiting.pop()
            open_nodes.discard(id(node))
            values[id(node)] = 1 + sum(values[id(child)] for child in children)
            depths[id(node)] = 1 + max((depths[id(child)] for child in children), default=0)
    if values[id(document)] > len(values) + REPEATED:
        problem = f"its aliases stand for more than {REPEATED:,} values"
        raise LimitError(problem=problem, problem_mark=document.start_mark)
    if depths[id(document)] > DEPTH:
        problem = f"it is nested more than {DEPTH} levels deep"
        raise LimitError(problem=problem, problem_mark=document.start_mark)


def _children(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [part for pair in node.value for part in pair]
    return list(node.value) if isinstance(node, yaml.SequenceNode) else []
