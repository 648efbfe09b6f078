"""The direction of imports, and what is not imported before it is needed."""

from __future__ import annotations

import ast
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import robusttune

ROOT = Path(robusttune.__file__).parent
# Each room may import those of lower rank, and itself.
RANK = {
    "types": 0,
    "checkpoint_file": 1,
    "code_hash": 0,
    "errors": -1,  # imports nothing
    "escaping": 0,
    "garbage": 0,
    "heartbeat": 1,
    "mixing": 1,
    "interruption": 0,
    "lazy": 0,
    "packaged_configs": 1,
    "paths": 0,
    "plain_yaml": 0,
    "regular_files": 0,
    "streams": 1,
    "counting": 0,
    "predictions": 0,
    "ranks": 0,
    "run_names": 1,
    "score_counts": 1,
    "settings": 1,
    "yaml_files": 1,
    "terminal": 1,
    "corruption": 1,
    "encoders": 1,
    "data": 2,
    "models": 2,
    "evaluation": 2,
    "demo_clip": 3,
    "inference": 3,
    "report": 3,
    "tasks": 3,
    "callbacks": 4,
    "page": 4,
    "planning": 4,
    "protocols": 5,
    "tuning": 6,
    "commands": 7,
    "cli": 8,
    "__main__": 9,
}
PUBLIC = {
    "commands",
    "data",
    "errors",
    "inference",
    "tasks",
}  # rooms whose classes robusttune itself exports, on first use
FILES = sorted(ROOT.rglob("*.py"))


def imported_rooms(path: Path) -> set[str]:
    """Rooms of this package that a file imports, anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return {name.split(".")[1] for name in names if name.startswith("robusttune.")}


def test_files_are_found() -> None:
    assert len(FILES) > 20


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_one_way(path: Path) -> None:
    room = path.relative_to(ROOT).parts[0].removesuffix(".py")
    if room == "__init__":
        assert imported_rooms(path) <= {"lazy", *PUBLIC}
        return
    for other in imported_rooms(path) - {room}:
        assert RANK[other] < RANK[room], f"{room} imports {other}"


@pytest.mark.parametrize("path", sorted((ROOT / "models").rglob("*.py")), ids=lambda p: p.name)
def test_models_do_not_know_lightning(path: Path) -> None:
    assert "lightning" not in path.read_text().replace("Lightning", "")


# One process builds a classifier, and then imports the rest that needs neither a Trainer nor metrics.
SCRIPT = """
import sys
from robusttune.garbage import uncollected
with uncollected():
    from robusttune.encoders import CLIPTextEncoder, TimmEncoder
    from robusttune.models import FusionClassifier, MMRLClassifier, ZeroShotClassifier
    from robusttune.types import Facts
    image = TimmEncoder(name="test_vit", weights="random", layers=1, grid=2)
    text = CLIPTextEncoder(name="robusttune:demo_clip", weights="random", first_layer=2)
    FusionClassifier(image, text, Facts(["cat", "dog"], [0.5, 0.5], False)).eval()
    print(*{name.split(".")[0] for name in sys.modules})
    import robusttune.data.sources, robusttune.models
    from robusttune.data.images import ImageFiles
    from robusttune.encoders import CLIPTextEncoder, ImageTransform, Preprocessing, TimmEncoder, Tokenizer
    from robusttune.encoders import TransformersImageEncoder, TransformersTextEncoder
    from robusttune.evaluation import Scores, sample_losses
    from robusttune.predictions import predicted_classes, probabilities
    print(*{name.split(".")[0] for name in sys.modules})
"""


@pytest.fixture(scope="module")
def imported() -> list[set[str]]:
    """Return the packages that are imported once a classifier is built, and once preprocessing is imported too."""
    done = subprocess.run([sys.executable, "-c", SCRIPT], check=True, capture_output=True, text=True)
    return [{*line.split()} for line in done.stdout.splitlines()]


def test_a_classifier_is_built_without_a_trainer_metrics_or_plots(imported: list[set[str]]) -> None:
    classifier, _ = imported
    assert {"torch", "timm", "transformers"} <= classifier
    assert not classifier & {"lightning", "pytorch_lightning", "torchmetrics", "matplotlib", "pyarrow"}


def test_preprocessing_and_models_do_not_import_lightning(imported: list[set[str]]) -> None:
    """Nor torchmetrics and matplotlib: what reads images, tokenises texts and computes probabilities needs neither."""
    _, everything = imported
    assert not everything & {"lightning", "pytorch_lightning", "torchmetrics", "matplotlib"}


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], [], ["configs"]])
def test_help_does_not_import_torch(arguments: list[str]) -> None:
    code = f"import sys; from robusttune.cli import main; main({arguments!r}); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


@pytest.mark.parametrize("package", ["data", "encoders", "evaluation"])
def test_every_public_name_of_a_lazy_package_is_found(package: str) -> None:
    module = import_module(f"robusttune.{package}")
    for name in module.__all__:
        assert getattr(module, name).__module__.startswith(f"robusttune.{package}.") or package == "data"
    with pytest.raises(AttributeError, match=f"module 'robusttune.{package}' has no attribute 'unknown'"):
        _ = module.unknown
