"""The trained weights of a checkpoint under the names of the method's published implementation."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save

from robusttune.checkpoint_file import KEY, read_checkpoint
from robusttune.counting import counted
from robusttune.errors import RobustTuneError
from robusttune.models.published import names_of
from robusttune.paths import atomic_write
from robusttune.terminal import print_line
from robusttune.types import Facts

NETWORK = "classifier.network."  # prefix of the trained weights in a checkpoint


def write_published(checkpoint_file: Path, out: Path) -> None:
    """Write the weights of a checkpoint and print their number.

    Args:
        checkpoint_file: Checkpoint of a method whose implementation was published.
        out: File to write: ``.safetensors``, or else torch's format.

    Raises:
        RobustTuneError: The checkpoint cannot be read or is of another method, or the output file exists.
    """
    checkpoint = read_checkpoint(checkpoint_file)
    items = checkpoint["state_dict"].items()
    own = {name.removeprefix(NETWORK): tensor for name, tensor in items if name.startswith(NETWORK)}
    about = checkpoint[KEY]
    first_layer = about["image_encoder"]["init_args"].get("first_layer", 1)
    model = f"the model of {about['task']} in {checkpoint_file}"
    names = names_of(own, model, _data_set(Facts(**about["facts"])), first_layer)
    if out.exists():
        raise RobustTuneError(f"{out} exists: give another --out")
    state = names.write(own)
    out.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(out) as partial:
        _write(state, partial, safe=out.suffix == ".safetensors")
    print_line(f"{counted(len(state), 'tensor')} written to {out}")


def _data_set(facts: Facts) -> str:
    """Return the one of the published data sets that is of the same kind: with several labels, two classes, or more."""
    if facts.multilabel:
        return "mmimdb"
    return "hatememes" if len(facts.class_names) == 2 else "food101"


def _write(state: dict[str, torch.Tensor], path: Path, safe: bool) -> None:
    if safe:
        path.write_bytes(save(state))
    else:
        torch.save({"state_dict": state}, path)
