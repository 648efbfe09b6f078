"""What the README shows works as it stands there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from layouts import picture

from robusttune.cli import main

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_a_data_set_of_ones_own(
    tmp_path: Path, text_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The source that the README writes, with good lines and with bad ones."""
    code = re.search(r"```python\n# dishes\.py\n(.*?)```", README, re.DOTALL)
    assert code
    (tmp_path / "my_dishes.py").write_text(code[1])  # the tests have a dishes.py of their own
    monkeypatch.syspath_prepend(str(tmp_path))
    folder = tmp_path / "my"
    for place, (split, size) in enumerate({"train": 8, "test": 4}.items()):
        lines = [f"{split}{number}.png\t{['soup', 'pie'][number % 2]}\tdish {number}\n" for number in range(size)]
        for number in range(size):
            picture(folder / f"{split}{number}.png", 10 * place + number)
        (folder / f"{split}.txt").write_text("".join(lines))
    source = ["--data.source=my_dishes.Dishes", f"--data.source.root={folder}"]
    flags = [f"--config={ROOT}/configs/table.yaml", f"--text_encoder.name={text_folder}", *source]
    assert main(["data", "verify", *flags]) == 0
    assert "Nothing is wrong" in capsys.readouterr().out
    with (folder / "test.txt").open("a") as file:
        file.write("../x.png\tsoup\tout of the folder\nno tabs\n")
    assert main(["data", "verify", *flags]) == 1
    assert "test.txt: of 6 lines, 2 have no dish, or a photo outside of the folder (the first: line 5" in (
        capsys.readouterr().out
    )


def test_every_configuration_is_named() -> None:
    names = {path.stem for path in (ROOT / "configs").glob("*.yaml")}
    assert not [name for name in names if name not in README]


def test_every_file_that_is_linked_is_there() -> None:
    links = re.findall(r"\]\(((?!http|#)[^)]+)\)", README)
    assert len(links) > 5
    assert not [link for link in links if not (ROOT / link).exists()]
