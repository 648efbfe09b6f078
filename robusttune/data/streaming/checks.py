"""The settings that need all training samples at once, and so cannot be used with a stream."""

from __future__ import annotations

from robusttune.corruption.missing import Missing, MissingBySplit
from robusttune.data.settings import CacheSettings, TrainingSettings
from robusttune.data.splits import Splits
from robusttune.data.streaming.training_stream import TrainingStream
from robusttune.errors import RobustTuneError


def refuse_unsupported(
    stream: TrainingStream, splits: Splits, training: TrainingSettings, missing: MissingBySplit, cache: CacheSettings
) -> None:
    """Check that no setting needs all training samples at once.

    Args:
        stream: Stream of the training samples.
        splits: Selection of samples.
        training: Settings of training samples.
        missing: Missing-modality protocols. A rate is applied to each training sample by itself.
        cache: Settings of the feature cache.

    Raises:
        RobustTuneError: A setting does. The message names all that do. Or samples of one modality are to lose it.
    """
    protocol = missing.train or Missing(rate=0.0)
    found = {
        "data.splits.shots": splits.shots is not None,
        "data.splits.subset": splits.subset is not None,
        "data.splits.classes": splits.classes != "all",
        "data.training.balance": training.balance is not None,
        "data.missing.train.table": protocol.table is not None,
        "data.missing.train.depends_on": protocol.depends_on != "nothing",
        "data.cache.folder": cache.folder is not None,
    }
    names = [name for name, is_set in found.items() if is_set]
    if names:
        raise RobustTuneError(
            f"{' and '.join(names)} need{'s' * (len(names) == 1)} all training samples at once, and data.source.stream "
            "reads them while training: leave one of the two out"
        )
    if missing.train is not None and not stream.has_both:
        raise RobustTuneError(
            "data.source has one modality, so no sample has one to lose and one to keep: leave data.missing.train out"
        )
