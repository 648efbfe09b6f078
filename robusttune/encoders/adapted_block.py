"""Layers of frozen CLIP towers with other weights of the attention's projections, such as low-rank updates."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn
from torch.nn import functional

from robusttune.encoders.blocks import Block


class AdaptedBlock(nn.Module):
    """A frozen layer that runs with other weights of some of its attention's projections.

    It shares all that is not replaced with the frozen layer, which does not become a submodule, and it can take its
    place in an `UpperTower`. In training, dropout acts on the whole input of each replaced projection, with a mask of
    its own.

    Args:
        block: Frozen layer.
        adapters: Trained modules from a frozen weight to the one that replaces it, shape (d, d), by the name of the
            projection in `PROJECTIONS`.
        dropout: Dropout probability of the inputs of these projections, in [0, 1).

    Attributes:
        adapters: Trained modules by name.
        dropouts: Dropout of the input, by name.
    """

    def __init__(self, block: Block, adapters: Mapping[str, nn.Module], dropout: float) -> None:
        super().__init__()
        self._block = (block,)  # In a tuple, it does not become a submodule.
        self.adapters = nn.ModuleDict(adapters)
        self.dropouts = nn.ModuleDict({name: nn.Dropout(dropout) for name in adapters})

    @property
    def block(self) -> Block:
        """Return the frozen layer."""
        return self._block[0]

    def weights(self) -> dict[str, Tensor]:
        """Compute the weights that replace those of the frozen layer, by the name of the projection, shape (d, d)."""
        return {name: adapter(self.block.weight(name)) for name, adapter in self.adapters.items()}

    def forward(self, states: Tensor, causal: bool = False) -> Tensor:
        """Run the whole layer on all tokens, see `Block.forward`.

        Args:
            states: Token states, shape (B, n, d).
            causal: If True, each token attends only to itself and the tokens before it.

        Returns:
            Token states after the layer, shape (B, n, d).
        """
        weights, normed = self.weights(), self.block.norm1(states)
        key, value = (
            functional.linear(self._drop(name, normed), self._weight(name, weights)) for name in ("k_proj", "v_proj")
        )
        attended = self.block.attend_to(self._query(normed, weights), key, value, causal=causal)
        return self._finish(states, attended, weights)

    def read_some(self, states: Tensor, asking: Tensor, mask: Tensor | None = None) -> Tensor:
        """Run the layer for some of its tokens, see `Block.read_some`; states and masks have the same shapes."""
        if mask is None and asking.shape[1] == states.shape[1]:
            return self(states)  # type: ignore[no-any-return]
        weights, normed = self.weights(), self.block.norm1(states)
        query = self._query(self.block.norm1(asking), weights)
        keys, values = ((self._drop(name, normed), self._weight(name, weights)) for name in ("k_proj", "v_proj"))
        return self._finish(asking, self.block.attend_with(query, keys, values, mask), weights)

    def _query(self, normed: Tensor, weights: Mapping[str, Tensor]) -> Tensor:
        weight = self._weight("q_proj", weights)
        return functional.linear(self._drop("q_proj", normed), weight, self.block.query.bias)

    def _finish(self, states: Tensor, attended: Tensor, weights: Mapping[str, Tensor]) -> Tensor:
        """Apply the output projection, the residual connections and the MLP, see `Block.finish`."""
        if "out_proj" not in weights:
            return self.block.finish(states, attended)
        attended = self._drop("out_proj", attended + self.block.value_bias)  # dropout sees the values' bias, too
        return self.block.feed_forward(states + functional.linear(attended, weights["out_proj"], self.block.out_bias))

    def _weight(self, name: str, weights: Mapping[str, Tensor]) -> Tensor:
        """Return the weight that replaces the frozen one, or else the frozen one."""
        return weights[name] if name in weights else self.block.weight(name)

    def _drop(self, name: str, inputs: Tensor) -> Tensor:
        """Apply the dropout of a projection to its input; without an adapter there is none."""
        dropped: Tensor = self.dropouts[name](inputs) if name in self.dropouts else inputs
        return dropped
