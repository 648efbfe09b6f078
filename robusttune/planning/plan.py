"""What a plan says: what a training takes, in numbers without prefixes: parameters, operations, bytes, seconds."""

from __future__ import annotations

from dataclasses import dataclass

from robusttune.planning.extent import Extent
from robusttune.planning.sampled_cache import Features


@dataclass(frozen=True)
class Model:
    """What is trained.

    Attributes:
        trained: parameters.
        frozen: parameters of each encoder.
        flops: of a step on one device, of what gradients go through; forward and backward.
        frozen_flops: of a step on one device, of what they do not: frozen encoders, unless their outputs are cached.
    """

    trained: int
    frozen: dict[str, int]
    flops: int
    frozen_flops: int


@dataclass(frozen=True)
class Memory:
    """Bytes on each device.

    Attributes:
        weights: all that are in memory, frozen ones included.
        gradients: of trained ones.
        optimizer_state: after a step.
        activations: what autograd keeps of a forward pass until the backward pass.
        batch: inputs.
        peak: most that was ever allocated, on CUDA; it has all of these, and what comes and goes.
    """

    weights: int
    gradients: int
    optimizer_state: int
    activations: int
    batch: int
    peak: int | None


@dataclass(frozen=True)
class Disk:
    """Bytes on disk.

    Attributes:
        features: of the feature cache, of images and texts of training and validation, then of other splits.
        checkpoint: of one file.
    """

    features: list[Features]
    checkpoint: int


@dataclass(frozen=True)
class Steps:
    """Seconds of a batch on one device.

    Attributes:
        seconds: of a batch, from one to the next.
        quartiles: of those that were measured.
        measured: how many.
        waiting: for the loader, and until the batch is on the device.
        working: of the model; in training with backward pass and optimiser.
        loading: of a batch if nobody makes the loader's workers wait; None where it has none.
        batches: on each device, in an epoch or in a validation.
    """

    seconds: float
    quartiles: tuple[float, float]
    measured: int
    waiting: float
    working: float
    loading: float | None
    batches: int

    @property
    def loader_bound(self) -> bool:
        """Whether the model waits for the loader more than it works."""
        return max(self.waiting, self.loading or 0.0) > self.working


@dataclass(frozen=True)
class Time:
    """Seconds, on all devices together.

    Attributes:
        step: of training.
        epoch: of training alone.
        validation_step: None where there is no validation.
        validation: one, its metrics included.
        metrics: to compute them, on one device.
        validations: in all of the fit.
        epochs: of the fit.
        fill: of the feature cache, as far as a fit fills it.
        fit: all of it.
    """

    step: Steps
    epoch: float
    validation_step: Steps | None
    validation: float
    metrics: float
    validations: float
    epochs: float
    fill: float
    fit: float


@dataclass(frozen=True)
class Traffic:
    """Bytes that travel between devices; the time for it is not in the plan.

    Attributes:
        step: gradients of each device, which are averaged over all of them.
        validation: what rank 0 gathers of all others.
    """

    step: int
    validation: int


@dataclass(frozen=True)
class Plan:
    """What a training takes.

    Attributes:
        task: class of it.
        extent: how much it does.
        batch_size: samples a batch, on each device.
        classes: that are told apart.
        samples: by split.
        device: on which it was measured.
        model: what is trained.
        memory: on each device.
        disk: of the feature cache, and of checkpoints.
        time: of steps, epochs, and all.
        traffic: between devices.
    """

    task: str
    extent: Extent
    batch_size: int
    classes: int
    samples: dict[str, int]
    device: str
    model: Model
    memory: Memory
    disk: Disk
    time: Time
    traffic: Traffic
