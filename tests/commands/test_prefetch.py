"""prefetch, and what runs after it without a network, as a user runs them; the hub is a stand-in on this machine."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import datasets
import huggingface_hub
import pytest
import timm
from fakes import mmrl_flags, tiny_flags, write_table
from layouts import LAYOUTS
from pyarrow import parquet
from safetensors.torch import save_file
from stand_in_hub import StandInHub

from robusttune.cli import main
from robusttune.commands.hub_cache import Repository

pytestmark = pytest.mark.slow  # each case starts processes of its own

CONFIGS = Path(__file__).parents[2] / "configs"
VIT, BERT, DISHES = "timm/test_vit.r160_in1k", "someone/bert", "someone/dishes"
# Ends a process that looks for anybody on a network.
NO_NETWORK = """
import os, sys

def look(event, args):
    if event == "socket.getaddrinfo" or (event == "socket.connect" and isinstance(args[1], tuple)):
        sys.stderr.write(f"{event} {args}")
        os._exit(77)

sys.addaudithook(look)
"""


@pytest.fixture(scope="module")
def repositories(tmp_path_factory: pytest.TempPathFactory, text_folder: Path) -> dict[tuple[str, str], Path]:
    """Folders of repositories: weights for timm, a text encoder and a data set."""
    folder = tmp_path_factory.mktemp("repositories")
    (folder / "vit").mkdir()
    save_file(timm.create_model("test_vit").state_dict(), folder / "vit/model.safetensors")
    LAYOUTS["hugging_face"].write(folder)
    for split, table in datasets.load_from_disk(str(folder / "saved")).items():
        table.to_parquet(folder / f"dishes/data/{split}-00000-of-00001.parquet")
    return {("models", VIT): folder / "vit", ("models", BERT): text_folder, ("datasets", DISHES): folder / "dishes"}


@pytest.fixture
def hub(repositories: dict[tuple[str, str], Path]) -> Iterator[StandInHub]:
    with StandInHub() as served:
        for (kind, name), folder in repositories.items():
            served.add(kind, name, folder)
        yield served


@pytest.fixture(scope="module")
def fetched(
    repositories: dict[tuple[str, str], Path], tmp_path_factory: pytest.TempPathFactory
) -> subprocess.CompletedProcess[str]:
    """A prefetch into an empty folder, ``args[0]``."""
    home = tmp_path_factory.mktemp("homes") / "home"
    with StandInHub() as served:
        for (kind, name), folder in repositories.items():
            served.add(kind, name, folder)
        done = robusttune(served.environment(home), "prefetch", *flags())
    assert done.returncode == 0, done.stderr
    done.args = [home]
    return done


@pytest.fixture
def home(fetched: subprocess.CompletedProcess[str], tmp_path: Path) -> Path:
    """A copy of the folder that was filled."""
    return Path(shutil.copytree(fetched.args[0], tmp_path / "home", symlinks=True))


def flags() -> list[str]:
    """Of a configuration that needs the three repositories."""
    tiny = tiny_flags(Path("none"), Path(BERT))
    changes = ["--image_encoder.weights=pretrained", f"--data.source.path={DISHES}", "--data.source.text_column=title"]
    columns = ["--data.source.image_column=photo", "--data.source.label_column=dish"]
    return [f"--config={CONFIGS}/hugging_face.yaml", *tiny, *changes, *columns]


def data_flags() -> list[str]:
    """Of a run, whose model is of no use to prefetch."""
    return [flag for flag in flags() if not flag.startswith(("--model", "--trainer"))]


def robusttune(environment: dict[str, str], *args: str) -> subprocess.CompletedProcess[str]:
    own = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    run = [sys.executable, "-m", "robusttune", *args]
    return subprocess.run(run, env=own | environment, capture_output=True, text=True, check=False, timeout=300)


def exports(done: subprocess.CompletedProcess[str]) -> dict[str, str]:
    """The environment that was printed."""
    return dict(re.findall(r"^export (\w+)=(.*)$", done.stdout, re.MULTILINE))


def told(done: subprocess.CompletedProcess[str]) -> str:
    """The one sentence that a command failed with."""
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    (sentence,) = re.findall(r"^robusttune: error: (.*)$", done.stderr, re.MULTILINE)
    assert done.stderr.rstrip().endswith(sentence)
    return sentence


def files(home: Path) -> dict[str, bytes]:
    """What was fetched, by path; who waited for whom and when does not matter."""
    found = (path for place in ("hub", "datasets") for path in (home / place).rglob("*") if path.is_file())
    return {str(path.relative_to(home)): path.read_bytes() for path in found if path.suffix not in (".lock", ".json")}


@pytest.mark.slow
def test_what_was_fetched_is_all_that_a_fit_needs(fetched: subprocess.CompletedProcess[str], tmp_path: Path) -> None:
    """With the environment that was printed and no other, a fit does not so much as look for a network."""
    environment = exports(fetched)
    assert environment == {"HF_HUB_OFFLINE": "1", "HF_HOME": str(fetched.args[0])}
    for name in (VIT, BERT, DISHES):
        assert name[:12] in fetched.stdout
    (tmp_path / "sitecustomize.py").write_text(NO_NETWORK)
    run = [f"--run_root={tmp_path}/runs", "--name=a"]
    fit = robusttune(environment | {"PYTHONPATH": str(tmp_path)}, "fit", *flags(), *run)
    assert fit.returncode == 0, fit.stderr[-2000:]
    assert list((tmp_path / "runs/a/0/checkpoints").iterdir())


def test_local_files_are_listed_and_have_to_be_there(
    tmp_path: Path, text_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setenv("COLUMNS", "400")
    rows = [{"image": None, "text": f"dish {i}", "label": "ab"[i % 2]} for i in range(20)]
    table = write_table(tmp_path, "train", rows)
    config = [f"--config={CONFIGS}/table.yaml", *tiny_flags(Path("none"), text_folder)]
    given = [*config, f"--data.source.train={table}", "--data.source.test=null"]
    assert main(["prefetch", *given]) == 0
    out = capsys.readouterr().out
    assert re.search(rf"data\.source\.train .* {table}", out)
    assert re.search(rf"text_encoder\.name .* {text_folder}", out)
    assert "export HF_HUB_OFFLINE=1\n" in out
    assert "HF_HOME" not in out
    for lacks, message in {
        f"--data.source.train={tmp_path}/none.csv": "none.csv does not exist: set data.source.train to a table",
        f"--text_encoder.weights={tmp_path}/none": "none do not exist: give a file, a folder",
        f"--text_encoder.name={tmp_path}/none": "the encoder folder .*none does not exist",
    }.items():
        assert main(["prefetch", *given, lacks]) == 1
        assert re.search(f"^robusttune: error: .*{message}", capsys.readouterr().err)


def test_what_is_not_there_is_reported_with_the_remedy(
    tmp_path: Path, text_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """At once: nobody is waited for."""
    for module in (huggingface_hub.constants, datasets.config):
        monkeypatch.setattr(module, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets")
    monkeypatch.setattr("socket.getaddrinfo", lambda *_: pytest.fail("the network was looked for"))
    local = ["--image_encoder.weights=random", f"--text_encoder.name={text_folder}"]
    for changes, name in {(): VIT, (local[0],): BERT, tuple(local): DISHES}.items():
        assert main(["prefetch", *data_flags(), *changes]) == 1
        err = capsys.readouterr().err
        assert re.fullmatch(
            f"robusttune: error: {name} cannot be loaded .*run `robusttune prefetch --config .*` .* where there is a "
            "network, and set the environment that it prints.*\n",
            err,
        )


@pytest.mark.slow
def test_before_it_a_fit_says_so(tmp_path: Path, hub: StandInHub) -> None:
    environment = hub.environment(tmp_path / "home") | {"HF_HUB_OFFLINE": "1"}
    assert "run `robusttune prefetch --config ...` " in told(robusttune(environment, "fit", *flags()))
    assert not hub.requests


@pytest.mark.exhaustive
def test_models_of_timm_on_the_hub_are_fetched(tmp_path: Path, hub: StandInHub) -> None:
    """With their description, at the revision, and by the name that the hub has for them."""
    folder = tmp_path / "vit"
    folder.mkdir()
    save_file(timm.create_model("test_vit").state_dict(), folder / "model.safetensors")
    cfg = {"input_size": [3, 160, 160], "fixed_input_size": True, "classifier": "head"}
    (folder / "config.json").write_text(json.dumps({"architecture": "test_vit", "pretrained_cfg": cfg}))
    commit = hub.add("models", "someone/vit", folder)
    hub.add("models", "someone/vit", CONFIGS)
    given = [*flags(), "--image_encoder.name=hf-hub:someone/vit", f"--image_encoder.revision={commit}"]
    done = robusttune(hub.environment(tmp_path / "home"), "prefetch", *given)
    assert done.returncode == 0, done.stderr
    assert "someone/vit" in done.stdout
    assert commit[:7] in done.stdout
    run = [f"--run_root={tmp_path}/runs", "--name=a"]
    fit = robusttune(exports(done), "fit", *given, *run)
    assert fit.returncode == 0, fit.stderr[-2000:]


@pytest.mark.exhaustive
def test_nothing_is_fetched_twice(home: Path, hub: StandInHub) -> None:
    before = files(home)
    assert robusttune(hub.environment(home), "prefetch", *flags()).returncode == 0
    assert hub.requests
    assert not hub.sent
    assert files(home) == before


@pytest.mark.exhaustive
def test_both_towers_of_a_clip_are_fetched_once(
    tmp_path: Path, hub: StandInHub, clip_folder: Path, food101: Path
) -> None:
    hub.add("models", "someone/clip", clip_folder)
    given = [f"--config={CONFIGS}/food101_mmrl.yaml", *mmrl_flags(food101, Path("someone/clip"))]
    done = robusttune(hub.environment(tmp_path / "home"), "prefetch", *given)
    assert done.returncode == 0, done.stderr
    assert set(hub.sent.values()) == {1}
    (tmp_path / "sitecustomize.py").write_text(NO_NETWORK)
    environment = exports(done) | {"PYTHONPATH": str(tmp_path)}
    assert robusttune(environment, "fit", *given, f"--run_root={tmp_path}/runs").returncode == 0


DAMAGE = {
    "weights": ("hub/models--timm*/snapshots/*/model.safetensors", -5),
    "truncated weights": ("hub/models--*bert/snapshots/*/model.safetensors", None),
    "truncated settings": ("hub/models--*bert/snapshots/*/config.json", None),
    "words": ("hub/models--*bert/snapshots/*/tokenizer.json", -200),
    "rows": ("hub/datasets--*/snapshots/*/data/train*.parquet", 300),
    "truncated table": ("datasets/*/*/*/*/dishes-train.arrow", None),
}


def damage(home: Path, case: str) -> Path:
    """Damage a file; returns its path."""
    pattern, at = DAMAGE[case]
    (path,) = home.glob(pattern)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2] if at is None else whole[:at] + bytes([whole[at] ^ 1]) + whole[at:][1:])
    return path


@pytest.mark.parametrize("case", DAMAGE)
def test_damage_is_found(home: Path, monkeypatch: pytest.MonkeyPatch, case: str) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(home / "hub"))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", home / "datasets")
    kinds = [Repository(VIT, None, "model"), Repository(BERT, None, "model"), Repository(DISHES, None, "dataset")]
    assert not [path for repository in kinds for path in repository.damaged()]
    damaged = damage(home, case)
    (found,) = [path for repository in kinds for path in repository.damaged()]
    assert found in (damaged, damaged.parent)


@pytest.mark.exhaustive
def test_damage_is_refused_without_a_network_and_mended_with_one(home: Path, hub: StandInHub) -> None:
    before, environment = files(home), hub.environment(home)
    damaged = [damage(home, case) for case in DAMAGE]
    found = told(robusttune(environment | {"HF_HUB_OFFLINE": "1"}, "prefetch", *flags()))
    assert re.match(rf"{home}/.* is damaged: run `robusttune prefetch", found)
    assert not hub.requests
    done = robusttune(environment, "prefetch", *flags())
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("was damaged, and is downloaded again") == len(damaged)
    assert sum(hub.sent.values()) == len(damaged) - 1  # tables are made anew
    assert files(home) == before


@pytest.mark.exhaustive
def test_a_hub_that_breaks_off_is_asked_for_the_rest(
    fetched: subprocess.CompletedProcess[str], tmp_path: Path, hub: StandInHub
) -> None:
    hub.break_off.update({"model.safetensors": 3, "data/train-00000-of-00001.parquet": 1, "config.json": 1})
    done = robusttune(hub.environment(tmp_path / "home"), "prefetch", *flags())
    assert done.returncode == 0, done.stderr
    assert hub.break_off.total() == 0
    assert blobs(tmp_path / "home") == blobs(fetched.args[0])


@pytest.mark.exhaustive
@pytest.mark.parametrize("file", ["model.safetensors", "data/train-00000-of-00001.parquet"])
def test_what_is_altered_on_the_way_is_refused(tmp_path: Path, hub: StandInHub, file: str) -> None:
    hub.altered.add(file)
    done = robusttune(hub.environment(tmp_path / "home"), "prefetch", *flags())
    assert f"{file} is damaged again after a second download: check the network and disk" in told(done)


@pytest.mark.exhaustive
def test_many_at_once_fill_one_folder(
    fetched: subprocess.CompletedProcess[str], tmp_path: Path, hub: StandInHub
) -> None:
    environment = hub.environment(tmp_path / "home")
    with ThreadPoolExecutor(4) as pool:
        runs = list(pool.map(lambda _: robusttune(environment, "prefetch", *flags()), range(4)))
    assert [done.returncode for done in runs] == [0] * 4, [done.stderr[-500:] for done in runs]
    assert blobs(tmp_path / "home") == blobs(fetched.args[0])
    assert not list((tmp_path / "home").rglob("*.incomplete"))


@pytest.mark.slow
def test_one_that_was_killed_leaves_nothing_half(
    fetched: subprocess.CompletedProcess[str], tmp_path: Path, hub: StandInHub
) -> None:
    home = tmp_path / "home"
    hub.stall["model.safetensors"] = 1
    run = [sys.executable, "-m", "robusttune", "prefetch", *flags()]
    process = subprocess.Popen(run, env=os.environ | hub.environment(home))
    deadline = time.monotonic() + 120
    while not list(home.rglob("*.incomplete")) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert process.poll() is None
    process.kill()
    process.wait()
    assert robusttune(hub.environment(home), "prefetch", *flags()).returncode == 0
    whole = blobs(fetched.args[0])
    assert {name: content for name, content in blobs(home).items() if name in whole} == whole


@pytest.mark.exhaustive
def test_another_revision_of_the_data_is_not_taken_for_the_one_asked_for(
    tmp_path: Path, hub: StandInHub, home: Path
) -> None:
    first = hub.find("datasets", DISHES, "main")
    assert not isinstance(first, str)
    changed = tmp_path / "changed/data/train-00000-of-00001.parquet"
    changed.parent.mkdir(parents=True)
    parquet.write_table(parquet.read_table(io.BytesIO(first.files[f"data/{changed.name}"])).slice(0, 4), changed)
    second = hub.add("datasets", DISHES, tmp_path / "changed")
    of_first = f"--data.source.revision={first.commit}"
    offline = hub.environment(home) | {"HF_HUB_OFFLINE": "1"}
    whole = ["--data.source.split_names={val: null, test: null}", "--data.splits.val_fraction=0.5"]
    assert robusttune(hub.environment(home), "prefetch", *flags(), *whole).returncode == 0
    done = robusttune(offline, "prefetch", *flags(), *whole)
    assert done.returncode == 0, done.stderr
    assert second[:7] in done.stdout
    refused = told(robusttune(offline, "prefetch", *flags(), of_first))
    assert f"{DISHES} was last prepared at {second}, which is not {first.commit}" in refused


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("--text_encoder.name=someone/brt", "someone/brt cannot be loaded .*: check its name and revision, and"),
        ("--data.source.path=someone/dshes", "someone/dshes cannot be loaded .*: correct data.source.path"),
        *(
            pytest.param(f"--{setting}.revision=v9", message, marks=pytest.mark.exhaustive)
            for setting, message in {
                "text_encoder": f"{BERT} cannot be loaded .*v9.*: check its name and revision, and",
                "image_encoder": f"{VIT} cannot be loaded .*: check its name and revision, and",
                "data.source": f"{DISHES} cannot be loaded .*v9.*: correct data.source.path, name and revision",
            }.items()
        ),
    ],
)
def test_what_the_hub_has_not(tmp_path: Path, hub: StandInHub, change: str, message: str) -> None:
    assert re.match(message, told(robusttune(hub.environment(tmp_path), "prefetch", *flags(), change)))


@pytest.mark.slow
def test_no_network(tmp_path: Path) -> None:
    with StandInHub() as hub:
        environment = hub.environment(tmp_path)
    sentence = told(robusttune(environment, "prefetch", *flags()))
    assert re.match(r"http://127.* cannot be reached \(.*refused\): run this with a network, or", sentence)


def blobs(home: Path) -> dict[str, bytes]:
    """What was fetched, by checksum."""
    return {path.name: path.read_bytes() for path in (home / "hub").glob("*/blobs/*")}
