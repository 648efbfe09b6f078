"""The samples that a rank counts in an evaluation, each on one rank only."""

from __future__ import annotations

from itertools import chain
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from robusttune.corruption.conditions import Conditions
from robusttune.evaluation.bootstrap import id_hashes
from robusttune.evaluation.score_store import ScoreStore
from robusttune.ranks import gather, rank


class OwnSamples(NamedTuple):
    """The N samples that this rank counts.

    Attributes:
        sample_id: Ids of the samples.
        hashes: Hashes of the ids, shape (N,), see `id_hashes`.
        rows: Row of each sample in the store, in ascending order, shape (N,), int64.
        label: Class indices, shape (N,), int64, or class flags, shape (N, C), bool, in multi-label data.
        present: Flags that the sample has an image and that it has a text, shape (N, 2), bool.
        views: Number of the view that each condition shows of each sample, shape (conditions, N), int16.
        of_all: Hashes of the ids of the samples of all ranks, each once, in ascending order.
    """

    sample_id: list[str]
    hashes: NDArray[np.uint64]
    rows: Tensor
    label: Tensor
    present: Tensor
    views: Tensor
    of_all: NDArray[np.uint64]


def own_samples(store: ScoreStore, conditions: Conditions) -> OwnSamples:
    """Return the samples of a store that this rank counts. Every rank must call this.

    A sample may have been added several times, and on several ranks, because padding rows repeat some. The last row of
    the last rank counts.

    Args:
        store: Store of this rank's samples.
        conditions: Conditions of the evaluation.
    """
    hashes = id_hashes(store.sample_id)
    _, from_end = np.unique(hashes[::-1], return_index=True)
    rows = np.sort(len(hashes) - 1 - from_end)
    of_ranks = gather(hashes[rows])
    rows = rows[~np.isin(hashes[rows], np.concatenate([hashes[:0], *of_ranks[rank() + 1 :]]))]
    ids = [store.sample_id[row] for row in rows]
    chosen = torch.from_numpy(rows)
    of_all = np.unique(np.concatenate(of_ranks))
    views = torch.from_numpy(_views(ids, conditions))
    return OwnSamples(ids, hashes[rows], chosen, store.label[chosen], store.present[chosen], views, of_all)


def _views(ids: list[str], conditions: Conditions) -> NDArray[np.int16]:
    """Return the view that each condition shows of each sample of this rank, see `OwnSamples.views`."""
    if all(condition.missing is None for condition in conditions.all):  # Then no sample depends on the others.
        return conditions.view_indices(ids).astype(np.int16)
    all_ids = sorted(chain.from_iterable(gather(ids)))
    place = {sample_id: number for number, sample_id in enumerate(all_ids)}
    return conditions.view_indices(all_ids)[:, [place[sample_id] for sample_id in ids]].astype(np.int16)
