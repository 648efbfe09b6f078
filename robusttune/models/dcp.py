"""DCP: deep correlated prompts in both towers of a frozen CLIP, which depend on the modalities that are present.

Source: "Deep Correlated Prompting for Visual Recognition with Missing Modalities" (NeurIPS 2024, arXiv 2410.06558).

The results equal those of the published implementation, with less computation. The tower of an absent modality does
not run. Texts are cut to the longest of a batch. Prompts are computed for each pattern of present modalities, not for
each sample. The last layer runs for the token that is read alone, and of prompts that the next layer replaces only keys
and values are computed.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from robusttune.encoders import FrozenEncoder
from robusttune.encoders.clip import FrozenCLIPText
from robusttune.encoders.upper_tower import UpperTower
from robusttune.errors import RobustTuneError
from robusttune.models.clip_heads import Head, LinearHead, TrainedOutput
from robusttune.models.clip_network import CLIPModel, CLIPNetwork, Towers
from robusttune.models.dcp_prompts import CorrelatedPrompts, DynamicPrompts, LayerPrompts
from robusttune.models.prototypes import PrototypeHead, Prototypes
from robusttune.types import Facts

PAD = 0  # id of the padding token of the published code, whose states the dynamic prompts see


@dataclass(frozen=True)
class DCP(CLIPModel):
    """Settings of a `DCPNetwork`.

    Args:
        prompts: Number ``P`` of prompts in front of a tower's tokens. A third each is correlated, common and dynamic.
        depth: Number ``J`` of layers that insert correlated prompts of their own, from the first.
        train_queries: True to train the queries of the dynamic prompts; False to keep their random start, as published.
        prototypes: Settings of prototypes in place of the linear classifier, as in DPL (arXiv 2505.08283); None for
            the classifier.

    Raises:
        RobustTuneError: The number of prompts is no multiple of 3, or the depth is below 1.

    Example:
        >>> from robusttune.encoders import CLIPImageEncoder, CLIPTextEncoder
        >>> clip = {"name": "robusttune:demo_clip", "weights": "random", "first_layer": 1}
        >>> towers = CLIPImageEncoder(**clip).load(), CLIPTextEncoder(**clip).load()
        >>> network = DCP(prompts=6, depth=2).build_on(*towers, Facts(["cat", "dog"], [0.5, 0.5], multilabel=False))
        >>> network.prompts.common.shape
        torch.Size([3, 2, 128])
    """

    prompts: int = 36
    depth: int = 6
    train_queries: bool = False
    prototypes: Prototypes | None = None

    def __post_init__(self) -> None:
        if self.prompts < 3 or self.prompts % 3:
            raise RobustTuneError(f"model.fusion.prompts is {self.prompts}: give a multiple of 3, such as 36")
        if self.depth < 1:
            raise RobustTuneError(f"model.fusion.depth is {self.depth}: give at least 1")

    def build_on(self, image: FrozenEncoder, text: FrozenEncoder, facts: Facts) -> DCPNetwork:
        """Build the network.

        Raises:
            RobustTuneError: The encoders are not the towers of a CLIP from the first layer on, or have fewer layers
                than ``depth``.
        """
        towers = Towers.of(image, text, "DCP")
        if towers.first_layers != (1, 1):
            raise RobustTuneError(
                "DCP inserts prompts before the first layer: set image_encoder.first_layer and "
                "text_encoder.first_layer to 1"
            )
        layers = min(tower.upper.shape.layers for tower in towers)
        if self.depth > layers:
            raise RobustTuneError(
                f"model.fusion.depth is {self.depth}, and a tower has {layers} layers: give 1 to {layers}"
            )
        return DCPNetwork(self, towers, facts)


class DCPNetwork(CLIPNetwork):
    """The trained part of DCP.

    Args:
        settings: Settings of the network.
        towers: Towers, from the first layer on.
        facts: Class names and class frequencies of the training data.

    Attributes:
        prompts: Correlated and common prompts of both towers.
        image_dynamic: Dynamic prompts of images.
        text_dynamic: Dynamic prompts of texts.
        image_output: Trained output of the vision tower.
        text_output: Trained output of the text tower, whose projection is the frozen one, as published.
        head: Linear classifier, or prototypes.
        padding: States of padding at each position that enter the first layer of the text tower, shape (T, d_t).
    """

    padding: Tensor

    def __init__(self, settings: DCP, towers: Towers, facts: Facts) -> None:
        super().__init__(towers, facts)
        count = settings.prompts // 3
        image, text = (upper.shape.width for upper in self.upper)
        self.prompts = CorrelatedPrompts(count, settings.depth, image, text)
        self.image_dynamic = DynamicPrompts(count, image, settings.train_queries)
        self.text_dynamic = DynamicPrompts(count, text, settings.train_queries)
        self.image_output = TrainedOutput(self.upper[0], project=True)
        self.text_output = TrainedOutput(self.upper[1], project=False)
        width, classes = self.upper[0].shape.shared_width, len(facts.class_names)
        if settings.prototypes is None:
            self.head: Head = LinearHead(2 * width, classes, zero_bias=True)
        else:
            self.head = PrototypeHead(settings.prototypes, width, classes)
        self.register_buffer("padding", padding_states(towers.text), persistent=False)

    def image_features(self, states: Tensor, pattern: Tensor) -> Tensor:
        """Compute the features of images, see `CLIPNetwork.image_features`."""
        upper, prompts = self.upper[0], self.prompts()[0]
        states = torch.cat([prompts.common[pattern], self.image_dynamic(states, pattern), states], 1)
        states, front = self._run_layers(upper, prompts, states, pattern, causal=False)
        features: Tensor = self.image_output(upper, upper.state(states, front, None))
        return features

    def text_features(self, states: Tensor, mask: Tensor, pattern: Tensor) -> Tensor:
        """Compute the features of texts, see `CLIPNetwork.text_features`."""
        upper, prompts = self.upper[1], self.prompts()[1]
        dynamic = self.text_dynamic(self._padded(states, mask), pattern)
        states = torch.cat([prompts.common[pattern], dynamic, states], 1)
        states, front = self._run_layers(upper, prompts, states, pattern, causal=True)
        real = torch.cat([mask.new_ones(len(mask), front), mask], 1)
        features: Tensor = self.text_output(upper, upper.state(states, front + mask.sum(1) - 1, real))
        return features

    def _run_layers(
        self, upper: UpperTower, prompts: LayerPrompts, states: Tensor, pattern: Tensor, causal: bool
    ) -> tuple[Tensor, int]:
        """Run all layers but the last.

        Args:
            upper: Frozen tower.
            prompts: Prompts of the tower.
            states: Common prompts, dynamic prompts and tokens, shape (B, 2 n + m, d).
            pattern: Pattern of present modalities of each row, shape (B,).
            causal: Whether attention is causal.

        Returns:
            States that enter the last layer, with all ``P`` prompts in front, and the number ``P``.
        """
        depth, kinds = len(prompts.correlated), 3
        for number, block in enumerate(upper.blocks[:-1], start=1):
            if number < depth:  # The next layer replaces these prompts.
                front = block.keys_and_values(prompts.correlated[number - 1])[pattern]
                states = self.run(block, states, causal, front)
                continue
            if number == depth:
                states = torch.cat([prompts.correlated[-1][pattern], states], 1)
            states = self.run(block, states, causal)
        if depth == len(upper.blocks):
            states = torch.cat([prompts.correlated[-1][pattern], states], 1)
        return states, kinds * prompts.common.shape[1]

    def _padded(self, states: Tensor, mask: Tensor) -> Tensor:
        """Return the states of texts, padded to the tower's full length, as the published code has them.

        Args:
            states: States that enter the first layer, shape (B, n, d_t).
            mask: Mask of the tokens, shape (B, n), bool.

        Returns:
            States, shape (B, T, d_t).
        """
        length = states.shape[1]
        padding = self.padding.to(states.dtype)
        own = torch.where(mask.unsqueeze(2), states, padding[:length])
        # An exported graph must work for all lengths, which a concatenation would not.
        return padding.expand(len(own), -1, -1).index_copy(1, torch.arange(length, device=own.device), own)


def padding_states(tower: FrozenCLIPText) -> Tensor:
    """Return the states of the padding token at each position of a text, shape (T, d_t).

    Args:
        tower: Text tower from its first layer on.
    """
    backbone = tower.backbone
    embeddings = backbone["embeddings"]  # type: ignore[index]
    positions = embeddings.position_embedding.num_embeddings
    with torch.no_grad():
        states: Tensor = embeddings(torch.full((1, positions), PAD, device=tower.anchor.device))[0]
    return states
