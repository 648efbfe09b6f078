"""The feature cache as the data module uses it: modalities go in, modalities of features come out."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, NoReturn

import numpy as np
import torch

from robusttune.data.cache.build import Builder
from robusttune.data.cache.cached import CachedModality
from robusttune.data.cache.digests import file_digests
from robusttune.data.cache.fingerprint import describe, fingerprint
from robusttune.data.cache.index import ABSENT
from robusttune.data.cache.memory import keep_in_memory
from robusttune.data.cache.requests import Request, Requests
from robusttune.data.cache.store import Store
from robusttune.data.dataset import SampleDataset
from robusttune.data.images import UnreadableImageError
from robusttune.data.modalities import RawModality
from robusttune.encoders import Encoder, FrozenEncoder
from robusttune.paths import cache_home, user_path
from robusttune.ranks import any_over_ranks, rank

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class EncodingSettings:
    """The settings for running an encoder.

    Attributes:
        precision: Name of the precision in the Trainer, such as ``bf16-mixed``.
        context: Function that returns the context manager of the encoder's forward pass.
        workers: Number of loader processes on this rank.
        threads: Number of threads that read files on this rank.
        kept_on: Device that keeps the features of small tables in memory; None to read every batch from files.

    Example:
        >>> from contextlib import nullcontext
        >>> EncodingSettings("32-true", nullcontext, workers=2, threads=4).workers
        2
    """

    precision: str
    context: Callable[[], AbstractContextManager[Any]]
    workers: int
    threads: int
    kept_on: torch.device | None = None

    @classmethod
    def of(cls, trainer: Trainer | None, workers: int, threads: int, keep: bool) -> EncodingSettings:
        """Return settings with the precision and device of a Trainer; without one, float32 on the CPU.

        Args:
            trainer: Trainer of the run, or None.
            workers: Number of loader processes on this rank.
            threads: Number of threads that read files on this rank.
            keep: True to keep the features of small tables in memory.
        """
        if trainer is None:
            return cls("32-true", nullcontext, workers, threads, torch.device("cpu") if keep else None)
        plugin, device = trainer.precision_plugin, trainer.strategy.root_device if keep else None
        return cls(str(plugin.precision), plugin.forward_context, workers, threads, device)


class CachedEncoder(NamedTuple):
    """An encoder whose features are cached.

    Attributes:
        kind: Kind of its inputs: ``images`` or ``texts``.
        settings: Settings of the encoder.
        encoder: Encoder, on the device that it runs on.
    """

    kind: Literal["images", "texts"]
    settings: Encoder
    encoder: FrozenEncoder


class FeatureCache:
    """A folder with the features of frozen encoders.

    Args:
        place: Path of the folder, or ``auto`` for a folder in the user's cache.
        dtype: Number format of the features.

    Example:
        >>> FeatureCache("features", "bfloat16").dtype
        torch.bfloat16
    """

    def __init__(self, place: str, dtype: Literal["bfloat16", "float32"]) -> None:
        self.root = cache_home() / "features" if place == "auto" else user_path(place)
        self.dtype: torch.dtype = getattr(torch, dtype)

    def replace_inputs(
        self,
        data_sets: Sequence[SampleDataset],
        towers: Sequence[CachedEncoder],
        running: EncodingSettings,
        refuse: Callable[[list[str]], NoReturn] | None,
    ) -> None:
        """Replace the inputs of data sets by features, and compute those that the folder lacks. Every rank takes part.

        Args:
            data_sets: Data sets, which are changed in place.
            towers: Encoders of the two kinds of inputs.
            running: Settings for running the encoders.
            refuse: Function that raises an error for unreadable images, given a message for each that this rank found;
                None to treat them as missing. It is called on all ranks.

        Raises:
            RobustTuneError: The folder cannot be written, or the disk has too little space.
        """
        replaced: list[CachedModality] = []
        for tower in towers:
            inputs: list[dict[str, Any]] = [getattr(data, tower.kind) for data in data_sets]
            raw = [modality for by_variant in inputs for modality in by_variant.values()]
            cached, unreadable = self.fill(*tower, raw, running, refuse is not None)
            if refuse is not None and any_over_ranks(bool(unreadable)):
                refuse(unreadable)
            remaining = iter(cached)
            for by_variant in inputs:
                by_variant.update({variant: next(remaining) for variant in by_variant})
            replaced += cached
        if running.kept_on is not None:
            keep_in_memory(replaced, running.kept_on)

    def fill(
        self,
        what: Literal["images", "texts"],
        settings: Encoder,
        encoder: FrozenEncoder,
        modalities: Sequence[RawModality],
        running: EncodingSettings,
        stop_at_unreadable: bool,
    ) -> tuple[list[CachedModality], list[str]]:
        """Compute the features that the folder lacks; every rank must take part.

        Args:
            what: Kind of the inputs: ``images`` or ``texts``.
            settings: Settings of the encoder.
            encoder: Encoder, on the device that it runs on.
            modalities: Modalities of the splits and variants, each with a limited number of views.
            running: Settings for running the encoder.
            stop_at_unreadable: Whether an unreadable image ends the computation.

        Returns:
            Modalities with features in place of inputs, in the order of ``modalities``, and an error message for each
            unreadable image.

        Raises:
            RobustTuneError: The folder cannot be written, or the disk has too little space.
        """
        about = describe(settings, encoder, running.precision, self.dtype)
        name = fingerprint(about)
        store = Store(self.root / f"{what}-{name[:16]}", name, encoder.widths)
        requests = Requests.of(modalities, self._digests(modalities, running.threads))
        unreadable = [_reason(requests[number]) for number in np.flatnonzero(~requests.readable).tolist()]
        locations = np.full(len(requests), ABSENT)
        if not (unreadable and stop_at_unreadable):
            builder = Builder(
                what,
                store,
                about,
                encoder,
                self.dtype,
                running.context,
                running.workers if what == "images" else 0,  # starting a process costs more than tokenising
                running.threads,
                stop_at_unreadable,
            )
            locations, found = builder.fill(requests)
            unreadable += found
        by_modality = zip(modalities, requests.by_modality(locations, fill=ABSENT), strict=True)
        return [CachedModality(modality, store, own) for modality, own in by_modality], unreadable

    def _digests(self, modalities: Sequence[RawModality], threads: int) -> dict[str, bytes | None]:
        """Return the digests of the image files of modalities by path, and log a warning about changed files."""
        files = sorted({path for modality in modalities for path in modality.files()})
        digests = file_digests(files, self.root / "files.arrow", threads)
        if digests.changed and rank() == 0:
            log.warning(
                "image files have changed: %d, the first is %s: their features are computed again",
                len(digests.changed),
                digests.changed[0],
            )
        return digests.by_path


def _reason(item: Request) -> str:
    """Return the error message of an unreadable image."""
    try:
        item.modality.read(item.row, item.view)
    except UnreadableImageError as error:
        return str(error)
    return f"the image of row {item.row} could not be read when it was looked for"
