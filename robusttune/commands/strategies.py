"""Refusal of Lightning strategies that do not work with this project."""

from __future__ import annotations

from pkgutil import resolve_name
from typing import Any

from lightning.pytorch.strategies import (
    DDPStrategy,
    DeepSpeedStrategy,
    FSDPStrategy,
    ModelParallelStrategy,
    StrategyRegistry,
)

from robusttune.errors import RobustTuneError

SHARDING = FSDPStrategy, DeepSpeedStrategy, ModelParallelStrategy


def refuse_sharding(strategy: Any) -> None:
    """Refuse strategies that shard a model, and those that fork or spawn processes.

    Args:
        strategy: Setting ``trainer.strategy`` as parsed: a name, or a namespace with ``class_path``.

    Raises:
        RobustTuneError: The strategy is one of these.

    Example:
        >>> refuse_sharding("ddp")
    """
    name, kind, arguments = _asked_for(strategy)
    if issubclass(kind, SHARDING):
        raise RobustTuneError(
            f"trainer.strategy {name} shards a model, but frozen encoders have to be whole on each device, and what is "
            "trained is too small to shard: set it to ddp, and for memory model.checkpoint_activations to true, "
            "trainer.precision to bf16-mixed or data.batch_size to less"
        )
    if issubclass(kind, DDPStrategy) and arguments.get("start_method", "popen") != "popen":
        raise RobustTuneError(
            f"trainer.strategy {name} forks or spawns processes out of this one, which then does not know what they "
            "did: set it to ddp, which starts the command once for each device"
        )


def _asked_for(strategy: Any) -> tuple[str, type, dict[str, Any]]:
    """Return name, class and arguments of a strategy. For a name unknown to Lightning, the class is `object`."""
    if not isinstance(strategy, str):
        return strategy.class_path, resolve_name(strategy.class_path), dict(strategy.get("init_args") or {})
    by_class = {kind.__name__.lower(): {"strategy": kind} for kind in SHARDING}
    known = {**StrategyRegistry, **by_class, "model_parallel": {"strategy": ModelParallelStrategy}}
    found = known.get(strategy.rpartition(".")[2].lower(), {"strategy": object})
    return strategy, found["strategy"], found.get("init_params", {})
