"""Configurations are found by name: local files first, then those of the package."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from robusttune.cli import main
from robusttune.commands.configs import locate_configs
from robusttune.packaged_configs import find_config, packaged_files

CONFIGS = Path(__file__).parents[1] / "configs"
BY_NAME = ["--config", "configs/demo.yaml", "--config=conditions/full"]
USED = [
    f"--config configs/demo.yaml: using {CONFIGS}/demo.yaml",
    f"--config conditions/full: using {CONFIGS}/conditions/full.yaml",
]
PUBLISHED = ["import", "--published=none.pt", "--out=none.ckpt"]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, an empty one."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def config_lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return what the log says of configurations."""
    return [message for message in caplog.messages if message.startswith("--config")]


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Return the settings that a command would use."""
    with pytest.raises(SystemExit) as stopped:
        main([*arguments, "--print_config"])
    assert stopped.value.code in (0, None)
    return capsys.readouterr().out


def test_settings_do_not_depend_on_how_a_configuration_was_found(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    by_path = printed(capsys, "fit", f"--config={CONFIGS}/demo.yaml", f"--config={CONFIGS}/conditions/full.yaml")
    assert not config_lines(caplog)
    assert printed(capsys, "fit", *BY_NAME) == by_path
    assert config_lines(caplog) == USED


@pytest.mark.parametrize(
    "command", [["test"], ["plan"], ["prefetch"], PUBLISHED, ["data", "verify"], ["data", "show"]], ids=" ".join
)
def test_every_command_finds_configurations_and_overlays_by_name(
    command: list[str],
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("robusttune.commands.prefetch.offline", lambda: True)
    settings = printed(capsys, *command, *BY_NAME)
    assert "colour" in settings, "of the demo"
    assert "noisy_text_ocr_5" in settings, "of the overlay"
    assert config_lines(caplog) == USED


@pytest.mark.parametrize(
    "arguments",
    [["--config", "demo"], ["--config=demo"], ["-c", "demo"], ["-cdemo"], ["-c=demo"]],
    ids="".join,
)
def test_every_form_of_the_option_is_understood(arguments: list[str]) -> None:
    *option, last = locate_configs([*arguments, "--name", "demo"])[: len(arguments)]
    assert "".join([*option, last]).endswith(f"{CONFIGS}/demo.yaml")
    assert locate_configs(["--name", "demo", "--config"]) == ["--name", "demo", "--config"]


@pytest.mark.parametrize("option", ["--conf=demo", "--co=demo", "--confi=demo", "--con demo"])
def test_an_abbreviated_option_finds_packaged_files(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["fit", *option.split(), "--print_config"])
    assert "colour" in capsys.readouterr().out, "of the demo"


@pytest.mark.parametrize("given", ["demo", "demo.yaml", "configs/demo", "configs/demo.yaml", "./configs/demo.yaml"])
def test_a_packaged_file_has_several_names(given: str) -> None:
    assert find_config(given) == CONFIGS / "demo.yaml"
    assert find_config(given.replace("/", "\\")) == CONFIGS / "demo.yaml", "as Windows writes it"


@pytest.mark.parametrize(
    ("local", "given"),
    [
        ("demo", "demo"),
        ("demo.yaml", "demo"),
        ("demo.yaml", "demo.yaml"),
        ("configs/demo.yaml", "demo"),
        ("configs/demo.yaml", "configs/demo.yaml"),
        ("configs/demo.yaml", "configs/demo"),
        ("configs/mine/best.yaml", "mine/best"),
        ("demo.yaml", "./demo.yaml"),
    ],
)
def test_a_local_file_wins(local: str, given: str, elsewhere: Path) -> None:
    (elsewhere / local).parent.mkdir(parents=True, exist_ok=True)
    (elsewhere / local).write_text("name: mine\n")
    assert find_config(given) == Path(local)


def test_what_is_no_file_of_that_name_is_passed_over_or_refused(
    elsewhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A folder is often the data; a pipe or a broken link was meant as the configuration."""
    (elsewhere / "food101").mkdir()
    assert find_config("food101") == CONFIGS / "food101.yaml"
    os.mkfifo(elsewhere / "demo")
    assert main(["fit", "--config=demo"]) == 1
    assert "the configuration demo is a pipe: give the path of a YAML file" in capsys.readouterr().err
    (elsewhere / "table").symlink_to("gone.yaml")
    assert main(["fit", "--config=table"]) == 1
    assert "the configuration table does not exist" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ("", r"--config is empty: give the path of a YAML file, or a name that robusttune configs lists$"),
        (" ", r"--config is empty: "),
        ("fod101", r"the configuration fod101 does not exist: .* lists \(did you mean food101\?\)$"),
        ("Demo", r"Demo does not exist: .*\(did you mean demo\?\)$"),
        ("configs/transfer/few_shot.yaml", r"does not exist: .*\(did you mean clip/few_shot, protocols/few_shot\?\)$"),
        ("conditons/full.yaml", r"does not exist: .*\(did you mean conditions/full\?\)$"),
        (
            "trainer",
            r"does not exist: .*\(did you mean trainer/gpus, trainer/slurm, trainer/smoke, trainer/stream\?\)$",
        ),
        (
            "folder",
            r"the configuration folder is a folder: give the path of a YAML file, or a name that \S+ \S+ lists$",
        ),
        (r"C:\configs\demo.yaml", r"C:\\configs\\demo.yaml does not exist: .*\(did you mean demo\?\)$"),
        ("../configs/demo.yaml", r"does not exist: .*\(did you mean demo\?\)$"),
        ("configs/../../configs/demo.yaml", r"does not exist: .*\(did you mean demo\?\)$"),
        ("/demo.yaml", r"/demo.yaml does not exist: .*\(did you mean demo\?\)$"),
        ("slurm/fit.sbatch", r"slurm/fit.sbatch does not exist: give the path of a YAML file, or a name that [\w ]+$"),
        ("nothing like it", r"nothing like it does not exist: .* lists$"),
        ("a\nb", r"a\\nb does not exist"),
        ("a\0b", r"does not exist"),
        ("x" * 5000, r"x{300} cannot be read \(File name too long\)"),
    ],
)
def test_a_name_that_exists_nowhere_is_one_sentence(
    given: str, sentence: str, elsewhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (elsewhere / "folder").mkdir()
    assert main(["data", "verify", f"--config={given}"]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert re.search(sentence, error.rstrip("\n"))


def test_a_protocol_is_no_configuration(elsewhere: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (elsewhere / "matrix.yaml").write_text("axes: {seed: {1: {}}}\n")
    assert main(["fit", "--config=demo", "--config=matrix"]) == 1
    assert "matrix.yaml is a protocol, a matrix of runs, and no configuration of one run: " in capsys.readouterr().err
    (elsewhere / "configs/protocols").mkdir(parents=True)
    (elsewhere / "configs/protocols/few_shot.yaml").write_text("runs: []\n")
    for given in ("protocols/few_shot", "configs/protocols/few_shot.yaml"):
        assert main(["fit", f"--config={given}"]) == 1
        assert "run it by robusttune protocol run configs/protocols/few_shot.yaml" in capsys.readouterr().err


def test_they_are_listed_by_folder_with_a_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["configs"]) == 0
    out = capsys.readouterr().out
    blocks = dict(block.split("\n", 1) for block in out.split("\n\n")[:-1])
    folders = sorted(f"{path.name}/" for path in CONFIGS.iterdir() if path.is_dir())
    assert list(blocks) == ["complete configurations", *folders]
    names = [line.split()[0] for block in blocks.values() for line in block.splitlines()]
    assert names == list(packaged_files())
    assert set(packaged_files().values()) == {*CONFIGS.rglob("*.yaml"), *CONFIGS.rglob("*.sbatch")}
    assert re.search(r"^  trainer/smoke +Overlay: a smoke test, 64 samples and one epoch\.$", out, re.MULTILINE)
    assert re.search(r"^  slurm/fit\.sbatch +Train on the GPUs of one node", out, re.MULTILINE)


def test_one_is_copied_to_edit_and_never_over_another(elsewhere: Path, capsys: pytest.CaptureFixture[str]) -> None:
    original = (CONFIGS / "food101.yaml").read_text()
    assert main(["configs", "copy", "configs/food101.yaml"]) == 0
    assert "copied to food101.yaml" in capsys.readouterr().out
    assert (elsewhere / "food101.yaml").read_text() == original
    (elsewhere / "food101.yaml").write_text("name: edited\n")
    assert find_config("food101") == Path("food101.yaml")
    assert main(["configs", "copy", "food101"]) == 1
    assert "food101.yaml exists: give another path" in capsys.readouterr().err
    assert (elsewhere / "food101.yaml").read_text() == "name: edited\n"
    assert main(["configs", "copy", "food101", "new/mine.yaml"]) == 0
    assert main(["configs", "copy", "slurm/fit.sbatch", "new"]) == 0
    assert main(["configs", "copy", "conditions/full", "other/"]) == 0
    assert (elsewhere / "new/mine.yaml").read_text() == original
    assert (elsewhere / "new/fit.sbatch").is_file()
    assert (elsewhere / "other/full.yaml").is_file()
    assert main(["configs", "copy", "fod101"]) == 1
    assert "fod101 does not come with robusttune: " in (error := capsys.readouterr().err)
    assert "(did you mean food101?)" in error
    for wrong in (["copy"], ["list"], ["copy", "food101", "a.yaml", "b.yaml"]):
        assert main(["configs", *wrong]) == 1
        assert capsys.readouterr().err.count("\n") == 1
