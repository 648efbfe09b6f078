"""The mixing function of SplitMix64, for pseudo-random numbers that are functions of what they belong to."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # step between the inputs of successive numbers


def mixed(numbers: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return the finaliser of SplitMix64 (Steele et al. 2014) of each number: each bit depends on all bits of it.

    Args:
        numbers: Numbers, any shape, uint64. Arithmetic is modulo 2^64.

    Example:
        >>> import numpy as np
        >>> len({*mixed(np.arange(4, dtype=np.uint64)).tolist()})
        4
    """
    numbers = (numbers ^ (numbers >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    numbers = (numbers ^ (numbers >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return numbers ^ (numbers >> np.uint64(31))
