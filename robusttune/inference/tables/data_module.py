"""The data module of the command ``predict``: the parts of a table that a process predicts, one after the other."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import asdict, is_dataclass
from typing import Any

from lightning.pytorch import LightningDataModule
from lightning.pytorch.utilities import rank_zero_info

from robusttune.checkpoint_file import KEY, checkpoint_path, read_checkpoint
from robusttune.corruption.conditions import Conditions
from robusttune.corruption.noise import NoiseBySplit
from robusttune.counting import counted
from robusttune.data.loaders import Loaders, Processes
from robusttune.data.preprocessed import Preprocessing
from robusttune.data.rows import Rows
from robusttune.data.settings import LoaderSettings, TrainingSettings, require_minimum
from robusttune.data.sources import Source
from robusttune.encoders import ImageEncoder, TextEncoder
from robusttune.inference.tables.inputs import Piece, open_input
from robusttune.inference.tables.manifest import take_folder
from robusttune.inference.tables.plan import Part, Shard, parts_of, unfinished
from robusttune.inference.tables.results import ResultColumns
from robusttune.paths import user_path
from robusttune.settings import from_plain
from robusttune.types import Batch, Facts

PART_ROWS = 10_000
SPLITS = ("train", "val", "test", "predict")  # settings of a source that name tables, which may lie anywhere


class PredictionData(LightningDataModule):
    """The samples to predict with a checkpoint, and the folder for their predictions.

    The encoders, whose preprocessing is applied, and the classes are those of the checkpoint. A wrong setting, input or
    folder is refused here, before any encoder is loaded.

    Args:
        source: Layout of the input, by default a table.
        ckpt_path: Checkpoint, or folder of its run. It may be untrusted.
        out: Folder of the predictions. If it has predictions of the same settings, they are continued.
        shard: Share of this job, such as ``3/16``; None for all parts.
        top_k: Number of most probable classes to write; None for a column per class.
        columns: Columns of the input to copy to the predictions, ``all``, or None for none of them.
        part_rows: Number of rows per output file, at least 1.
        precision: Precision of the Trainer, which changes the predictions slightly.
        batch_size: Number of samples per batch and process, at least 1.
        loader: Loader processes.

    Attributes:
        checkpoint: Content of the checkpoint.
        parts: All parts of the output.
        pieces: Samples of the parts whose batches were given out, and which the receiver has not removed yet.
        result_columns: Columns of the predictions.

    Raises:
        RobustTuneError: A setting is out of range, or the checkpoint, the input or the folder cannot be used.
    """

    def __init__(
        self,
        source: Source,
        ckpt_path: str,
        out: str,
        shard: str | None = None,
        top_k: int | None = None,
        columns: list[str] | str | None = None,
        part_rows: int = PART_ROWS,
        precision: Any = None,
        batch_size: int = 64,
        loader: LoaderSettings = LoaderSettings(),  # noqa: B008, it is frozen
    ) -> None:
        super().__init__()
        require_minimum("part_rows", part_rows, 1)
        self.shard = Shard.parse(shard)
        self.checkpoint = read_checkpoint(checkpoint_path(ckpt_path))
        metadata = self.checkpoint[KEY]
        self.facts = Facts(**metadata["facts"])
        self.source = source
        self.input = open_input(source, columns)
        thresholds = self.checkpoint["state_dict"].get("classifier.thresholds.values")
        threshold = 0.5 if thresholds is None else thresholds.numpy()
        columns_of = (self.facts.class_names, self.facts.multilabel, top_k, self.input.kept)
        self.result_columns = ResultColumns(*columns_of, threshold)
        self.parts = parts_of(self.input.rows, part_rows)
        self.folder = user_path(out)
        settings = {"top_k": top_k, "columns": [*self.input.kept], "part_rows": part_rows, "precision": str(precision)}
        identity = {
            "checkpoint": {"digest": metadata["digest"]},
            "input": {"state": self.input.state, "rows": self.input.rows},
            "settings": settings | {"source": _settings_of(source)},
        }
        take_folder(self.folder, identity, self.parts)
        image = from_plain(metadata["image_encoder"], ImageEncoder)
        text = from_plain(metadata["text_encoder"], TextEncoder)
        self.preprocessing = Preprocessing(image, text, TrainingSettings(), NoiseBySplit(), views=None, seed=0)
        self.loaders = Loaders(loader, batch_size, seed=0)
        self.pieces: deque[Piece] = deque()

    def own_parts(self) -> list[Part]:
        """Return the parts that this process has to predict: its share, without those that are finished."""
        processes = Processes.of(self.trainer)
        return unfinished(self.folder, self.shard.parts(self.parts, processes.rank, processes.world_size))

    def setup(self, stage: str) -> None:
        """Log how many rows and parts there are, and how many are finished."""
        del stage
        share = self.shard.parts(self.parts)
        done = len(share) - len(unfinished(self.folder, share))
        line = f"{counted(self.input.rows, 'row')} in {counted(len(self.parts), 'part')}"
        line += f", {len(share)} of them in shard {self.shard.number}/{self.shard.of}" if self.shard.of > 1 else ""
        rank_zero_info(f"{line}; {done} {'is' if done == 1 else 'are'} finished already" if done else line)

    def predict_dataloader(self) -> PartsLoader:
        """Return the batches of this process's parts."""
        return PartsLoader(self, self.own_parts())


class PartsLoader:
    """The batches of some parts, in the order of their rows. A batch never has rows of two parts.

    Its length is not defined, so that a process without parts is treated as any other.

    Args:
        data: Data module. A part's samples are added to its ``pieces`` before the first batch.
        parts: Parts, in ascending order.
    """

    def __init__(self, data: PredictionData, parts: list[Part]) -> None:
        self.data = data
        self.parts = parts

    def __iter__(self) -> Iterator[Batch]:
        data, complete = self.data, Conditions(["complete"])
        processes = Processes.of(data.trainer)._replace(rank=0, world_size=1)  # No other process has rows of the part.
        for piece in data.input.pieces(self.parts):
            data.pieces.append(piece)
            rows = Rows(piece.records)
            samples = data.preprocessing.dataset(rows, data.input.images, None, "predict", "predict", complete)
            yield from data.loaders.build(samples, "predict", data.facts, processes, shuffle=False)


def _settings_of(source: Source) -> dict[str, Any]:
    """Return the settings of a source as plain data, without the paths of its tables."""
    settings: dict[str, Any] = asdict(source) if is_dataclass(source) else {}
    return {"class": type(source).__name__} | {name: value for name, value in settings.items() if name not in SPLITS}
