"""Counting of floating-point operations (FLOPs) in running code."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode, flop_registry


@dataclass
class Flops:
    """Counted operations of matrix products, convolutions and attention.

    A multiply-add counts as two operations. Other operations, such as activations, are not counted.

    Attributes:
        total: Number of all operations.
        frozen: Number of operations in forward passes that record no gradient, such as those of frozen encoders.
        backward: Flag to set when the backward pass begins. Autograd records no gradient there either, but these
            operations belong to the trained part.
    """

    total: int = 0
    frozen: int = 0
    backward: bool = False

    @property
    def trained(self) -> int:
        """Return the number of operations through which gradients flow, backward passes included."""
        return self.total - self.frozen


@contextmanager
def counted_flops() -> Iterator[Flops]:
    """Count the operations inside the context; the total is set when the context ends.

    Compiled modules run uncompiled inside, because the counter cannot look into a compiled graph.

    Example:
        >>> with counted_flops() as flops:
        ...     _ = torch.nn.Linear(4, 2)(torch.ones(3, 4))
        >>> flops.total, flops.frozen
        (48, 0)
    """
    flops = Flops()
    with ExitStack() as stack:
        stack.enter_context(torch.compiler.set_stance("force_eager"))
        if not _cpu_attention_is_known():
            stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        counter = stack.enter_context(FlopCounterMode(display=False))
        stack.enter_context(_WithoutGradient(counter, flops))
        yield flops
        flops.total = counter.get_total_flops()


class _WithoutGradient(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """A dispatch mode that adds an operation's FLOPs to ``flops.frozen`` if no gradient is recorded for it.

    It must be entered after the counter, so that the counter has counted an operation when this mode reads it.
    """

    def __init__(self, counter: FlopCounterMode, flops: Flops) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.counter = counter
        self.flops = flops

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        before = self.counter.get_total_flops()
        out = func(*args, **(kwargs or {}))
        if not (torch.is_grad_enabled() or self.flops.backward):
            self.flops.frozen += self.counter.get_total_flops() - before
        return out


def _cpu_attention_is_known() -> bool:
    """Return whether this version of torch can count the FLOPs of flash attention on the CPU."""
    return "aten._scaled_dot_product_flash_attention_for_cpu" in {str(op) for op in flop_registry}
