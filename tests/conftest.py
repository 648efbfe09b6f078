"""Shared fixtures: generated data and tiny encoders, which are created once per session."""

from __future__ import annotations

import gc
import os

# Parallel test processes already use all cores. Torch reads the variable when it is imported, so it is set before.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ["OMP_NUM_THREADS"] = "1"

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

gc.disable()  # until the test files are imported, which takes a quarter less time (see `robusttune.garbage`)

# Only fixtures import `fakes`, which loads torch: the process that starts the parallel ones does not need it.

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # shells start background jobs with SIGINT ignored
    signal.signal(signal.SIGINT, signal.default_int_handler)

# A slow machine must not fail a test, and CI must try the same examples every time.
settings.register_profile("robusttune", deadline=None, derandomize="CI" in os.environ, database=None)
settings.load_profile("robusttune")


def pytest_collection_finish() -> None:
    """Exempt everything that the test files import from garbage collection, and start the collector."""
    gc.freeze()
    gc.enable()


def pytest_unconfigure() -> None:
    """Let the interpreter collect everything at its end."""
    gc.unfreeze()


@pytest.fixture(autouse=True)
def cache_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Move the default cache folder to the test's temporary folder, so that the user's cache is never used."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache_home"))


@pytest.fixture(scope="session")
def text_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a tiny random BERT with its tokenizer."""
    from dishes import write_text_encoder

    folder = tmp_path_factory.mktemp("encoders") / "bert"
    write_text_encoder(folder, width=32, layers=2)
    return folder


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a tiny random CLIP with its image processor and tokenizer."""
    from fakes import write_clip

    folder = tmp_path_factory.mktemp("encoders") / "clip"
    write_clip(folder)
    return folder


@pytest.fixture(scope="session")
def siglip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a tiny random SigLIP with its image processor and tokenizer."""
    from fakes import write_siglip

    folder = tmp_path_factory.mktemp("encoders") / "siglip"
    write_siglip(folder)
    return folder


@pytest.fixture(scope="session")
def food101(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a generated data set in the layout of UPMC Food-101: 12 classes, 96 training and 36 test samples."""
    from dishes import write_food101

    root = tmp_path_factory.mktemp("data") / "food101"
    write_food101(root, {"train": 8, "test": 3}, seed=0, size=48)
    return root


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Use one thread, as forked processes do: sums over several threads differ in their last digit."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
