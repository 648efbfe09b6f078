"""Read YAML as plain data, within limits: a few lines of aliases can stand for more values than fit into memory."""

from __future__ import annotations

from typing import Any

import yaml

REPEATED = 100_000  # values that aliases may stand for
DEPTH = 100  # levels of lists and mappings


class Limited:
    """A mix-in for loaders of PyYAML that refuses a document before anything is made of it."""

    def __init__(self, stream: Any) -> None:
        text = stream if isinstance(stream, str | bytes) else stream.read()
        check_depth(text)
        super().__init__(text)  # type: ignore[call-arg]

    def get_single_node(self) -> yaml.Node | None:
        node: yaml.Node | None = super().get_single_node()  # type: ignore[misc]
        if node is not None:
            check_limits(node)
        return node


class PlainLoader(Limited, getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Makes numbers, strings, lists and dicts, and nothing else."""


def read_plain_yaml(text: str) -> Any:
    """Return what a YAML document holds, as plain data.

    Raises:
        yaml.YAMLError: the text is no YAML, names objects of Python, or exceeds the limits.
        ValueError: it holds a date that does not exist.
    """
    return yaml.load(text, PlainLoader)


def check_depth(text: str | bytes) -> None:
    """Check how deep a document is, aliases aside. LibYAML's loader composes it recursively, and overflows the stack.

    Raises:
        yaml.MarkedYAMLError: it is nested too deep.
    """
    depth = 0
    try:
        for event in yaml.parse(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > DEPTH:
                break
    except (yaml.YAMLError, UnicodeError, ValueError):  # the loader says what is wrong
        return
    if depth > DEPTH:
        problem = f"it is nested more than {DEPTH} levels deep"
        raise yaml.MarkedYAMLError(problem=problem, problem_mark=event.start_mark)


def check_limits(document: yaml.Node) -> None:
    """Check how many values a document stands for once its aliases are replaced, and how deep it is.

    Raises:
        yaml.MarkedYAMLError: it exceeds the limits, or an alias stands for something that contains it.
    """
    values: dict[int, int] = {}  # by node, with all that it contains
    depths: dict[int, int] = {}
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
                raise yaml.MarkedYAMLError(problem="an alias contains itself", problem_mark=inner.start_mark)
            waiting += [child for child in children if id(child) not in values]
        else:
            waiting.pop()
            open_nodes.discard(id(node))
            values[id(node)] = 1 + sum(values[id(child)] for child in children)
            depths[id(node)] = 1 + max((depths[id(child)] for child in children), default=0)
    if values[id(document)] > len(values) + REPEATED:
        problem = f"its aliases stand for more than {REPEATED:,} values"
        raise yaml.MarkedYAMLError(problem=problem, problem_mark=document.start_mark)
    if depths[id(document)] > DEPTH:
        problem = f"it is nested more than {DEPTH} levels deep"
        raise yaml.MarkedYAMLError(problem=problem, problem_mark=document.start_mark)


def _children(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [part for pair in node.value for part in pair]
    return list(node.value) if isinstance(node, yaml.SequenceNode) else []
