"""A stand-in for ``robusttune fit`` and ``test`` that starts at once.

Everything that happens is a line of the file ``events`` in the folder of the protocol.
"""

from __future__ import annotations

import fcntl
import os
import signal
import sys
import time
from pathlib import Path


def stand_in(verb: str, flags: dict[str, str]) -> None:
    """Do what the command does to a run's folder."""
    home = Path(flags["run_root"]) / flags["name"] if verb == "fit" else Path(flags["ckpt_path"]).parents[2]
    name = home.name if verb == "fit" else f"{home.name}/{flags['report']}"
    signal.signal(signal.SIGTERM, lambda *_: _stop(home, f"stopped {verb} {name}"))
    _tell(home, f"begin {verb} {name} {os.getpid()}")
    with (home / "alone").open("a") as alone:
        try:
            fcntl.lockf(alone, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            _tell(home, f"together {verb} {name}")
        time.sleep(float(flags.get("seconds", "0.1")) if verb == "fit" else 0.02)
        if "fail" in flags and flags["fail"] == flags["seed"]:
            print("robusttune: error: the disk is full: make room")
            sys.exit(1)
        if verb == "fit":
            _fit(home)
        else:
            _test(Path(flags["ckpt_path"]).parents[1] / "report", flags["report"])
        _tell(home, f"end {verb} {name}")


def _fit(home: Path) -> None:
    folder = home / "0"
    if (folder / "finished.json").exists():
        _tell(home, f"repeated fit {home.name}")
    folder.mkdir(exist_ok=True)
    (folder / "config.yaml").write_text("{data: {}, model: {}}\n")
    _replace(folder / "finished.json", "{}")


def _test(folder: Path, report: str) -> None:
    folder.mkdir(exist_ok=True)
    _replace(folder / f"{report}.parquet", "")
    _replace(folder / f"{report}.json", "{}")


def _replace(path: Path, text: str) -> None:
    partial = path.with_suffix(f".{os.getpid()}")
    partial.write_text(text)
    partial.replace(path)


def _stop(home: Path, line: str) -> None:
    _tell(home, line)
    sys.exit(1)


def _tell(home: Path, line: str) -> None:
    with (home.parent / "events").open("a") as file:
        file.write(f"{line}\n")


if __name__ == "__main__":
    pairs = (flag.removeprefix("--").partition("=") for flag in sys.argv[2:])
    stand_in(sys.argv[1], {name: value for name, _, value in pairs})
