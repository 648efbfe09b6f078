"""The streamed training split of a data module."""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn

from lightning.pytorch.utilities import rank_zero_info

from robusttune.corruption.missing import Missing
from robusttune.counting import counted
from robusttune.data.loaders import Loaders, Processes
from robusttune.data.preprocessed import Preprocessing
from robusttune.data.streaming.batches import StreamedBatches
from robusttune.data.streaming.loader import StreamLoader
from robusttune.data.streaming.training_stream import TrainingStream
from robusttune.data.workers import Workers, limited_by_memory
from robusttune.errors import RobustTuneError
from robusttune.ranks import gather, max_over_ranks, rank
from robusttune.types import Facts


def stream_loader(
    stream: TrainingStream,
    preprocessing: Preprocessing,
    missing: Missing | None,
    facts: Facts,
    loaders: Loaders,
    processes: Processes,
    epoch: Callable[[], int],
) -> StreamLoader:
    """Return a loader of streamed training samples, for one process of a run.

    Each loader process needs files of its own, so there are at most as many as files for each process of the run.

    Args:
        stream: Stream of the samples.
        preprocessing: Steps from records to inputs of the encoders.
        missing: Missing-modality protocol with a rate, or None.
        facts: Class names and kind of task.
        loaders: Settings of the loaders.
        processes: Processes of the run.
        epoch: Function that returns the epoch of the next iteration.
    """
    asked, most = loaders.workers(processes.cores), max(1, stream.shards // processes.world_size)
    number = min(asked, most)
    if number < asked:
        started = counted(number, "loader process", "loader processes")
        files = counted(stream.shards, "file")
        rank_zero_info(f"train: {started} for each device, not {asked}: each needs a file of its own, of {files}")
    sample = 3 * preprocessing.resizing.size**2 + 9 * preprocessing.tokenizer.max_length
    workers = limited_by_memory(
        Workers(number, loaders.settings.prefetch),
        sample * loaders.batch_size,
        2 * processes.on_machine,  # training and validation
        loaders.settings.workers is not None,
        counted(loaders.batch_size, "train sample"),
    )
    # All devices need as many, also on machines that differ: the parts of an epoch depend on their number.
    workers = workers._replace(number=-max_over_ranks(-workers.number))
    own = (processes.rank, processes.world_size)
    batches = StreamedBatches(stream, preprocessing, facts, missing, loaders.batch_size, *own)
    return StreamLoader(batches, workers, epoch)


def refuse_streamed(found: list[str]) -> NoReturn:
    """Raise an error about unreadable images of a batch. The other images of a stream cannot be checked first.

    Args:
        found: Error messages of the unreadable images on this rank. Every rank must call this.

    Raises:
        RobustTuneError: Always, on all ranks.
    """
    problems = sorted({problem for each in gather(found) for problem in each})
    raise RobustTuneError(
        f"{'; '.join(problems[:3])}{'; ...' * (len(problems) > 3)}: repair or remove "
        f"{'it' if len(problems) == 1 else 'them'}, or set data.unreadable to absent",
        reported_elsewhere=rank() > 0,
    )


def stream_summary(stream: TrainingStream, facts: Facts, missing: Missing | None) -> str:
    """Return a log line about the stream.

    Args:
        stream: Stream of the samples.
        facts: Class names and kind of task.
        missing: Missing-modality protocol with a rate, or None.
    """
    line = f"train: streamed from {counted(stream.shards, 'file')}, shuffled in groups of {stream.buffer:,} samples"
    line += f"; the frequencies of {counted(len(facts.class_names), 'class', 'classes')} are those of val"
    return line if missing is None else f"{line}; {missing.rate:.0%} of the samples lack a modality"
