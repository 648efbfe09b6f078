"""The parts of the GPU check. Each is a module with a function ``run(context)``, named here with its limit."""

from __future__ import annotations

from typing import NamedTuple


class Part(NamedTuple):
    """A part of the GPU check.

    Attributes:
        title: What the part checks or measures, in one line.
        seconds: Time limit of the part's process.
    """

    title: str
    seconds: int


# In the order in which they run: checks first, since measurements mean little before they pass.
PARTS = {
    "machine": Part("versions, and a matrix product in each precision", 60),
    "models": Part("a step and an evaluation of every model in each precision, against the CPU", 100),
    "waits": Part("steps in which the host must not wait for the device", 75),
    "losses": Part("losses of 50 steps, against the CPU", 90),
    "runs": Part("fit, test and predictions of a configuration, from and to the CPU", 75),
    "memory": Part("peak memory, against the estimate of robusttune plan", 80),
    "ranks": Part("training in one process and, if there are two devices, in two", 80),
    "transfer": Part("pinned memory, and the loader's rate against the step's", 60),
    "mmrl": Part("MMRL against the plain computation", 110),
    "fusion": Part("steps of MoLT and Experts with and without a feature cache", 60),
    "graphs": Part("compilation and CUDA graphs", 110),
}
