"""Checkpoint files that are whole or not there, and that can be read without executing anything."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from lightning.pytorch.plugins import TorchCheckpointIO

from robusttune.errors import RobustTuneError
from robusttune.paths import whole_file
from robusttune.tasks.checkpoint import read_checkpoint


class SafeCheckpointIO(TorchCheckpointIO):
    """Writes beside the file and renames; reads tensors and plain data only."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        final = Path(path)
        try:
            with whole_file(final) as partial:
                super().save_checkpoint(checkpoint, partial, storage_options)
        except OSError as error:
            raise RobustTuneError(
                f"the checkpoint {final} cannot be written ({error.strerror}), and the one before is as it was: "
                "make room, and go on from it with --ckpt_path"
            ) from error

    def load_checkpoint(
        self,
        path: str | Path,
        map_location: Callable[..., Any] | None = None,
        weights_only: bool | None = None,
    ) -> dict[str, Any]:
        return read_checkpoint(path)
