"""Models on the Hugging Face hub, with a local stand-in for it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from huggingface_hub import constants
from inference.models import fusion, pairs
from stand_in_hub import StandInHub

from robusttune.errors import RobustTuneError
from robusttune.inference import Predictor, load
from robusttune.models import Experts


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StandInHub]:
    """Return an empty hub that this process uses, with an empty cache."""
    with StandInHub() as hub:
        for name, value in {
            "ENDPOINT": hub.address,
            "HUGGINGFACE_CO_URL_TEMPLATE": hub.address + "/{repo_id}/resolve/{revision}/{filename}",
            "HF_HUB_CACHE": str(tmp_path / "hub"),
            "HF_HUB_DISABLE_XET": True,
            "HF_TOKEN_PATH": str(tmp_path / "token"),
        }.items():
            monkeypatch.setattr(constants, name, value)
        monkeypatch.setenv("HF_TOKEN", "hf_test")
        yield hub


def test_a_model_is_uploaded_and_loaded_by_its_name(
    hub: StandInHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = Predictor([fusion(Experts())])
    assert model.push_to_hub("someone/shapes") == f"{hub.address}/someone/shapes"
    other = load("someone/shapes")
    assert np.array_equal(other.predict_proba(**pairs()), model.predict_proba(**pairs()))
    found = hub.find("models", "someone/shapes", "main")
    assert not isinstance(found, str)
    assert {"README.md", "robusttune.json", "model.safetensors", "text_encoder/tokenizer.json"} <= found.files.keys()
    assert found.files["README.md"].decode().startswith("---\nlibrary_name: robusttune\n")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    asked = len(hub.requests)
    assert np.array_equal(
        Predictor.from_pretrained("someone/shapes").predict_proba(**pairs()), model.predict_proba(**pairs())
    )
    assert len(hub.requests) == asked
    with pytest.raises(RobustTuneError, match="HF_HUB_OFFLINE is set.*: unset it"):
        model.push_to_hub("someone/shapes")
    with pytest.raises(RobustTuneError, match="someone/other is neither a path nor in the cache of the hub: check the"):
        load("someone/other")


def test_names_that_lead_nowhere(hub: StandInHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RobustTuneError, match="someone/nothing is neither a local path nor on the hub: check"):
        load("someone/nothing")
    (tmp_path / "repository").mkdir()
    (tmp_path / "repository" / "config.json").write_text("{}")
    hub.add("models", "someone/bert", tmp_path / "repository")
    with pytest.raises(RobustTuneError, match="someone/bert has no robusttune.json: give a model that"):
        load("someone/bert")
    monkeypatch.chdir(tmp_path)  # `make demo` leaves runs/demo/0 in the folder of the project
    with pytest.raises(RobustTuneError, match="the checkpoint runs/demo/0 does not exist: give the path"):
        load("runs/demo/0")
    asked = len(hub.requests)
    (tmp_path / "runs").mkdir()
    with pytest.raises(RobustTuneError, match="the checkpoint runs/demo does not exist: give the path"):
        load("runs/demo")  # mistyped, in a folder that exists
    assert len(hub.requests) == asked


def test_uploads_that_fail(hub: StandInHub) -> None:
    model = Predictor([fusion(Experts())])
    with pytest.raises(RobustTuneError, match="'shapes' is no name of a repository: give owner/name"):
        model.push_to_hub("shapes")
    hub.refuses_uploads = True
    with pytest.raises(RobustTuneError, match="someone/shapes cannot be uploaded .*: check the name, the token and"):
        model.push_to_hub("someone/shapes")
