"""Conversion between this package's weights and those of the methods' published implementations."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from robusttune.errors import RobustTuneError
from robusttune.models.published.dcp import DATA_SETS, dcp_names
from robusttune.models.published.mmrl import mmrl_names
from robusttune.models.published.mora import mora_names, refuse_another_alpha
from robusttune.models.published.names import Matched, Names

METHODS = "MMRL, MMRL++, DCP, DPL or MoRA"  # for messages

__all__ = [
    "DATA_SETS",
    "METHODS",
    "Matched",
    "Names",
    "dcp_names",
    "mmrl_names",
    "mora_names",
    "names_of",
    "refuse_another_alpha",
]


def names_of(own: Mapping[str, Tensor], what: str, data_set: str = DATA_SETS[0], first_layer: int = 1) -> Names:
    """Return the published names of the tensors in a network's state dict.

    Args:
        own: State dict of a network.
        what: Name of the model, for the message.
        data_set: Data set whose name the classifier of DCP and DPL has, see `DATA_SETS`. Reading takes any of them.
        first_layer: First layer that MoRA adapts, counted from 1.

    Raises:
        RobustTuneError: The network is of a method without published weights.

    Example:
        >>> from robusttune.encoders.upper_tower import TowerShape
        >>> from robusttune.models.mmrl import MMRL, MMRLNetwork
        >>> own = MMRLNetwork(MMRL(space_width=8), TowerShape(2, 16, 4), TowerShape(2, 16, 4)).state_dict()
        >>> names = names_of(own, "the model")
        >>> names.read(names.write(own), own).published[0]
        'representation_learner.compound_rep_tokens'
    """
    if "space" in own:
        return mmrl_names(own)
    if "image_output.projection" in own:
        return dcp_names(own, data_set)
    if "layers.0.shared.a" in own:
        return mora_names(own, first_layer)
    raise RobustTuneError(f"{what} has no weights that were ever published: give one of {METHODS}")
