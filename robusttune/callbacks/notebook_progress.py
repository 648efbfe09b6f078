"""The progress bar of a fit in a notebook without widgets."""

from __future__ import annotations

from lightning.pytorch.callbacks import TQDMProgressBar
from lightning.pytorch.callbacks.progress.tqdm_progress import Tqdm


class NotebookProgress(TQDMProgressBar):
    """A progress bar with one line. A second line, for the validation, needs a cursor, which notebooks do not have."""

    def init_validation_tqdm(self) -> Tqdm:
        """Return a bar that is not drawn."""
        return Tqdm(disable=True)
