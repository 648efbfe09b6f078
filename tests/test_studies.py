"""Studies go on where they were cut off, and the emoji tables are a function of the packages alone."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pytest
from experiments import records
from experiments.emoji_data import split_of, write_emoji
from layouts import picture


class Job(NamedTuple):
    model: str
    seed: int


JOBS = [Job(model, seed) for seed in (0, 1) for model in ("a", "b")]


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "ProcessPoolExecutor", lambda *_: ThreadPoolExecutor(1))


def test_a_study_goes_on_where_it_was_cut_off(tmp_path: Path) -> None:
    run = []

    def measure(job: Job) -> dict[str, float]:
        run.append(job)
        if len(run) == 3:
            raise RuntimeError("the machine fails")
        return {"accuracy": job.seed / 10}

    with pytest.raises(RuntimeError, match="the machine fails"):
        records.run_jobs(tmp_path, JOBS, measure, 1)
    assert len(records.Results.read(tmp_path / "progress.json").jobs) in (2, 3)  # the fourth may have begun
    results = records.run_jobs(tmp_path, JOBS, measure, 1)
    assert [run.count(job) for job in JOBS] == [1, 1, 2, 1]
    assert [(job["model"], job["seed"]) for job in results.jobs] == JOBS
    assert results.metrics(model="b") == [{"accuracy": 0.0}, {"accuracy": 0.1}]
    part = records.run_jobs(tmp_path, JOBS[3:], measure, 1)
    assert [job["model"] for job in part.jobs] == ["b"]
    assert len(records.Results.read(tmp_path / "progress.json").jobs) == 4


def test_results_of_other_versions_are_refused(tmp_path: Path) -> None:
    records.run_jobs(tmp_path, JOBS[:1], lambda job: {}, 1, {"data": "1"})
    with pytest.raises(SystemExit, match="delete it"):
        records.run_jobs(tmp_path, JOBS, lambda job: {}, 1, {"data": "2"})


def write_packages(folder: Path) -> dict[str, Path]:
    """Write the parts of the three packages that are read: a flag, and two emoji of which Fluent has one."""
    names, google, fluent = (folder / name for name in ("names", "google", "fluent"))
    groups = {"groups": {"0": "smileys-emotion", "9": "flags"}, "subgroups": {"0": "face-smiling", "9": "flag"}}
    entries = [
        {"hexcode": "2639-FE0F", "label": "frowning face", "tags": ["sad"], "order": 2, "group": 0, "subgroup": 0},
        {"hexcode": "1F600", "label": "grinning face", "order": 1, "group": 0, "subgroup": 0},
        {"hexcode": "1F1E9-1F1EA", "label": "flag: Germany", "order": 3, "group": 9, "subgroup": 9},
        {"hexcode": "1F1E9", "label": "regional indicator D"},
    ]
    for path, content in ((names / "meta/groups.json", groups), (names / "en/data.json", entries)):
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(content))
    for number, code in enumerate(("1f600", "2639-fe0f", "1f1e9-1f1ea")):
        picture(google / f"img/google/64/{code}.png", number)
    picture(fluent / "assets/2639.webp", 3)
    return {"emojibase-data": names, "emoji-datasource-google": google, "@lobehub/fluent-emoji-3d": fluent}


def test_emoji_tables(tmp_path: Path) -> None:
    counts = write_emoji(write_packages(tmp_path), tmp_path / "emoji")
    rows = {}
    for path in (tmp_path / "emoji").glob("*.jsonl"):
        for row in map(json.loads, path.read_text().splitlines()):
            assert path.name == f"{row['id'].split('/')[0]}_{split_of(row['id'].split('/')[1])}.jsonl"
            assert (tmp_path / "emoji" / row["image"]).exists()
            rows[row["id"]] = row
    assert {style: sum(by_split.values()) for style, by_split in counts.items()} == {"noto": 2, "fluent3d": 1}
    assert sorted(rows) == ["fluent3d/2639", "noto/1F600", "noto/2639"]
    assert rows["noto/2639"] | {"id": "", "image": ""} == rows["fluent3d/2639"] | {"id": "", "image": ""}
    assert rows["noto/2639"]["text"] == "frowning face"
    assert rows["noto/2639"]["label"] == "smileys-emotion"


def test_splits_have_their_shares() -> None:
    splits = [split_of(f"{number:X}") for number in range(5000)]
    shares = [splits.count(split) / 5000 for split in ("train", "val", "test")]
    assert shares == pytest.approx([0.6, 0.1, 0.3], abs=0.02)
