"""The machine: what it is, and whether matrix products on it are right."""

from __future__ import annotations

from functools import partial

import torch

from gpu_check.context import Context

# Relative errors of a product of 1024 terms with normal factors. Inputs and output are rounded to 24, 8 or 11 bits,
# and each rounding error is at most 2^-(bits) of a value; sums are in float32, whose errors grow with the square root
# of the number of terms.
TOLERANCES = {torch.float32: 1e-5, torch.bfloat16: 1e-2, torch.float16: 2e-3}


def run(context: Context) -> None:
    """Record the device, and compare matrix products with float64 on the CPU."""
    if context.on_gpu:
        found = torch.cuda.get_device_properties(0)
        context.add(
            "device",
            device=found.name,
            count=torch.cuda.device_count(),
            gigabytes=round(found.total_memory / 1e9, 1),
            capability=f"{found.major}.{found.minor}",
            cuda=str(torch.version.cuda),
            cudnn=str(torch.backends.cudnn.version()),
        )
    generator = torch.Generator().manual_seed(0)
    left, right = (torch.randn(1024, 1024, generator=generator) for _ in range(2))
    for dtype, tolerance in TOLERANCES.items():
        with context.case(f"product in {dtype}"):
            a, b = left.to(context.device, dtype), right.to(context.device, dtype)
            expected = left.double() @ right.double()
            off = float(((a @ b).cpu().double() - expected).norm() / expected.norm())
            size = 1024 if context.small or not context.on_gpu else 8192
            a = torch.randn(size, size, device=context.device).to(dtype)
            seconds = context.medians(2 if context.small else 10, product=partial(torch.matmul, a, a))["product"]
            rate = 2 * size**3 / seconds / 1e12
            context.add(f"product in {dtype}", off <= tolerance, error=off, tolerance=tolerance, teraflops=rate)
