"""The names that a published implementation gives to the weights of a method, and conversion from and to them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from robusttune.encoders.upper_tower import UpperTower
from robusttune.errors import RobustTuneError


class Place(NamedTuple):
    """The place of a published tensor in our state dict.

    Attributes:
        name: Name of our tensor.
        row: Row of our tensor, or None for the whole tensor.
        form: Form of the published tensor: the ``same``, ``transposed``, or a ``column``, that is, with a dimension of
            1 in the middle.
    """

    name: str
    row: int | None = None
    form: Literal["same", "transposed", "column"] = "same"

    def theirs(self, state: Mapping[str, Tensor]) -> Tensor:
        """Return the part of our state dict in its published form, as a view."""
        tensor = state[self.name] if self.row is None else state[self.name][self.row]
        if self.form == "same":
            return tensor
        return tensor.mT if self.form == "transposed" else tensor.unsqueeze(1)


@dataclass(frozen=True)
class Matched:
    """The result of reading a state dict with published names.

    Attributes:
        state: State dict of our network.
        published: Published names of the tensors in ``state``.
        set_aside: Published names of frozen tensors, which are not in ``state``.
        left: Names of our tensors that the published state dict may lack, and does; ``state`` has the network's own.
    """

    state: dict[str, Tensor]
    published: list[str]
    set_aside: list[str]
    left: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Names:
    """The names of a method's weights in its published implementation.

    Attributes:
        places: Place of each published tensor, by its name.
        frozen: Pattern of the names of frozen tensors, which were not trained.
        prefix: Prefix of the names of CLIP's own tensors.
        trained_parts: Names of CLIP's tensors, without the prefix, that the method trains.
        settings: Names of the settings that the sizes of the weights depend on, for a message.
        describe: Function that describes the settings of a published state dict, for a message.
        optional: Pattern of the names of tensors that a published state dict may lack.
        plain: Function that turns a name in a state dict into one of ``places``.
    """

    places: dict[str, Place]
    frozen: re.Pattern[str]
    settings: str
    describe: Callable[[Mapping[str, Tensor]], str]
    prefix: str = ""
    trained_parts: frozenset[str] = frozenset()
    optional: re.Pattern[str] = re.compile(r"(?!)")
    plain: Callable[[str], str] = str

    def write(self, own: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return copies of the tensors in a network's state dict under their published names."""
        return {name: place.theirs(own).detach().clone() for name, place in self.places.items()}

    def read(self, given: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> Matched:
        """Convert a state dict with published names to a state dict of a network.

        Args:
            given: Tensors by published name. The prefix ``module.`` of ``DataParallel`` is removed.
            own: State dict of the network, whose shapes the tensors must have.

        Raises:
            RobustTuneError: A tensor is missing, unknown, of another shape, or not finite. The message lists the first
                three names of each kind.
        """
        given = {self.plain(name.removeprefix("module.")): tensor for name, tensor in given.items()}
        state = {name: tensor.detach().clone() for name, tensor in own.items()}
        set_aside = sorted(name for name in given if name not in self.places and self.frozen.fullmatch(name))
        lacking = {name for name in self.places if name not in given}
        left = {name for name in lacking if self.optional.fullmatch(name)}
        shapes = {name: place.theirs(state).shape for name, place in self.places.items()}
        problems = {
            "lacks": [name for name in self.places if name in lacking - left],
            "has besides": [name for name in given if name not in self.places and name not in set_aside],
            "has in another shape": [
                f"{name} {tuple(given[name].shape)}, not {tuple(shape)}"
                for name, shape in shapes.items()
                if name in given and given[name].shape != shape
            ],
            "is not finite in": [n for n in self.places if n in given and not given[n].isfinite().all()],
        }
        listed = [f"{kind} {', '.join(some[:3])}{', ...' * (len(some) > 3)}" for kind, some in problems.items() if some]
        if listed:
            raise RobustTuneError(
                f"the published checkpoint does not fit: it {'; it '.join(listed)}: set {self.settings}, first_layer "
                f"and the encoders' name as it was trained ({self.describe(given)})"
            )
        found = {name: place for name, place in self.places.items() if name not in left}
        for name, place in found.items():
            place.theirs(state).copy_(given[name])
        return Matched(state, list(found), set_aside, sorted({self.places[name].name for name in left}))

    def refuse_another_clip(self, given: Mapping[str, Tensor], image: UpperTower, text: UpperTower) -> None:
        """Check that a published checkpoint was trained on the given CLIP, as far as it contains frozen weights.

        Args:
            given: Tensors by published name.
            image: Upper layers of the given CLIP's vision tower.
            text: Upper layers of the given CLIP's text tower.

        Raises:
            RobustTuneError: The checkpoint was trained on another CLIP, or the given towers are those of a SigLIP.
        """
        if image.reads != "first":
            raise RobustTuneError(
                "published checkpoints are of methods on CLIP, and the encoders are of a SigLIP: name the CLIP that "
                "the checkpoint was trained on for image_encoder and text_encoder"
            )
        own = {
            "image_encoder.proj": image.projection.weight.T,
            "image_encoder.ln_post.weight": image.norm.weight,
            "text_encoder.text_projection": text.projection.weight.T,
            "text_encoder.ln_final.weight": text.norm.weight,
        }
        for part, expected in own.items():
            name = self.prefix + part
            found = given.get(name, given.get(f"module.{name}"))
            if found is None or part in self.trained_parts:
                continue
            # The tolerance allows for weights that were saved in half precision.
            same = found.shape == expected.shape
            if not same or not torch.allclose(found.float(), expected.float(), rtol=1e-2, atol=1e-3):
                raise RobustTuneError(
                    f"the published checkpoint was trained on another CLIP ({name} differs): "
                    "name the one it was trained on for image_encoder and text_encoder"
                )
