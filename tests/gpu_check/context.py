"""What a part is given: the device, a folder, and functions that record its checks and measurements."""

from __future__ import annotations

import gc
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import torch

from gpu_check.results import Record, write_json


class Context:
    """The surroundings of a part.

    Args:
        device: Kind of the device, ``cuda`` or ``cpu``.
        small: True for tiny models and few repetitions.
        folder: Empty folder for files of the part.
        results: File that all records are written to after each of them.
    """

    def __init__(self, device: str, small: bool, folder: Path, results: Path) -> None:
        self.device = device
        self.small = small
        self.folder = folder
        self.results = results
        self.records: list[Record] = []
        write_json(results, [])

    @property
    def on_gpu(self) -> bool:
        """Return whether the device is a GPU."""
        return self.device == "cuda"

    @property
    def accelerator(self) -> str:
        """Return the name that Lightning's Trainer has for the device."""
        return "gpu" if self.on_gpu else "cpu"

    def add(self, name: str, passed: bool | None = None, note: str = "", **values: Any) -> None:
        """Add a record. ``values`` are numbers, texts or lists of them."""
        self.records.append(Record(name, passed, values, note))
        write_json(self.results, [asdict(record) for record in self.records])
        print(self.records[-1], flush=True)  # for the log of a part that ends early

    def needs_gpu(self, name: str) -> bool:
        """Return False on a GPU. Elsewhere, record that the check needs one and return True."""
        if self.on_gpu:
            return False
        self.add(name, note="needs a GPU")
        return True

    @contextmanager
    def case(self, name: str) -> Iterator[None]:
        """Record an error inside the context as a failed check, so that the checks after it still run."""
        try:
            yield
        except ModuleNotFoundError as error:
            if error.name is None or error.name.startswith("robusttune"):
                raise
            self.add(name, note=f"the package {error.name} is not installed")
        except Exception as error:
            self.add(name, False, f"{type(error).__name__}: {error}\n{traceback.format_exc()[-3000:]}")
        finally:
            self.free()

    def free(self) -> None:
        """Free the memory of everything that nothing refers to."""
        gc.collect()
        if self.on_gpu:
            torch.cuda.empty_cache()

    def wait(self) -> None:
        """Wait until the device has done everything."""
        if self.on_gpu:
            torch.cuda.synchronize()

    def seconds(self, call: Callable[[], Any]) -> float:
        """Return the duration of one call, until the device has finished."""
        self.wait()
        start = perf_counter()
        call()
        self.wait()
        return perf_counter() - start

    def medians(self, rounds: int, **calls: Callable[[], Any]) -> dict[str, float]:
        """Return the median duration of each call, in seconds. The calls take turns; a first round is not counted."""
        times: dict[str, list[float]] = {name: [] for name in calls}
        for turn in range(rounds + 1):
            for name, call in calls.items():
                took = self.seconds(call)
                if turn:
                    times[name].append(took)
        return {name: median(values) for name, values in times.items()}

    def peak(self, call: Callable[[], Any]) -> float | None:
        """Return the bytes that a call takes at most beyond what is allocated before; None if this is no GPU."""
        if not self.on_gpu:
            call()
            return None
        self.wait()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        self.wait()
        return float(torch.cuda.max_memory_allocated() - before)
