"""Execution of a network's parts with compilation or activation checkpointing, which do not change the results."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch._dynamo.exc import BackendCompilerFailed
from torch.utils.checkpoint import checkpoint

from robusttune.errors import RobustTuneError

T = TypeVar("T")
# Maximum number of compiled variants of one function: training, evaluation, each layer width, and sizes of 1 need one
# each.
COMPILED_AT_MOST = 64


class Runner:
    """A caller of a network's parts. Each part is compiled on its own, so that equal parts are compiled once.

    Args:
        compile: True to run the parts through ``torch.compile`` with symbolic sizes, so that another batch size needs
            no new compilation. Dropout draws the same random numbers as without compilation.
        checkpoint_activations: True to store only the inputs of each part for the backward pass, and to run the part
            again there (Chen et al. 2016, arXiv 1604.06174). Dropout drops the same values both times.

    Example:
        >>> import torch
        >>> Runner()(torch.add, torch.tensor(1), torch.tensor(2))
        tensor(3)
    """

    def __init__(self, compile: bool = False, checkpoint_activations: bool = False) -> None:
        self.compile = compile
        self.checkpoint_activations = checkpoint_activations
        self._compiled: dict[Callable[..., Any], Callable[..., Any]] = {}

    def __call__(self, part: Callable[..., T], *arguments: Any) -> T:
        """Call ``part`` with the given arguments and return its result.

        Raises:
            RobustTuneError: The part cannot be compiled, usually because no C++ compiler is installed.
        """
        run = self._compile(part) if self.compile else part
        if not self.checkpoint_activations or not torch.is_grad_enabled():
            return run(*arguments)
        result: T = checkpoint(run, *arguments, use_reentrant=False)
        return result

    def _compile(self, part: Callable[..., T]) -> Callable[..., T]:
        """Return the compiled function of a part, compiling it at its first call."""
        if part not in self._compiled:
            torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, COMPILED_AT_MOST)
            compiled = torch.compile(part, dynamic=True, options={"fallback_random": True})

            def run(*arguments: Any) -> T:
                """Call the compiled function and report a failed compilation in one sentence."""
                try:
                    return compiled(*arguments)
                except BackendCompilerFailed as error:
                    reason = " ".join(str(error.inner_exception).split())
                    raise RobustTuneError(
                        f"the model cannot be compiled ({reason:.200}): install a C++ compiler such as g++, or set "
                        "model.compile to false"
                    ) from error

            self._compiled[part] = run
        return self._compiled[part]
