"""Atomic writing and safe reading of checkpoint files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from lightning.pytorch.plugins import TorchCheckpointIO

from robusttune.checkpoint_file import read_checkpoint
from robusttune.errors import RobustTuneError
from robusttune.paths import atomic_write


class SafeCheckpointIO(TorchCheckpointIO):
    """A checkpoint plugin that replaces files atomically, and reads tensors and plain data only."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write a checkpoint to a temporary file, then replace ``path`` atomically.

        Raises:
            RobustTuneError: The file cannot be written, for example because the disk is full.
        """
        final = Path(path)
        try:
            with atomic_write(final) as partial:
                super().save_checkpoint(checkpoint, partial, storage_options)
        except OSError as error:
            raise RobustTuneError(
                f"the checkpoint {final} cannot be written ({error.strerror}), and the previous one is unchanged: "
                "make room, and go on from it with --ckpt_path"
            ) from error

    def load_checkpoint(
        self,
        path: str | Path,
        map_location: Callable[..., Any] | None = None,
        weights_only: bool | None = None,
    ) -> dict[str, Any]:
        """Read a checkpoint onto the CPU, see `read_checkpoint`. The other arguments are ignored."""
        return read_checkpoint(path)
