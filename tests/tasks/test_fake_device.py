"""Training steps and evaluations of every model on a fake GPU, which needs no GPU.

In `FakeTensorMode` tensors have a shape, a dtype and a device, but no values. Here the weights and the batch are on
``cuda``. A tensor that the code leaves on the CPU is an error, and so is a value that the host reads, for example in a
branch: on a real GPU the host would wait for it.

These tests do not cover:

* The backward pass, the optimiser and the check of the loss between them, which need a CUDA context.
* Values, kernels, memory and precision.
* Copies from the host to the GPU, such as ``torch.tensor(values, device="cuda")``, which may wait as well.
* Code that recognises fake tensors: on a real GPU, transformers reads whether any text of a batch has padding.
* Networks on towers (`every_model.ON_TOWERS`), which run each different input once and read how many there are.
* Steps that read values on purpose: the first batch of an epoch, in which the complete pairs are counted; samples with
  several images; the second evaluation batch of MMRL, which compares the weights with those of the first one; and
  everything that metrics compute on the host.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from traceback import format_exc
from typing import Any
from unittest.mock import patch

import pytest
import torch
from every_model import EVALUATED_ONLY, MODELS, VIEWS, batch_of, make_task, without_inputs
from torch import Tensor, nn
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from robusttune.models.mmrl_classifier import CachedAdapted
from robusttune.tasks import RobustTask

# The most different ones; the others share most of their code with these.
QUICK = [(model, True) for model in ("Experts in every pattern", "LateFusion", "MMRL++", "zero-shot")]
QUICK += [("MoLT with momentum", False), ("MMRL", False)]
CASES = [
    pytest.param(model, cached, marks=[] if (model, cached) in QUICK else pytest.mark.slow)
    for model in MODELS
    for cached in (False, True)
]


@contextmanager
def on_fake_gpu(task: RobustTask) -> Iterator[Callable[..., Tensor]]:
    """Move the task to a fake GPU, and yield a function that moves a tensor there.

    As with a real GPU, parameters and buffers are moved, and other attributes of the modules are not.
    """

    def fake(tensor: Tensor, device: str = "cuda") -> Tensor:
        return torch.empty(tensor.shape, dtype=tensor.dtype, device=device)

    with FakeTensorMode():
        for module in task.modules():
            for name, parameter in module._parameters.items():
                if parameter is not None:
                    module._parameters[name] = nn.Parameter(fake(parameter), parameter.requires_grad)
            for name, buffer in module._buffers.items():
                module._buffers[name] = None if buffer is None else fake(buffer)
            for name, value in vars(module).items():
                if isinstance(value, Tensor):
                    setattr(module, name, fake(value, "cpu"))
        classifier: Any = task.classifier
        if getattr(classifier, "_prompts", None) is not None:
            classifier._prompts = classifier._prompts.map(lambda tensor: fake(tensor, "cpu"))
        yield fake


@pytest.fixture(scope="module")
def in_other_process() -> Iterator[Callable[..., None]]:
    """Yield a function that calls a check in one other process, and fails with the traceback of its error.

    `FakeTensorMode` registers a CUDA device for the rest of its process. Autograd then starts a thread for it, after
    which other tests could not fork.
    """
    fork = get_context("fork")
    with ProcessPoolExecutor(1, fork, initializer=torch.set_num_threads, initargs=(1,)) as pool:

        def call(check: Callable[..., None], *arguments: Any) -> None:
            error = pool.submit(error_of, check, *arguments).result(timeout=300)
            if error is not None:
                pytest.fail(error, pytrace=False)

        yield call


def error_of(check: Callable[..., None], *arguments: Any) -> str | None:
    """Call a check, and return the traceback of its error, because some errors of torch cannot be pickled."""
    try:
        check(*arguments)
    except Exception:
        return format_exc()
    return None


@pytest.mark.parametrize(("model", "cached"), CASES, ids=lambda value: {True: "features", False: "inputs"}.get(value))
def test_a_training_step_and_an_evaluation(
    model: str, cached: bool, text_folder: Path, clip_folder: Path, in_other_process: Callable[..., None]
) -> None:
    in_other_process(train_and_evaluate, model, cached, text_folder, clip_folder)


def train_and_evaluate(model: str, cached: bool, text_folder: Path, clip_folder: Path) -> None:
    task = make_task(model, text_folder, clip_folder)
    classifier, classes = task.classifier, len(task.classifier.class_names)
    mixed = batch_of(task, cached)
    batches = [mixed, without_inputs(mixed)]
    with on_fake_gpu(task) as fake:
        batches = [batch.map(fake) for batch in batches]
        task.train()
        for batch in [] if model in EVALUATED_ONLY else batches:
            losses = task.training_losses(batch, 1)
            found = [losses.loss, *losses.parts.values()]
            assert {(loss.device.type, *loss.shape) for loss in found} == {("cuda",)}
            assert losses.loss.requires_grad
            assert ("shuffled_correlation_loss" in losses.parts) == model.startswith("MoLT")
        task.eval()
        for batch in batches:
            # The comparison with the weights of the batch before would read their values.
            with torch.no_grad(), patch.object(CachedAdapted, "holds", return_value=True):
                scores = classifier.scores(task.metric_logits(batch, VIEWS), batch, VIEWS)
                embeddings = classifier.embed(batch)
            known = [part for part in scores if part is not None]
            assert {(*part.shape, part.device.type) for part in known} == {(len(VIEWS), len(batch), classes, "cuda")}
            assert {(len(part), part.device.type) for part in embeddings} == {(len(batch), "cuda")}


@pytest.mark.parametrize("left", ["label", "images", "text_present", "weights", "buffer"])
def test_what_is_left_on_the_cpu_is_an_error(
    left: str, text_folder: Path, clip_folder: Path, in_other_process: Callable[..., None]
) -> None:
    """Of these tests themselves: the fake GPU refuses a tensor on the CPU as a real one does."""
    in_other_process(train_with_a_part_on_the_cpu, left, text_folder, clip_folder)


def train_with_a_part_on_the_cpu(left: str, text_folder: Path, clip_folder: Path) -> None:
    task = make_task("MoLT", text_folder, clip_folder)
    batch = batch_of(task, cached=False)
    with on_fake_gpu(task) as fake:
        moved = batch.map(fake)
        if left in ("weights", "buffer"):
            network: Any = task.classifier.network
            layer, kind = (network.fusion.head, "_parameters") if left == "weights" else (network, "_buffers")
            values = getattr(layer, kind)
            values.update({name: values[name].cpu() for name in values})
        else:
            part: Any = getattr(batch, left)
            part = part.map(partial(fake, device="cpu")) if left == "images" else fake(part, "cpu")
            moved = replace(moved, **{left: part})
        with pytest.raises(RuntimeError, match="cpu"):
            task.training_losses(moved, 1)


def test_a_value_that_the_host_reads_is_an_error(
    text_folder: Path, clip_folder: Path, in_other_process: Callable[..., None]
) -> None:
    """Of these tests themselves: the first batch of an epoch counts the complete pairs on the host."""
    in_other_process(train_the_first_batch, text_folder, clip_folder)


def train_the_first_batch(text_folder: Path, clip_folder: Path) -> None:
    task = make_task("MoLT", text_folder, clip_folder)
    batch = batch_of(task, cached=False)
    with on_fake_gpu(task) as fake, pytest.raises(DataDependentOutputException, match="_local_scalar_dense"):
        task.training_losses(batch.map(fake), 0)
