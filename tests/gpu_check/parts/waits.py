"""Training steps in which the host must not wait for the device, by torch's debug mode for synchronisation.

A wait leaves the GPU without work until the host has queued the next operations. The steps are those of Lightning's
Trainer: copy of the batch, forward pass, logging, backward pass, clipping, optimiser and schedule.

The debug mode does not see waits for events, such as `FiniteCheck.finish`, which waits for the forward pass while the
backward pass is queued; nor those of NCCL, nor of copies from memory that is not pinned and does not wait by its own
account (the batches here are pinned).
"""

from __future__ import annotations

import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import torch
from every_model import TRAINED, batch_of, make_task
from lightning.pytorch import Callback, LightningModule, Trainer

from gpu_check.context import Context
from gpu_check.stepping import clean, copied, loader_of, tiny_encoders, trainer_of
from robusttune.encoders.transformers_text import FrozenTransformersText
from robusttune.models import clip_network
from robusttune.types import Batch

STEPS, SMALL = 5, ("MoLT with momentum", "MMRL")
WAITING = "called a synchronizing CUDA operation"
# Functions that wait for a known reason; whatever else waits fails the check.
# - Singular values: cuSOLVER reports on the host whether it has converged, and torch has no variant that does not.
# - Networks on towers run each different input of a batch once, so the host reads how many there are.
# - Texts that are not cached: transformers reads whether the batch has padding, to leave out the mask if it has none.
KNOWN: dict[str, tuple[Any, str]] = {
    "singular values of the correlation loss": (torch.linalg, "svdvals"),
    "different inputs of a network on towers": (clip_network, "each_once"),
    "attention mask of a text encoder": (FrozenTransformersText, "forward"),
}


class Watched(Callback):
    """A callback that turns the debug mode on after the first step, and off at the end of the training.

    Args:
        mode: ``error`` to raise at the first wait, ``warn`` to warn of each, ``default`` to do nothing.
    """

    def __init__(self, mode: str) -> None:
        self.mode = mode

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        # The first batch of an epoch counts its complete pairs on the host, and the optimiser makes its state.
        if self.mode != "default":
            torch.cuda.set_sync_debug_mode(self.mode if batch_idx + 1 < STEPS else "default")

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        if self.mode != "default":
            torch.cuda.set_sync_debug_mode("default")


def run(context: Context) -> None:
    """Watch every model, with features in float32, and with inputs in bfloat16, too.

    A gradient scaler for float16 reads in each step whether all gradients are finite, so ``16-mixed`` is not checked.
    """
    with context.case("the debug mode finds a wait"):
        finds_a_wait(context)
    folders = tiny_encoders(context)
    for model in SMALL if context.small else TRAINED:
        for cached in (False, True):
            torch.manual_seed(0)
            task = make_task(model, *folders)
            batches = [clean(batch_of(task, cached)) for _ in range(STEPS)]
            for precision in ("32-true",) if cached else ("32-true", "bf16-mixed"):
                name = f"{model}, {'features' if cached else 'inputs'}, {precision}"
                with context.case(name):
                    watch(context, name, copied(task, "cpu"), batches, precision)


def finds_a_wait(context: Context) -> None:
    """Check that the debug mode finds a value that the host reads, and that known waits are let through."""
    name, values = "the debug mode finds a wait", torch.ones(2, 2, device=context.device)
    if context.needs_gpu(name):
        return
    torch.cuda.set_sync_debug_mode("error")
    try:
        values.sum().item()
        found = False
    except RuntimeError as error:
        found = WAITING in str(error)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    context.add(name, found)


def watch(context: Context, name: str, task: Any, batches: list[Batch], precision: str) -> None:
    """Train, and record the known waits, and the places of others."""
    with let_known_through() as counts:
        try:
            fit(context, copied(task, "cpu"), batches, precision, "error" if context.on_gpu else "default")
        except RuntimeError as error:
            if WAITING not in str(error):
                raise
            with places_of_waits() as places:
                fit(context, task, batches, precision, "warn")
            found = [f"{place} ({count} times)" for place, count in places.most_common(20)]
            context.add(name, False, "the host waits: see places", places=found or [traceback.format_exc()[-1500:]])
            return
    known = {wait: round(count / STEPS, 1) for wait, count in counts.items()}
    if context.on_gpu:
        context.add(name, True, known_waits_of_a_step=known)
    else:
        context.add(name, None, "the step runs; waits need a GPU", known_waits_of_a_step=known)


def fit(context: Context, task: Any, batches: list[Batch], precision: str, mode: str) -> None:
    """Train for one epoch of `STEPS` steps, none of which is logged."""
    trainer = trainer_of(
        context, [Watched(mode)], max_epochs=1, precision=precision, gradient_clip_val=1.0, log_every_n_steps=1000
    )
    trainer.fit(task, loader_of(batches, pin_memory=context.on_gpu))


@contextmanager
def let_known_through() -> Iterator[Counter[str]]:
    """Turn the debug mode off inside the functions of `KNOWN`, and count their calls."""
    counts: Counter[str] = Counter()

    def permitted(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            counts[name] += 1
            if not torch.cuda.is_available():
                return function(*args, **kwargs)
            mode = torch.cuda.get_sync_debug_mode()
            torch.cuda.set_sync_debug_mode("default")
            try:
                return function(*args, **kwargs)
            finally:
                torch.cuda.set_sync_debug_mode(mode)

        return call

    with ExitStack() as stack:
        for name, (owner, attribute) in KNOWN.items():
            stack.enter_context(patch.object(owner, attribute, permitted(name, getattr(owner, attribute))))
        yield counts


@contextmanager
def places_of_waits() -> Iterator[Counter[str]]:
    """Count the waits of the mode ``warn`` by their place: the innermost lines of this project and of any file."""
    places: Counter[str] = Counter()

    def note(message: Any, *_: Any, **__: Any) -> None:
        if WAITING in str(message):
            stack = traceback.extract_stack()[:-1]
            own = [frame for frame in stack if "/robusttune/" in frame.filename] or stack
            inner = [frame for frame in stack if "warnings" not in frame.filename] or stack
            shown = [f"{frame.filename.split('site-packages/')[-1]}:{frame.lineno}" for frame in (own[-1], inner[-1])]
            places[" in ".join(dict.fromkeys(shown))] += 1

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        with patch.object(warnings, "showwarning", note):
            yield places
