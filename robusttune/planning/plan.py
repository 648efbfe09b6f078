"""The plan of a training run as dataclasses, in units without prefixes: parameters, operations, bytes, seconds."""

from __future__ import annotations

from dataclasses import dataclass

from robusttune.planning.extent import Extent
from robusttune.planning.sampled_cache import Features


@dataclass(frozen=True)
class Model:
    """Size and operations of the model.

    Attributes:
        trained: Number of trainable parameters.
        frozen: Number of parameters of each frozen encoder, by the encoder's name.
        flops: Operations per step and device through which gradients flow, forward and backward.
        frozen_flops: Operations per step and device without gradients, i.e. those of the frozen encoders. They are
            left out if the encoders' features are cached.
    """

    trained: int
    frozen: dict[str, int]
    flops: int
    frozen_flops: int


@dataclass(frozen=True)
class Memory:
    """Memory on each device in bytes.

    Attributes:
        weights: All weights in memory, frozen ones included.
        gradients: Gradients of the trainable parameters.
        optimizer_state: Optimizer state after a step.
        activations: Tensors that autograd saves in a forward pass for the backward pass.
        batch: Inputs of one batch.
        peak: Largest allocation measured on CUDA, which includes all of the above and temporary tensors; None on
            other devices.
    """

    weights: int
    gradients: int
    optimizer_state: int
    activations: int
    batch: int
    peak: int | None


@dataclass(frozen=True)
class Disk:
    """Disk space in bytes.

    Attributes:
        features: Contents of the feature cache: first images and texts of training and validation, then those of
            other splits.
        checkpoint: Size of one checkpoint file.
    """

    features: list[Features]
    checkpoint: int


@dataclass(frozen=True)
class Steps:
    """Time of a batch on one device, in seconds.

    Attributes:
        seconds: Time from one batch to the next.
        quartiles: Lower and upper quartile of the measured batches.
        measured: Number of measured batches.
        waiting: Mean time from the end of a batch until the next one is on the device.
        working: Median time of the model; in training it includes the backward pass and the optimizer.
        loading: Time that the loader's workers need per batch if nothing makes them wait; None without workers.
        batches: Number of batches per device in an epoch or in a validation.

    Example:
        >>> steps = Steps(0.5, (0.4, 0.6), measured=10, waiting=0.3, working=0.2, loading=None, batches=100)
        >>> steps.loader_bound
        True
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
        """Return whether loading a batch takes longer than processing it."""
        return max(self.waiting, self.loading or 0.0) > self.working


@dataclass(frozen=True)
class Time:
    """Duration of the training run on all devices together, in seconds unless stated otherwise.

    Attributes:
        step: Time of a training step.
        epoch: Duration of a training epoch without validation.
        validation_step: Time of a validation batch; None if there is no validation.
        validation: Duration of one validation, its metrics included.
        metrics: Duration of computing the metrics of a validation on one device.
        validations: Number of validations in the whole run.
        epochs: Number of epochs in the whole run.
        fill: Duration of filling the feature cache for training and validation.
        fit: Duration of the whole run.
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
    """Bytes sent between devices. The plan does not include the time for sending them.

    Attributes:
        step: Gradients of each device, which are averaged over all devices in a step.
        validation: Scores of labels, and counts, which each rank receives in a validation.
    """

    step: int
    validation: int


@dataclass(frozen=True)
class Plan:
    """The cost of a training run.

    Attributes:
        task: Name of the task's class.
        extent: Numbers of devices, epochs, batches and validations.
        batch_size: Number of samples per batch and device.
        classes: Number of classes.
        samples: Number of samples by split.
        device: Device on which the plan was measured, such as ``cpu`` or ``cuda:0``.
        model: Size and operations of the model.
        memory: Memory per device.
        disk: Sizes of the feature cache and of a checkpoint.
        time: Durations of steps, epochs and the whole run.
        traffic: Bytes sent between devices.
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
