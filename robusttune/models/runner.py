"""How the parts of a network are run; this changes what they cost, and not what they return."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch._dynamo.exc import BackendCompilerFailed
from torch.utils.checkpoint import checkpoint

from robusttune.errors import RobustTuneError

T = TypeVar("T")
# Of one function: for training and for evaluation, for layers of every width, and where a size is 1.
COMPILED_AT_MOST = 64


class Runner:
    """Runs the parts of a network, each for itself, so that parts alike are compiled once.

    Args:
        compile: run them through torch.compile. Sizes are symbols, so that a batch of another size is no other graph;
            dropout draws the same numbers as without.
        checkpoint_activations: keep nothing of a part for the backward pass but what went into it, and run it once
            more there (Chen et al. 2016, arXiv 1604.06174); dropout drops the same.
    """

    def __init__(self, compile: bool = False, checkpoint_activations: bool = False) -> None:
        self.compile = compile
        self.checkpoint_activations = checkpoint_activations
        self._compiled: dict[Callable[..., Any], Callable[..., Any]] = {}

    def __call__(self, part: Callable[..., T], *given: Any) -> T:
        """What ``part`` makes of what it is given.

        Raises:
            RobustTuneError: it cannot be compiled, for want of a C++ compiler as a rule.
        """
        run = self._compile(part) if self.compile else part
        if not self.checkpoint_activations or not torch.is_grad_enabled():
            return run(*given)
        result: T = checkpoint(run, *given, use_reentrant=False)
        return result

    def _compile(self, part: Callable[..., T]) -> Callable[..., T]:
        if part not in self._compiled:
            torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, COMPILED_AT_MOST)
            compiled = torch.compile(part, dynamic=True, options={"fallback_random": True})

            def run(*given: Any) -> T:
                try:
                    return compiled(*given)
                except BackendCompilerFailed as error:
                    reason = " ".join(str(error.inner_exception).split())
                    raise RobustTuneError(
                        f"the model cannot be compiled ({reason:.200}): install a C++ compiler such as g++, or set "
                        "model.compile to false"
                    ) from error

            self._compiled[part] = run
        return self._compiled[part]
