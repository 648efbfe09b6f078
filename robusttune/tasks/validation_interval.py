"""The number of epochs between two validations of a fit with many short epochs."""

from __future__ import annotations

STEPS = 32  # Epochs with fewer steps take less time than a validation and its checkpoint.
VALIDATIONS = 25  # These are enough to choose the best epoch, and to draw a curve.


def epochs_between_validations(epochs: int, steps: int) -> int:
    """Return the number of epochs from one validation to the next.

    It is 1, unless the fit has more than `VALIDATIONS` epochs of fewer than `STEPS` steps. The last epoch is always
    followed by a validation.

    Args:
        epochs: Number of epochs of the fit; -1 for no limit.
        steps: Number of optimizer steps of an epoch, at least 1.

    Example:
        >>> epochs_between_validations(200, steps=4), epochs_between_validations(20, steps=4)
        (8, 1)
    """
    most = min(-(-STEPS // steps), epochs // VALIDATIONS)
    return next((number for number in range(most, 1, -1) if epochs % number == 0), 1)
