"""DPL: prototypes of classes for each pattern of present modalities, on the features of a frozen CLIP.

Source: "DPL: Decoupled Prototype Learning for Enhancing Robustness of Vision-Language Transformers to Missing
Modalities" (CVPR 2026, arXiv 2505.08283), without prompts. `DCP` takes the same head by its setting ``prototypes``.
All that is trained lies behind the last layer of both towers, so a cache holds one token of each image and text.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from robusttune.encoders import FrozenEncoder
from robusttune.errors import RobustTuneError
from robusttune.models.clip_heads import TrainedOutput
from robusttune.models.clip_network import CLIPModel, CLIPNetwork, Towers
from robusttune.models.prototypes import PrototypeHead, Prototypes
from robusttune.types import Facts


@dataclass(frozen=True)
class DPL(CLIPModel):
    """Settings of a `DPLNetwork`.

    Args:
        prototypes: Settings of the head and of its losses.

    Example:
        >>> from robusttune.encoders import CLIPImageEncoder, CLIPTextEncoder
        >>> clip = {"name": "robusttune:demo_clip", "weights": "random", "first_layer": 5}  # it has 4 layers
        >>> towers = CLIPImageEncoder(**clip).load(), CLIPTextEncoder(**clip).load()
        >>> network = DPL().build_on(*towers, Facts(["cat", "dog"], [0.5, 0.5], multilabel=False))
        >>> network.head.prototypes.shape
        torch.Size([4, 2, 128])
    """

    prototypes: Prototypes = field(default_factory=Prototypes)

    def build_on(self, image: FrozenEncoder, text: FrozenEncoder, facts: Facts) -> DPLNetwork:
        """Build the network.

        Raises:
            RobustTuneError: The encoders are not the towers of a CLIP, or leave layers to the network.
        """
        towers = Towers.of(image, text, "DPL")
        for modality, tower, first in zip(("image", "text"), towers, towers.first_layers, strict=True):
            if tower.upper.shape.layers:
                raise RobustTuneError(
                    f"DPL changes no layer: set {modality}_encoder.first_layer to {first + tower.upper.shape.layers}, "
                    "one more than the tower has layers"
                )
        return DPLNetwork(self, towers, facts)


class DPLNetwork(CLIPNetwork):
    """The trained part of DPL.

    Args:
        settings: Settings of the network.
        towers: Towers without upper layers.
        facts: Class names and class frequencies of the training data.

    Attributes:
        image_output: Trained output of the vision tower.
        text_output: Trained output of the text tower, whose projection is the frozen one, as published.
        head: Prototypes of the classes.
    """

    def __init__(self, settings: DPL, towers: Towers, facts: Facts) -> None:
        super().__init__(towers, facts)
        self.image_output = TrainedOutput(self.upper[0], project=True)
        self.text_output = TrainedOutput(self.upper[1], project=False)
        width = self.upper[0].shape.shared_width
        self.head = PrototypeHead(settings.prototypes, width, len(facts.class_names))

    def image_features(self, states: Tensor, pattern: Tensor) -> Tensor:
        """Compute the features of images from their class tokens, see `CLIPNetwork.image_features`."""
        del pattern
        features: Tensor = self.image_output(self.upper[0], states[:, 0])
        return features

    def text_features(self, states: Tensor, mask: Tensor, pattern: Tensor) -> Tensor:
        """Compute the features of texts from their end tokens, see `CLIPNetwork.text_features`."""
        del mask, pattern
        features: Tensor = self.text_output(self.upper[1], states[:, 0])
        return features
