"""Networks that run the upper layers of both towers of a frozen CLIP themselves, and classify their features."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from robusttune.encoders import FrozenEncoder
from robusttune.encoders.clip import FrozenCLIPImage, FrozenCLIPText
from robusttune.encoders.upper_tower import UpperTower
from robusttune.errors import RobustTuneError
from robusttune.models.base import FusionModel
from robusttune.models.clip_heads import Head
from robusttune.models.pair_network import PairNetwork
from robusttune.types import Encoded, Facts, Widths

COMPLETE, IMAGE_ALONE, TEXT_ALONE = range(3)  # patterns of present modalities
PATTERNS = 3


class Towers(NamedTuple):
    """The two towers of a frozen CLIP.

    Attributes:
        image: Vision tower.
        text: Text tower.
    """

    image: FrozenCLIPImage
    text: FrozenCLIPText

    @classmethod
    def of(cls, image: FrozenEncoder, text: FrozenEncoder, what: str, siglip: bool = False) -> Towers:
        """Return two encoders as the towers of a CLIP.

        Args:
            image: Image encoder.
            text: Text encoder.
            what: What needs them, for the message.
            siglip: Whether they may be those of a SigLIP.

        Raises:
            RobustTuneError: They are not the towers of a CLIP.
        """
        if isinstance(image, FrozenCLIPImage) and isinstance(text, FrozenCLIPText):
            for tower in (image, text):
                if tower.is_siglip and not siglip:
                    raise RobustTuneError(
                        f"{what} adapts the towers of a CLIP, and {tower.settings.name!r} is a SigLIP: choose a CLIP "
                        "such as openai/clip-vit-base-patch16, or MMRL, MoRA or LoRA"
                    )
            return cls(image, text)
        raise RobustTuneError(
            f"{what} adapts the towers of a CLIP: set image_encoder.class_path to CLIPImageEncoder and "
            "text_encoder.class_path to CLIPTextEncoder"
        )

    @property
    def first_layers(self) -> tuple[int, int]:
        """Return the setting ``first_layer`` of both towers."""
        image: Any = self.image.settings
        return image.first_layer, self.text.settings.first_layer


class CLIPModel(FusionModel):
    """Settings of a `CLIPNetwork`."""

    def build(self, image: Widths, text: Widths, facts: Facts) -> CLIPNetwork:
        """Refuse to build a network from widths alone: it needs the towers, see `build_on`."""
        raise RobustTuneError(f"{type(self).__name__} needs the towers of a CLIP: call build_on with both encoders")

    @abstractmethod
    def build_on(self, image: FrozenEncoder, text: FrozenEncoder, facts: Facts) -> CLIPNetwork:
        """Build the network, see `FusionModel.build_on`."""


class CLIPNetwork(PairNetwork):
    """A network that computes a feature of each image and each text in the towers of a CLIP, and classifies both.

    The frozen layers belong to the encoders: the network refers to them, and no checkpoint stores them. The feature of
    a modality that is absent is zero, and its tower does not run.

    Args:
        towers: Towers, from the layers on that the network runs.
        facts: Class names and class frequencies of the training data.

    Attributes:
        head: Last part, from the features of both modalities to logits.
        reads_pattern: False if features do not depend on the pattern, so that one serves all patterns of a sample.
    """

    head: Head
    reads_pattern = True
    reads_pooled = False

    def __init__(self, towers: Towers, facts: Facts) -> None:
        super().__init__(facts)
        self._upper = (towers.image.upper, towers.text.upper)  # In a tuple, they do not become submodules.

    @property
    def upper(self) -> tuple[UpperTower, UpperTower]:
        """Return the frozen upper layers of the vision and of the text tower."""
        return self._upper

    @abstractmethod
    def image_features(self, states: Tensor, pattern: Tensor) -> Tensor:
        """Compute the features of images.

        Args:
            states: States that enter the upper layers, shape (B, n, d_v), with the class token first.
            pattern: Pattern of present modalities of each row, ``COMPLETE`` or ``IMAGE_ALONE``, shape (B,), int64.

        Returns:
            Features, shape (B, d_e).
        """

    @abstractmethod
    def text_features(self, states: Tensor, mask: Tensor, pattern: Tensor) -> Tensor:
        """Compute the features of texts.

        Args:
            states: States that enter the upper layers, shape (B, n, d_t).
            mask: Mask of the tokens, shape (B, n), bool. The last one of a text is the end token; padding follows.
            pattern: Pattern of each row, ``COMPLETE`` or ``TEXT_ALONE``, shape (B,), int64.

        Returns:
            Features, shape (B, d_e).
        """

    @property
    def output_layers(self) -> list[nn.Module]:
        """Return the last layers, see `FusionNetwork.output_layers`."""
        return [self.head]

    @property
    def gives_cosines(self) -> bool:
        """Return whether the logits are cosines, see `FusionNetwork.gives_cosines`."""
        return self.head.gives_cosines

    @property
    def adapts_images(self) -> bool:
        """Return whether the vision tower has upper layers, see `FusionNetwork.adapts_images`."""
        return len(self.upper[0].blocks) > 0

    def training_logits(self, logits: Tensor, label: Tensor, image_present: Tensor, text_present: Tensor) -> Tensor:
        """Return the head's logits of the loss, see `FusionNetwork.training_logits`; rows without input keep theirs."""
        of_head = self.head.training_logits(logits, label, pattern_of(image_present, text_present))
        return torch.where((image_present | text_present).unsqueeze(1), of_head, logits)

    def extra_losses(self) -> dict[str, Tensor]:
        """Return the losses of the head, see `FusionNetwork.extra_losses`."""
        return self.head.extra_losses()

    def pair_logits(
        self, image: Encoded, text: Encoded, rows: tuple[Tensor, Tensor], present: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Compute the logits of pairs, see `PairNetwork.pair_logits`."""
        pattern = pattern_of(*present)
        start = torch.zeros(1, dtype=torch.int64, device=pattern.device)

        def of_images(row: Tensor, pattern: Tensor) -> Tensor:
            """Compute the features of some images."""
            return self.image_features(image.tokens[0][row], pattern)

        def of_texts(row: Tensor, pattern: Tensor) -> Tensor:
            """Compute the features of some texts."""
            mask = text.mask[0][row].index_fill(1, start, True)  # A batch without texts has a mask without tokens.
            return self.text_features(text.tokens[0][row], mask, pattern)

        read = pattern if self.reads_pattern else torch.zeros_like(pattern)
        features = [
            each_once(run, row, shown, read)
            for run, row, shown in zip((of_images, of_texts), rows, present, strict=True)
        ]
        return self.head(torch.cat(features, 1), pattern), present[0] | present[1]


def pattern_of(image_present: Tensor, text_present: Tensor) -> Tensor:
    """Return the pattern of present modalities of each row, shape (B,), int64; without any, ``COMPLETE``.

    Args:
        image_present: Mask of the rows with an image, shape (B,), bool.
        text_present: Mask of the rows with a text, shape (B,), bool.

    Example:
        >>> pattern_of(torch.tensor([True, True, False]), torch.tensor([True, False, True]))
        tensor([0, 1, 2])
    """
    return IMAGE_ALONE * (image_present & ~text_present) + TEXT_ALONE * (text_present & ~image_present)


def each_once(run: Callable[[Tensor, Tensor], Tensor], rows: Tensor, present: Tensor, pattern: Tensor) -> Tensor:
    """Compute features of pairs with a modality, once for each different row and pattern.

    Args:
        run: Function from rows and their patterns, shape (N,) each, to features, shape (N, d).
        rows: Row of the encoder's output in each pair, shape (R,).
        present: Mask of the pairs with the modality, shape (R,), bool.
        pattern: Pattern of each pair, shape (R,).

    Returns:
        Features, shape (R, d), zeros where the modality is absent. Without any present row their gradient is zero, so
        that every parameter has one.
    """
    if torch.compiler.is_compiling():  # An exported graph must work for all masks.
        return torch.where(present.unsqueeze(1), run(rows, pattern), 0.0)
    keys, place = torch.unique((rows * PATTERNS + pattern)[present], return_inverse=True)
    found = run(keys // PATTERNS, keys % PATTERNS) if len(keys) else 0.0 * run(rows[:1], pattern[:1])
    features = found.new_zeros(len(rows), found.shape[1])
    if not len(keys):
        return features + found
    return features.index_put((present,), found[place])
