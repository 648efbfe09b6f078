"""The loaders of the splits: batch sizes, loader processes and shared memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from lightning.pytorch.utilities import rank_zero_info
from torch.utils.data import DataLoader

from robusttune.counting import counted
from robusttune.data.balance import Quotas, Sampling, quotas
from robusttune.data.cache import CachedModality, MemoryStore
from robusttune.data.dataset import Collate, SampleDataset
from robusttune.data.sampler import ResumableLoader, ResumableSampler
from robusttune.data.settings import LoaderSettings, require_minimum
from robusttune.data.workers import Shared, WatchedLoader, Workers, limited_by_cores, limited_by_memory
from robusttune.interruption import ignore_signals_in_worker
from robusttune.ranks import cores_of_each
from robusttune.types import Facts, Sample, Split

if TYPE_CHECKING:
    from lightning.pytorch import Trainer


class Processes(NamedTuple):
    """The processes of a run.

    Attributes:
        rank: Number of this process, from 0.
        world_size: Number of processes on all machines.
        on_machine: Number of processes on this machine.
        on_cpu: Whether the model is on the CPU.
    """

    rank: int = 0
    world_size: int = 1
    on_machine: int = 1
    on_cpu: bool = True

    @classmethod
    def of(cls, trainer: Trainer | None) -> Processes:
        """Return the processes of a Trainer; without a Trainer, this process alone."""
        if trainer is None:
            return cls()
        on_cpu = trainer.strategy.root_device.type == "cpu"
        return cls(trainer.global_rank, trainer.world_size, trainer.num_devices, on_cpu)

    @property
    def cores(self) -> int:
        """Number of cores for each process of this machine."""
        return cores_of_each(self.on_machine)


class Loaders:
    """The builder of the loaders.

    Args:
        settings: Number of loader processes and of batches that they load ahead.
        batch_size: Number of samples per batch and process.
        seed: Seed of the order of training samples.
        balance: Kind of sampling of training samples; None to draw each sample once per epoch.

    Raises:
        RobustTuneError: The batch size is below 1, or the seed below 0.
    """

    def __init__(self, settings: LoaderSettings, batch_size: int, seed: int, balance: Sampling | None = None) -> None:
        require_minimum("data.batch_size", batch_size, 1)
        require_minimum("data.seed", seed, 0)
        self.settings = settings
        self.batch_size = batch_size
        self.seed = seed
        self.balance = balance
        self._core_limit_logged = False

    def build(
        self, data: SampleDataset, split: Split, facts: Facts, processes: Processes, shuffle: bool
    ) -> DataLoader[Sample]:
        """Return the loader of a split.

        Args:
            data: Samples of the split.
            split: Split of the samples.
            facts: Class names and kind of task.
            processes: Processes that share the samples.
            shuffle: True for a resumable loader that shuffles, and balances the classes if that is set; False for the
                order of the rows.
        """
        sampler = ResumableSampler(
            len(data),
            shuffle=shuffle,
            seed=self.seed,
            rank=processes.rank,
            world_size=processes.world_size,
            quotas=self._quotas(data) if shuffle else None,
        )
        inputs = [*data.images.values(), *data.texts.values()]
        stores = [modality.store for modality in inputs if isinstance(modality, CachedModality)]
        cached = len(stores) == len(inputs)
        in_memory = cached and all(isinstance(store, MemoryStore) for store in stores)
        in_process = (in_memory or (cached and processes.on_cpu)) and self.settings.workers is None
        size = self._samples_per_batch(data, split)
        number = 0 if in_process else min(self.workers(processes.cores), -(-len(sampler) // size))
        workers = self._limited(data, split, facts, Workers(number, self.settings.prefetch), size, processes)
        kind = ResumableLoader if shuffle else WatchedLoader
        return kind(  # All arguments are keywords, since Lightning may create the loader again.
            dataset=data,
            sampler=sampler,
            batch_size=size,
            collate_fn=Shared(Collate(data.images, data.texts, facts, split)),
            num_workers=workers.number,
            persistent_workers=workers.number > 0,
            worker_init_fn=ignore_signals_in_worker,
            prefetch_factor=workers.prefetch if workers.number > 0 else None,
            pin_memory=torch.cuda.is_available() and not in_memory,  # Features in memory are on the device already.
        )

    def workers(self, cores: int) -> int:
        """Return the number of loader processes for a process that has ``cores`` cores."""
        if self.settings.workers is None:
            return min(8, cores)
        number = limited_by_cores(self.settings.workers, cores, say=not self._core_limit_logged)
        self._core_limit_logged = True
        return number

    def _quotas(self, data: SampleDataset) -> Quotas | None:
        """Return how often each training sample is drawn, or None without balanced sampling."""
        if self.balance is None or data.labels is None:
            return None
        return quotas(data.labels, self.balance)

    def _limited(
        self, data: SampleDataset, split: Split, facts: Facts, workers: Workers, size: int, processes: Processes
    ) -> Workers:
        """Return workers with batches of ``size`` samples that fit into shared memory."""
        sample_bytes = sum(inputs.most_bytes for inputs in (*data.images.values(), *data.texts.values()))
        sample_bytes += 8 * (len(facts.class_names) if facts.multilabel else 1)
        at_once = 1 if split in ("test", "predict") else 2  # training and validation
        size = min(size, len(data))
        return limited_by_memory(
            workers,
            sample_bytes * size,
            at_once * processes.on_machine,
            self.settings.workers is not None,
            counted(size, f"{split} sample"),
        )

    def _samples_per_batch(self, data: SampleDataset, split: Split) -> int:
        """Divide the batch size by the number of noise variants, at least 1, so that memory stays constant."""
        variants = max(len(data.images), len(data.texts))
        size = max(1, self.batch_size // variants)
        if variants > 1:
            rank_zero_info(f"{split}: batches of {counted(size, 'sample')}, since each has {variants} variants")
        return size
