"""Parsing of command lines in a process of its own, which ends afterwards: the parser takes a gigabyte of memory."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from typing import Any

from robusttune.protocols.identity import Resolve

_resolve: Any = None  # the parser, in the process of its own


@contextmanager
def resolving() -> Iterator[Resolve]:
    """Yield a parser like `robusttune.commands.resolved.Resolver`, whose process starts when it is first called."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context, initializer=_ignore_ctrl_c) as pool:
        yield lambda verb, args: pool.submit(_settings, verb, [*args]).result()


def _settings(verb: str, args: Sequence[str]) -> dict[str, Any]:
    global _resolve
    if _resolve is None:
        from robusttune.commands.resolved import Resolver

        _resolve = Resolver()
    settings: dict[str, Any] = _resolve(verb, args)
    return settings


def _ignore_ctrl_c() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # The terminal sends it to both processes.
