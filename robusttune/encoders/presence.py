"""Expansion of values of the present rows of a batch to all its rows."""

from __future__ import annotations

from torch import Tensor


def expand_present(values: Tensor, present: Tensor) -> Tensor:
    """Expand values of the ``P`` present rows to all ``B`` rows of a batch. Missing rows get arbitrary values.

    Args:
        values: Values of the present rows in order, shape (P, ...), with P > 0. Values of all ``B`` rows, as an
            exported graph has them, are returned unchanged.
        present: Mask of the present rows, shape (B,), bool, with ``P`` rows True.

    Returns:
        Expanded values, shape (B, ...).

    Example:
        >>> import torch
        >>> expand_present(torch.tensor([5, 7]), torch.tensor([True, False, True]))
        tensor([5, 5, 7])
    """
    if len(values) == len(present):
        return values
    return values[present.cumsum(0).sub(1).clamp(min=0)]  # A boolean index would synchronise the device.


def nan_if_absent(values: Tensor, present: Tensor) -> Tensor:
    """Replace the rows of a modality that a sample lacks by NaN.

    Args:
        values: Values of all rows, shape (B, d).
        present: Mask of the present rows, shape (B,), bool.

    Example:
        >>> import torch
        >>> nan_if_absent(torch.tensor([[1.0], [2.0]]), torch.tensor([True, False])).flatten()
        tensor([1., nan])
    """
    return values.masked_fill(~present.unsqueeze(1), float("nan"))
