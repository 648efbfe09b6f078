"""No Python that comes with a model is run, and nobody is asked whether it may be."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from fakes import word_tokenizer, write_model
from transformers import ViTImageProcessor

from robusttune.encoders import TimmEncoder, TransformersImageEncoder, TransformersTextEncoder
from robusttune.errors import RobustTuneError

CODE = """
from pathlib import Path
Path({marker!r}).touch()
from transformers import BertConfig, BertModel, BertTokenizer, ViTImageProcessor
class Config(BertConfig):
    model_type = "newt"
class Model(BertModel):
    config_class = Config
class Tokenizer(BertTokenizer):
    pass
class Processor(ViTImageProcessor):
    pass
"""
CONFIG, TOKENIZER, PROCESSOR = "config.json", "tokenizer_config.json", "preprocessor_config.json"
PLACES: list[tuple[str, str, dict[str, Any]]] = [
    ("text", CONFIG, {"model_type": "newt", "auto_map": {"AutoConfig": "code.Config"}}),
    ("text", CONFIG, {"model_type": "newt", "auto_map": {"AutoConfig": "code.Config", "AutoModel": "code.Model"}}),
    ("text", CONFIG, {"auto_map": {"AutoModel": "code.Model"}}),  # though transformers has the type itself
    ("text", CONFIG, {"auto_map": {"AutoModel": "somebody/else--code.Model"}}),
    ("text", TOKENIZER, {"auto_map": {"AutoTokenizer": ["code.Tokenizer", None]}}),
    ("text", TOKENIZER, {"auto_map": {"AutoTokenizer": [None, "code.Tokenizer"]}}),
    ("text", TOKENIZER, {"auto_map": ["code.Tokenizer", "code.Tokenizer"], "tokenizer_class": "NewtTokenizer"}),
    ("image", CONFIG, {"model_type": "newt", "auto_map": {"AutoConfig": "code.Config"}}),
    ("image", CONFIG, {"auto_map": {"AutoModel": "code.Model"}}),
    ("image", CONFIG, {"auto_map": {"AutoImageProcessor": "code.Processor"}}),
    ("image", PROCESSOR, {"auto_map": {"AutoImageProcessor": "code.Processor"}}),
    ("image", PROCESSOR, {"auto_map": {"AutoFeatureExtractor": "code.Processor"}, "image_processor_type": None}),
]


@pytest.fixture
def no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    def asked(*args: object) -> str:
        raise AssertionError("a question was asked")

    monkeypatch.setattr("builtins.input", asked)


def write_with_code(folder: Path, kind: str, file: str, changes: dict[str, Any]) -> Path:
    """Write a model whose ``file`` names code that leaves a marker, and return the marker."""
    write_model(folder, "bert" if kind == "text" else "vit")
    if kind == "text":
        word_tokenizer().save_pretrained(folder)
    else:
        ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    marker = folder / "code_was_run"
    (folder / "code.py").write_text(CODE.format(marker=str(marker)))
    content = json.loads((folder / file).read_text()) | changes
    (folder / file).write_text(json.dumps({key: value for key, value in content.items() if value is not None}))
    return marker


@pytest.mark.usefixtures("no_answer")
@pytest.mark.parametrize(("kind", "file", "changes"), PLACES)
def test_a_model_that_needs_code_of_its_own_is_refused(
    kind: str, file: str, changes: dict[str, Any], tmp_path: Path
) -> None:
    marker = write_with_code(tmp_path, kind, file, changes)
    message = f"'{tmp_path}' needs code of its own, which is not run: choose another model"
    if kind == "text":
        encoder = TransformersTextEncoder(name=str(tmp_path), layers=2, max_length=12)
        uses = [encoder.tokenizer] if file == TOKENIZER else [encoder.tokenizer, encoder.load]
    else:
        image = TransformersImageEncoder(name=str(tmp_path), layers=2, grid=4)
        uses = [image.preprocessing, image.load]
    for use in uses:
        with pytest.raises(RobustTuneError) as error:
            use()
        assert str(error.value) == message
    assert not marker.exists()


@pytest.mark.usefixtures("no_answer")
def test_code_for_what_is_not_loaded_is_no_obstacle(tmp_path: Path) -> None:
    changes = {"auto_map": {"AutoModelForCausalLM": "code.Model", "AutoProcessor": "code.Processor"}}
    marker = write_with_code(tmp_path, "text", CONFIG, changes)
    encoder = TransformersTextEncoder(name=str(tmp_path), layers=2, max_length=12)
    assert encoder.load()(encoder.tokenizer()(["apple pie"]).tokens).pooled.isfinite().all()
    assert not marker.exists()


@pytest.mark.parametrize("name", ["local-dir:{folder}", "torchvision:resnet18"])
def test_timm_reads_no_models_but_its_own(name: str, tmp_path: Path) -> None:
    write_with_code(tmp_path, "image", CONFIG, {})
    with pytest.raises(RobustTuneError, match="timm has no model"):
        TimmEncoder(name=name.format(folder=tmp_path)).load()


@pytest.mark.slow
def test_nothing_is_asked_in_a_terminal(tmp_path: Path) -> None:
    """transformers asks for a ``y`` there."""
    marker = write_with_code(tmp_path, *PLACES[1])
    controller, terminal = pty.openpty()
    os.write(controller, b"y\n" * 3)
    script = (
        "import sys; from robusttune.encoders import TransformersTextEncoder as E\n"
        "try: E(name=sys.argv[1], layers=2).tokenizer()\n"
        "except Exception as error: print(error)"
    )
    try:
        done = subprocess.run(
            [sys.executable, "-c", script, str(tmp_path)],
            stdin=terminal,
            capture_output=True,
            text=True,
            timeout=120,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "HF_HUB_OFFLINE": "1"},
            check=True,
        )
    finally:
        os.close(controller)
        os.close(terminal)
    assert "y/N" not in done.stdout + done.stderr
    assert done.stdout.strip() == f"'{tmp_path}' needs code of its own, which is not run: choose another model"
    assert not marker.exists()
