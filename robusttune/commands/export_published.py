"""The weights of an MMRL checkpoint under the names of the published implementation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save

from robusttune.checkpoint_file import KEY, read_checkpoint
from robusttune.counting import counted
from robusttune.encoders.clip import TowerShape
from robusttune.errors import RobustTuneError
from robusttune.models import MMRL, MMRLNetwork
from robusttune.models.published import to_published
from robusttune.paths import atomic_write
from robusttune.settings import from_plain
from robusttune.tasks import MMRLTask
from robusttune.terminal import print_line

NETWORK = "classifier.network."  # prefix of the trained weights in a checkpoint


def write_published(checkpoint_file: Path, out: Path) -> None:
    """Write the weights of a checkpoint and print their number.

    Args:
        checkpoint_file: Checkpoint of an `MMRLTask`.
        out: File to write: ``.safetensors``, or else torch's format.

    Raises:
        RobustTuneError: The checkpoint cannot be read or is not one of MMRL, or the output file exists.
    """
    checkpoint = read_checkpoint(checkpoint_file)
    task_name = checkpoint[KEY]["task"]
    if task_name != MMRLTask.__name__:
        raise RobustTuneError(f"{checkpoint_file} is of {task_name}, which was never published: give one of MMRLTask")
    if out.exists():
        raise RobustTuneError(f"{out} exists: give another --out")
    state = to_published(network_of(checkpoint))
    out.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(out) as partial:
        _write(state, partial, safe=out.suffix == ".safetensors")
    print_line(f"{counted(len(state), 'tensor')} written to {out}")


def network_of(checkpoint: dict[str, Any]) -> MMRLNetwork:
    """Rebuild the trained network of an MMRL checkpoint, without loading the CLIP that it was trained on.

    Args:
        checkpoint: Checkpoint of an `MMRLTask`, as `read_checkpoint` returns it.
    """
    items = checkpoint["state_dict"].items()
    state = {name.removeprefix(NETWORK): tensor for name, tensor in items if name.startswith(NETWORK)}
    shared_width = state["projection.weight" if "projection.weight" in state else "projection.b"].shape[1]
    shapes = (state[f"{modality}_maps.bias"].shape for modality in ("image", "text"))
    image, text = (TowerShape(layers, width, shared_width) for layers, width in shapes)
    network = MMRLNetwork(from_plain(checkpoint[KEY]["settings"]["adapter"], MMRL), image, text)
    network.load_state_dict(state)
    return network


def _write(state: dict[str, torch.Tensor], path: Path, safe: bool) -> None:
    if safe:
        path.write_bytes(save(state))
    else:
        torch.save({"state_dict": state}, path)
