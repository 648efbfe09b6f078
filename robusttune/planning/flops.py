"""Floating-point operations of what runs."""

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
    """Operations of matrix products, convolutions and attention, a multiply-add as two; nothing else is counted.

    Attributes:
        total: all of them.
        frozen: those of forward passes that record no gradient: of frozen encoders.
        backward: to be set when the backward pass begins, which records none either.
    """

    total: int = 0
    frozen: int = 0
    backward: bool = False

    @property
    def trained(self) -> int:
        """Those that gradients go through, backward passes included."""
        return self.total - self.frozen


@contextmanager
def counted_flops() -> Iterator[Flops]:
    """Count what runs inside; compiled modules run uncompiled, since nothing of a compiled graph is seen."""
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
    """Adds what a counter below counts while no gradient is recorded."""

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
    """Not to every version of torch."""
    return "aten._scaled_dot_product_flash_attention_for_cpu" in {str(op) for op in flop_registry}
