"""YAML within limits: anchors as people use them work, what would never end is refused."""

from __future__ import annotations

import time

import pytest
import yaml

from robusttune.plain_yaml import DEPTH, REPEATED, read_plain_yaml


def test_anchors_as_people_use_them() -> None:
    text = "usual: &usual {lr: 1, width: 2}\nmore: {<<: *usual, lr: 3}\nlist: [*usual, *usual]\n"
    usual = {"lr": 1, "width": 2}
    assert read_plain_yaml(text) == {"usual": usual, "more": {"lr": 3, "width": 2}, "list": [usual, usual]}
    names = yaml.safe_dump({"names": [f"class {i}" for i in range(2 * REPEATED // 10)]})
    assert len(read_plain_yaml(names)["names"]) == 2 * REPEATED // 10


def test_as_many_levels_as_are_allowed() -> None:
    assert read_plain_yaml("[" * (DEPTH - 1) + "]" * (DEPTH - 1))
    with pytest.raises(yaml.YAMLError, match=f"nested more than {DEPTH} levels"):
        read_plain_yaml("[" * (DEPTH + 1) + "]" * (DEPTH + 1))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("&a [*a]", "contains itself"),
        ("&a {b: {c: [1, *a]}}", "contains itself"),
        ("&a {<<: *a}", "contains itself"),
        ("[" * 50_000, "nested more than 100 levels"),
        ("- " * 50_000 + "x", "nested more than 100 levels"),
        ("{a: " * 50_000, "nested more than 100 levels"),
        (
            "\n".join(["a0: &a0 x", *(f"a{i}: &a{i} [{f'*a{i - 1},' * 9}]" for i in range(1, 30))]),
            "more than 100,000 values",
        ),
        (
            "\n".join(["a0: &a0 {x: 1}", *(f"a{i}: &a{i} {{<<: [{f'*a{i - 1},' * 9}]}}" for i in range(1, 30))]),
            "100,000",
        ),
        ("!!python/object/apply:os.system [x]", "could not determine a constructor"),
    ],
)
def test_what_never_ends_is_refused_at_once(text: str, problem: str) -> None:
    begun = time.monotonic()
    with pytest.raises(yaml.YAMLError, match=problem):
        read_plain_yaml(text)
    assert time.monotonic() - begun < 10
