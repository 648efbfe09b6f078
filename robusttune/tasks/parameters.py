"""Description of the parameters of a task."""

from __future__ import annotations

from typing import TYPE_CHECKING

from robusttune.counting import counted
from robusttune.models.classifier import ENCODERS
from robusttune.tasks.checkpoint import is_frozen

if TYPE_CHECKING:
    from robusttune.tasks.base import RobustTask


def describe_parameters(task: RobustTask) -> str:
    """Describe how many parameters are trained and frozen, including those of encoders whose memory was freed.

    Args:
        task: Task of any kind.
    """
    own = [p for name, p in task.named_parameters() if not is_frozen(name)]
    trained = sum(p.numel() for p in own if p.requires_grad)
    frozen = {name.replace("_", " "): task.classifier.encoder(name).size for name in ENCODERS}
    others = sum(p.numel() for p in own if not p.requires_grad)
    frozen |= {"others": others} if others else {}
    parts = ", ".join(f"{name} {number:,}" for name, number in frozen.items())
    verb = "is" if trained == 1 else "are"
    return f"{counted(trained, 'parameter')} {verb} trained, {sum(frozen.values()):,} are frozen ({parts})"
