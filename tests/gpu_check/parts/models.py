"""A training step and an evaluation of every model in each precision, against float32 on the CPU."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from every_model import EVALUATED_ONLY, MODELS, ON_TOWERS, VIEWS, batch_of, make_task, without_inputs
from torch import Tensor

from gpu_check.context import Context
from gpu_check.stepping import DTYPES, clean, copied, distance, step, tiny_encoders, without_dropout
from robusttune.tasks import RobustTask
from robusttune.types import Batch

SMALL = ("MoLT with momentum", "Experts in every pattern", "MMRL", "zero-shot")


class Tolerance(NamedTuple):
    """Largest differences to the CPU in float32, as a fraction of the norm of the expected values.

    Attributes:
        outputs: Loss, logits and embeddings.
        gradients: All gradients together.
    """

    outputs: float
    gradients: float


# A rounding error is 2^-24 in float32, 2^-11 in float16 and 2^-8 in bfloat16, relative to each rounded value. Some 50
# operations follow one another in the tiny models, so errors of independent roundings grow about sevenfold in the
# outputs. The slopes of power normalisation (1 / sqrt(x)) and of the correlation loss (an inverse) magnify them in
# gradients. In float32, the order of a sum differs between the devices, which is why the errors are not zero there.
# TF32 is off for convolutions, as it is for matrix products by default: with it, inputs have 11 bits.
TOLERANCES = {
    "32-true": Tolerance(1e-4, 1e-3),
    "bf16-mixed": Tolerance(0.05, 0.25),
    "16-mixed": Tolerance(0.01, 0.05),
}


def run(context: Context) -> None:
    """Check every model: with inputs and with features, and with a batch that has no inputs at all."""
    torch.backends.cudnn.allow_tf32 = False
    folders = tiny_encoders(context)
    for model in SMALL if context.small else [*MODELS, *ON_TOWERS]:
        for cached in (False, True):
            torch.manual_seed(0)
            task = without_dropout(make_task(model, *folders))
            batch = batch_of(task, cached)
            for precision in DTYPES:
                name = f"{model}, {'features' if cached else 'inputs'}, {precision}"
                with context.case(name):
                    check(context, name, task, batch, precision)


def check(context: Context, name: str, task: RobustTask, batch: Batch, precision: str) -> None:
    """Compare a step, an evaluation and embeddings on the device with those on the CPU in float32."""
    tolerance = TOLERANCES[precision]
    values = {"outputs": 0.0, "gradients": 0.0}
    if not name.startswith(EVALUATED_ONLY):
        expected = step(copied(task, "cpu").train(), clean(batch), "32-true")
        other = copied(task, context.device).train()
        moved = clean(batch).to(torch.device(context.device))
        found = step(other, moved, precision)
        values["outputs"] = abs(float(found[0] - expected[0])) / max(abs(float(expected[0])), 1e-12)
        values["gradients"] = distance(torch.cat(found[1]), torch.cat(expected[1]))
        empty, _ = step(
            other, without_inputs(moved.to(torch.device("cpu"))).to(torch.device(context.device)), precision
        )
        values["loss_without_inputs"] = float(empty)
    evaluated = [evaluate(copied(task, device).eval(), batch, kind) for device, kind in places(context, precision)]
    values["outputs"] = max(values["outputs"], *(distance(*pair) for pair in zip(*evaluated, strict=True)))
    passed = values["outputs"] <= tolerance.outputs and values["gradients"] <= tolerance.gradients
    passed = passed and all(torch.tensor([*values.values()]).isfinite())
    context.add(name, passed, f"at most {tolerance.outputs} and {tolerance.gradients}", **values)


def places(context: Context, precision: str) -> list[tuple[str, str]]:
    """Return device and precision of what is checked, and of what it is compared with."""
    return [(context.device, precision), ("cpu", "32-true")]


@torch.no_grad()
def evaluate(task: RobustTask, batch: Batch, precision: str) -> Sequence[Tensor]:
    """Return logits under all views and embeddings, twice, since MMRL compares its weights in the second batch."""
    batch, dtype = batch.to(task.device), DTYPES[precision]
    with torch.autocast(task.device.type, dtype, enabled=dtype != torch.float32):
        for _ in range(2):
            scores = task.classifier.scores(task.metric_logits(batch, VIEWS), batch, VIEWS)
            embeddings = task.classifier.embed(batch)
    return [part.float().cpu().nan_to_num() for part in (*scores, *embeddings) if part is not None]
