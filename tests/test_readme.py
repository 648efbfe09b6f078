"""The pages: their commands run, their links lead somewhere, and the settings that they name exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import settings_page
import yaml
from lightning.pytorch import Trainer
from pages import COMMANDS, PAGES, ROOT, SHOWN, Block, Workplace, blocks, commands, name_of, pairs

from robusttune import __version__
from robusttune.cli import COMMANDS as OTHERS
from robusttune.cli import VERBS, main

RUN = [page for page in PAGES if any(block.language in COMMANDS and not block.reason for block in blocks(page))]
BLOCKS = [block for page in PAGES for block in blocks(page)]
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
# Flags of commands, and settings that Lightning's command line adds.
FLAGS = {
    *("config", "ckpt_path", "seed_everything", "print_config", "help"),
    *("format", "precision", "host", "port", "examples"),
    *("json", "near", "samples", "out", "published", "baseline", "trend", "metric", "steps"),
    *("input", "shard", "top_k", "columns", "part_rows"),
    *("runs", "data-root", "only", "set", "parallel", "slurm"),
    *("image_encoder", "text_encoder", "model", "optimizer", "trainer"),
}


@pytest.fixture
def workplace(tmp_path: Path, text_folder: Path, clip_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Workplace:
    folder = tmp_path / "work"
    folder.mkdir()
    return Workplace(folder, (text_folder, clip_folder), monkeypatch)


@pytest.mark.parametrize(
    "page", [pytest.param(p, marks=[] if p.parent == ROOT else pytest.mark.slow) for p in RUN], ids=name_of
)
def test_blocks_run(page: Path, workplace: Workplace) -> None:
    for block in blocks(page):
        if block.language in COMMANDS and not block.reason:
            workplace.run(block)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_fence_is_a_block(page: Path) -> None:
    fences = re.findall(r"^ *```", page.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(fences) == 2 * len(blocks(page))
    assert {block.language for block in blocks(page)} <= {*COMMANDS, *SHOWN}


@pytest.mark.parametrize("block", [b for b in BLOCKS if b.language in ("", "bash")], ids=lambda block: block.place)
def test_commands_that_are_not_run_exist_too(block: Block) -> None:
    for words in commands(block):
        words = [word for word in words if not re.fullmatch(r"[A-Z_]+=.*", word)]
        if words[:1] == ["make"]:
            assert set(words[1:]) <= TARGETS, words
        if words[:1] == ["robusttune"]:
            assert {words[1], " ".join(words[1:3])} & {*VERBS, *OTHERS}, words
        for name, value in pairs(words):
            if words[0] in ("robusttune", "sbatch"):
                known = name == "--array" or name == "--nodes" or known_setting(name.removeprefix("--"))
                assert known, f"{name} is no setting"
            if name == "--config":
                assert (ROOT / value).exists() or value.startswith("runs/"), value


@pytest.mark.parametrize("block", [b for b in BLOCKS if b.language == "yaml"], ids=lambda block: block.place)
def test_settings_in_yaml_exist(block: Block) -> None:
    def walk(value: object, path: str) -> None:
        if isinstance(value, dict) and path not in ("data.missing.train.codes",):
            for key, below in value.items():
                if key == "class_path":
                    continue
                walk(below, path if key == "init_args" else f"{path}.{key}".lstrip("."))
        else:
            assert known_setting(path), f"{path} is no setting"

    walk(yaml.safe_load(block.text), "")


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_settings_that_are_named_exist(page: Path) -> None:
    named = re.findall(
        r"`((?:data|model|image_encoder|text_encoder|trainer)\.[\w.]+)(?=[`:])", page.read_text(encoding="utf-8")
    )
    assert not [name for name in named if not known_setting(name)]


def known_setting(path: str) -> bool:
    """Return whether a setting, or a group of settings, has this path."""
    if path.startswith("trainer."):
        return path.removeprefix("trainer.") in TRAINER
    return path in FLAGS or path in SETTINGS or path.startswith(("model.optimizer.", "data.source."))


TRAINER = set(Trainer.__init__.__wrapped__.__code__.co_varnames)  # type: ignore[attr-defined]
SETTINGS = settings_page.all_paths()


def test_tables_of_settings_are_those_of_the_code() -> None:
    text = settings_page.PAGE.read_text(encoding="utf-8")
    assert {found[1] for found in settings_page.BLOCK.findall(text)} == {"run", "data", *settings_page.KINDS}
    assert settings_page.filled(text) == text, "run `make settings`"


def test_every_setting_has_a_meaning() -> None:
    groups = ("run", "data", *settings_page.KINDS)
    rows = [row for name in groups for _, table in settings_page.group_settings(name) for row in table]
    assert len(rows) > 100
    assert not [row.path for row in rows if not row.meaning]


def test_the_front_page_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 200


def test_every_configuration_is_named() -> None:
    pages = "".join((ROOT / name / "README.md").read_text(encoding="utf-8") for name in ("configs", "robusttune/data"))
    names = {path.stem for path in (ROOT / "configs").rglob("*.yaml")}
    assert not [name for name in names if f"`{name}`" not in pages]


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_files_that_are_named_exist(page: Path) -> None:
    named = re.findall(r"`((?:robusttune|tests|configs|\.github|\.ci)/[\w./]*)`", page.read_text(encoding="utf-8"))
    assert not [name for name in named if not (ROOT / name).exists() and name != "configs/NAME.yaml"]


def test_the_version_is_cited_and_in_the_changelog() -> None:
    assert f"version = {{{__version__}}}" in (ROOT / "README.md").read_text(encoding="utf-8")
    assert f"\n## {__version__} (" in (ROOT / ".github" / "CHANGELOG.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for target, _, section in re.findall(r"\]\((?!http)([^)#]*)(#([^)]+))?\)", text):
        other = page.parent / target if target else page
        assert other.exists(), target
        if section:
            assert section in anchors(other), f"{target}#{section}"


def anchors(page: Path) -> set[str]:
    """Return the names of the sections of a page, as GitHub makes them, and of its other anchors."""
    text = page.read_text(encoding="utf-8")
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    made = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
    return made | set(re.findall(r'<a name="([^"]+)"', text))


def test_a_new_data_set_refuses_bad_lines(workplace: Workplace, capsys: pytest.CaptureFixture[str]) -> None:
    """The source of the example counts bad lines and shows the first."""
    page = ROOT / "robusttune" / "data" / "README.md"
    example = next(block for block in blocks(page) if block.text.startswith("# my_dishes.py"))
    workplace.run(example)
    workplace.monkeypatch.syspath_prepend(str(workplace.folder))
    folder = workplace.folder / "my" / "dishes"
    with (folder / "test.txt").open("a") as file:
        file.write("../x.png\tsoup\tout of the folder\nno tabs\n")
    source = ["--data.source=my_dishes.Dishes", f"--data.source.root={folder}"]
    flags = [f"--config={ROOT}/configs/table.yaml", f"--text_encoder.name={workplace.encoders[0]}", *source]
    assert main(["data", "verify", *flags]) == 1
    assert "test.txt: of 6 lines, 2 have no dish, or a photo outside of the folder (the first: line 5" in (
        capsys.readouterr().out
    )
