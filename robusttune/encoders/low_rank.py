"""Low-rank adaptation (LoRA, arXiv 2106.09685): trained updates of the weights of a frozen encoder's linear layers.

An update is a parametrisation of a weight ``W``: whenever the model reads it, torch computes ``W + alpha / rank B A``.
So it works where a model passes the weight on instead of calling the layer, as timm's BEiT does. The layers that the
library peft puts around a layer have no effect there. Queries, keys and values that share one weight have an update
each, of their own rows.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from robusttune.errors import RobustTuneError

Target = Literal["query", "key", "value", "output", "fc1", "fc2"]

PARAMETERS = ("lora_A", "lora_B")  # names of the trained parameters, as peft has them
ATTENTION = r"(attention|self_attn|attn|attention\.(self|attention|attn))\."
# Names of the linear layers within a layer of a transformer, in timm and transformers, by the parts of their rows.
PATTERNS: dict[tuple[Target, ...], str] = {
    ("query",): ATTENTION + "(query|query_proj|q_proj|q_lin|q)",
    ("key",): ATTENTION + "(key|key_proj|k_proj|k_lin|k)",
    ("value",): ATTENTION + "(value|value_proj|v_proj|v_lin|v)",
    ("query", "key", "value"): ATTENTION + "(qkv|Wqkv)",
    ("output",): ATTENTION + r"(output\.dense|out_proj|o_proj|out_lin|o|proj|Wo)",
    ("fc1",): r"intermediate\.dense|(mlp|ffn)\.(fc1|lin1|up_proj)",
    ("fc2",): r"output\.dense|(mlp|ffn)\.(fc2|lin2|down_proj)",
}


@dataclass(frozen=True, kw_only=True)
class LoRA:
    """Settings of low-rank adaptation of an encoder.

    Args:
        rank: Rank of each update, at least 1. An update of a linear layer has ``rank`` x (inputs + outputs) parameters.
        alpha: Scale of the updates times the rank: ``alpha / rank`` times the product ``B A`` is added to a weight.
        targets: Linear layers that are updated: ``query``, ``key``, ``value`` and ``output`` of the attention, ``fc1``
            and ``fc2`` of the feed-forward part.
        first_layer: First layer with updates, counted from 1. The layers below it need no gradients. None for the last
            third of the layers.

    Raises:
        RobustTuneError: The rank or ``alpha`` is not positive, or the targets are empty or repeated.

    Example:
        >>> LoRA(rank=4, first_layer=5).layers(depth=6)
        range(5, 7)
    """

    rank: int = 8
    alpha: float = 16.0
    targets: tuple[Target, ...] = ("query", "value")
    first_layer: int | None = None

    def __post_init__(self) -> None:
        if self.rank < 1 or not self.alpha > 0:  # This form refuses NaN, too.
            raise RobustTuneError(f"lora has rank {self.rank} and alpha {self.alpha}: give positive numbers")
        known, given = get_args(Target), self.targets
        if not given or not {*known}.issuperset(given) or len({*given}) < len(given):
            raise RobustTuneError(f"lora.targets is {list(given)}: give different ones of {', '.join(known)}")

    def layers(self, depth: int) -> range:
        """Return the numbers of the layers with updates, counted from 1.

        Args:
            depth: Number of layers of the encoder.

        Raises:
            RobustTuneError: The first layer is out of range.
        """
        first = depth - math.ceil(depth / 3) + 1 if self.first_layer is None else self.first_layer
        if not 1 <= first <= depth:
            raise RobustTuneError(
                f"lora.first_layer is {first}, and the encoder has {depth} layers: give a number from 1 to {depth}"
            )
        return range(first, depth + 1)


class LowRankUpdates(nn.Module):
    """A parametrisation that adds low-rank updates to a weight, or to parts of its rows.

    ``A`` is drawn at random and ``B`` is zero, so that nothing changes before the first training step.

    Args:
        weight: Weight, shape (d_out, d_in).
        parts: Names of the parts of its rows, which have equal sizes.
        settings: Settings of the updates. Those of its targets that are among ``parts`` have an update.
    """

    def __init__(self, weight: Tensor, parts: Sequence[Target], settings: LoRA) -> None:
        super().__init__()
        self.parts = parts
        self.scale = settings.alpha / settings.rank
        self.updates = nn.ModuleDict()
        for part in [part for part in parts if part in settings.targets]:
            lora_a = weight.new_empty(settings.rank, weight.shape[1])
            nn.init.kaiming_uniform_(lora_a, a=math.sqrt(5))  # as the authors' code and peft do
            lora_b = weight.new_zeros(len(weight) // len(parts), settings.rank)
            pair = zip(PARAMETERS, (lora_a, lora_b), strict=True)
            self.updates[part] = nn.ParameterDict({name: nn.Parameter(value) for name, value in pair})

    def forward(self, weight: Tensor) -> Tensor:
        """Return the updated weight, shape (d_out, d_in)."""
        rows = list(weight.chunk(len(self.parts)))
        for number, part in enumerate(self.parts):
            if part in self.updates:
                lora_a, lora_b = (self.updates[part][name] for name in PARAMETERS)  # type: ignore[index]
                rows[number] = rows[number] + self.scale * (lora_b @ lora_a)
        return rows[0] if len(rows) == 1 else torch.cat(rows)


def insert_updates(backbone: nn.Module, settings: LoRA, depth: int, name: str) -> list[str]:
    """Insert updates into a frozen model, in place. They are its only parameters that require a gradient.

    Args:
        backbone: Model whose parameters require no gradient.
        settings: Settings of the updates.
        depth: Number of layers of the model.
        name: Name of the model, for messages.

    Returns:
        Names of the linear layers with updates.

    Raises:
        RobustTuneError: The model is no stack of ``depth`` layers with the targets, or the first layer is out of range.
    """
    numbers = settings.layers(depth)
    stacks = [stack for stack in backbone.modules() if isinstance(stack, nn.ModuleList | nn.Sequential)]
    stacks = [stack for stack in stacks if all(_has(layer, settings.targets) for layer in stack) and len(stack) > 0]
    if len(stacks) != 1 or len(stacks[0]) != depth:
        raise RobustTuneError(
            f"{name!r} is no stack of layers with {', '.join(settings.targets)} that lora knows: give other "
            "lora.targets, set lora to null, or choose another model, such as a ViT or BERT"
        )
    chosen = [pair for number in numbers for pair in _adaptable(stacks[0][number - 1])]
    updates = {linear: parts for linear, parts in chosen if {*parts} & {*settings.targets}}
    names = [name for name, module in backbone.named_modules() if module in updates]
    for linear, parts in updates.items():
        parametrize.register_parametrization(linear, "weight", LowRankUpdates(linear.weight, parts, settings))
    return names


def _adaptable(layer: nn.Module) -> list[tuple[nn.Linear, Sequence[Target]]]:
    """Return the linear layers in a layer of a transformer that can be updated, with the names of the parts of each."""
    linear = [(name, module) for name, module in layer.named_modules() if isinstance(module, nn.Linear)]
    return [
        (module, parts) for name, module in linear for parts, pattern in PATTERNS.items() if re.fullmatch(pattern, name)
    ]


def _has(layer: nn.Module, targets: Sequence[Target]) -> bool:
    """Return whether a layer has each target once."""
    found = [part for _, parts in _adaptable(layer) for part in parts]
    return all(found.count(target) == 1 for target in targets)


def merge_updates(layers: Iterable[nn.Module]) -> None:
    """Add the updates of linear layers to their weights, and remove them. Merged layers stay as they are."""
    for layer in layers:
        if parametrize.is_parametrized(layer, "weight"):
            parametrize.remove_parametrizations(layer, "weight", leave_parametrized=True)
            layer.requires_grad_(False)


def is_update(key: str) -> bool:
    """Return whether a key of a state dict is that of an update."""
    return key.rpartition(".")[2] in PARAMETERS
