"""Predictions of a loaded model: forms of samples, missing modalities, threads, several models, wrong input."""

from __future__ import annotations

import logging
import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from fakes import tiny_image_encoder, tiny_text_encoder, write_image
from PIL import Image

from robusttune.encoders import CLIPImageEncoder, CLIPTextEncoder
from robusttune.errors import RobustTuneError
from robusttune.inference import Predictor, batches
from robusttune.models.experts import Experts
from robusttune.models.fusion_classifier import FusionClassifier
from robusttune.models.mmrl_classifier import MMRLClassifier
from robusttune.models.zero_shot import ZeroShotClassifier
from robusttune.types import Facts

FACTS = Facts(["cat", "dog", "fish"], [0.5, 0.3, 0.2], multilabel=False)
RNG = np.random.default_rng(0)
IMAGES = [RNG.integers(0, 256, (40, 30, 3), dtype=np.uint8) for _ in range(4)]
TEXTS = ["a red pasta dish", "soup", "a very long text about pizza and cake with much to say", "steak"]
CLIP: dict[str, Any] = {"name": "robusttune:demo_clip", "first_layer": 2}


def fusion(text_folder: Path, seed: int = 0, facts: Facts = FACTS) -> FusionClassifier:
    torch.manual_seed(seed)
    classifier = FusionClassifier(tiny_image_encoder(), tiny_text_encoder(text_folder), facts, Experts(width=8))
    return classifier.eval()


@pytest.fixture(scope="module")
def model(text_folder: Path) -> Predictor:
    return Predictor([fusion(text_folder)])


@pytest.fixture(scope="module")
def clip_model() -> Predictor:
    facts = Facts(["red circle", "blue square"], [0.75, 0.25], multilabel=False)
    return Predictor([ZeroShotClassifier(CLIPImageEncoder(**CLIP), CLIPTextEncoder(**CLIP), facts).eval()])


def test_one_pair(model: Predictor) -> None:
    found = model.predict(image=IMAGES[0], text=TEXTS[0])
    assert found.modalities == ("image", "text")
    assert list(found.probabilities) == FACTS.class_names
    assert sum(found.probabilities.values()) == pytest.approx(1, abs=1e-6)
    assert found.probability == max(found.probabilities.values()) == found.probabilities[found.label]
    assert found.labels == (found.label,)
    assert str(found).endswith("from image and text)")


def test_a_missing_modality_is_said(model: Predictor) -> None:
    assert "from the text alone" in str(model.predict(text="soup"))
    assert "from the image alone" in str(model.predict(image=IMAGES[0], text="  "))
    nothing = model.predict(image=None, text=None)
    assert nothing.modalities == ()
    assert list(nothing.probabilities.values()) == pytest.approx(FACTS.class_frequencies, abs=1e-6)
    assert "without image and text" in str(nothing)


def forms(folder: Path) -> dict[str, object]:
    """The same four samples in every form; the last lacks its image, the first its text."""
    images = [*IMAGES[:3], None]
    texts = [None, *TEXTS[1:]]
    paths = [None if i is None else str(folder / f"{n}.png") for n, i in enumerate(images)]
    for path, image in zip(paths, images, strict=True):
        if path is not None and image is not None:
            Image.fromarray(image).save(path)
    table = pd.DataFrame({"id": [7, 5, 3, 1], "image": paths, "text": texts}, index=list("abcd"))
    return {
        "pairs": list(zip(images, texts, strict=True)),
        "dictionaries": [{"image": i, "text": t, "more": 1} for i, t in zip(images, texts, strict=True)],
        "columns": {"image": images, "text": texts},
        "pandas": table,
        "arrow": pa.Table.from_pandas(table),
    }


@pytest.mark.parametrize("form", ["pairs", "dictionaries", "columns", "pandas", "arrow"])
def test_every_form_of_rows(model: Predictor, tmp_path: Path, form: str) -> None:
    rows = forms(tmp_path)[form]
    expected = model.predict_proba(images=[*IMAGES[:3], None], texts=[None, *TEXTS[1:]])
    found = model.predict(rows)
    assert np.array_equal(found.probabilities, expected)
    assert [prediction.modalities for prediction in found] == [("image",), *[("image", "text")] * 2, ("text",)]
    if form == "pandas":
        table = found.to_pandas()
        assert list(table.index) == list("abcd")
        assert list(table["label"]) == [prediction.label for prediction in found]
        assert list(table["modalities"]) == ["image", "image+text", "image+text", "text"]


def test_batches_change_nothing_but_rounding(model: Predictor) -> None:
    whole, single = (model.predict_proba(images=IMAGES, texts=TEXTS, batch_size=size) for size in (64, 1))
    np.testing.assert_allclose(single, whole, atol=1e-6)
    alone = [model.predict_proba(image=i, text=t) for i, t in zip(IMAGES, TEXTS, strict=True)]
    assert np.array_equal(single, np.stack(alone))


def test_explain_is_what_each_modality_alone_would_say(model: Predictor) -> None:
    found = model.predict(image=IMAGES[0], text=TEXTS[0], explain=True)
    for modality, expected in (("image", model.predict(image=IMAGES[0])), ("text", model.predict(text=TEXTS[0]))):
        assert found.alone[modality].probabilities == pytest.approx(expected.probabilities, abs=1e-6)
        assert found.alone[modality].modalities == (modality,)
    assert found.probabilities == model.predict(image=IMAGES[0], text=TEXTS[0]).probabilities
    assert model.predict(text="soup", explain=True).alone == {}


def test_several_labels(text_folder: Path) -> None:
    model = Predictor([fusion(text_folder, facts=FACTS._replace(multilabel=True))])
    found = model.predict(image=IMAGES[0], text=TEXTS[0])
    model.threshold = sorted(found.probabilities.values())[1]
    assert len(model.predict(image=IMAGES[0], text=TEXTS[0]).labels) == 2
    model.threshold = 1.0
    assert model.predict(image=IMAGES[0], text=TEXTS[0]).labels == ()
    assert "labels" in model.predict([(None, "soup")]).to_pandas()


def test_several_models_are_averaged(text_folder: Path) -> None:
    members = [fusion(text_folder, seed) for seed in (0, 1)]
    rows = [(IMAGES[0], TEXTS[0]), (None, TEXTS[1]), (IMAGES[2], None)]
    alone = [Predictor([member]).predict_proba(rows) for member in members]
    assert np.abs(alone[0] - alone[1]).max() > 1e-3
    np.testing.assert_allclose(Predictor(members).predict_proba(rows), np.mean(alone, 0), atol=1e-6)
    other = replace_classes(members[1], ["cat", "dog", "bird"])
    with pytest.raises(RobustTuneError, match="different classes"):
        Predictor([members[0], other])


def replace_classes(classifier: FusionClassifier, names: list[str]) -> FusionClassifier:
    classifier.class_names = names
    return classifier


def test_embeddings(model: Predictor, clip_model: Predictor) -> None:
    rows = [(IMAGES[0], TEXTS[0]), (None, TEXTS[0]), (IMAGES[0], None), (None, None)]
    for each, size in ((model, 24), (clip_model, 128)):
        found = each.embed(rows)
        assert found.fused.shape == (4, size)
        assert np.isfinite(found.fused).all()
        assert np.isnan(found.image[[1, 3]]).all()
        assert np.isnan(found.text[2:]).all()
        np.testing.assert_allclose(found.image[2], found.image[0], atol=1e-5)
        np.testing.assert_allclose(found.text[1], found.text[0], atol=1e-5)
    on_clip = clip_model.embed(rows)
    np.testing.assert_allclose(on_clip.fused[1], on_clip.text[0], atol=1e-6)
    mean = on_clip.image[0] + on_clip.text[0]
    np.testing.assert_allclose(on_clip.fused[0], mean / np.linalg.norm(mean), atol=1e-6)


def test_the_fused_embedding_determines_the_logits(model: Predictor) -> None:
    """The last layers of the experts, on their parts of it, give the scores of complete samples."""
    found = torch.from_numpy(model.embed(images=IMAGES, texts=TEXTS).fused)
    classifier = model.classifiers[0]
    assert isinstance(classifier, FusionClassifier)
    parts = zip(classifier.network.output_layers, found.split(8, 1), strict=True)
    logits = torch.stack([layer(part) for layer, part in parts]).sum(0)
    np.testing.assert_allclose(
        logits.softmax(1).detach().numpy(), model.predict_proba(images=IMAGES, texts=TEXTS), atol=1e-5
    )


def test_other_classes(clip_model: Predictor, model: Predictor) -> None:
    trained = clip_model.classes
    clip_model.set_classes(["green triangle", "red circle"])
    assert clip_model.predict(text="a green triangle").label == "green triangle"
    clip_model.set_classes(trained)
    with pytest.raises(RobustTuneError, match="classes that it was trained on"):
        model.set_classes(["cat", "bird"])


def test_mmrl_with_its_own_and_with_new_classes() -> None:
    facts = Facts(["red circle", "blue square"], [0.5, 0.5], multilabel=False)
    model = Predictor([MMRLClassifier(CLIPImageEncoder(**CLIP), CLIPTextEncoder(**CLIP), facts).eval()])
    found = model.embed([(IMAGES[0], "a red circle"), (None, None)])
    assert np.linalg.norm(found.fused, axis=1) == pytest.approx([1, 0], abs=1e-5)
    model.set_classes(["red circle", "green triangle"])
    assert model.predict_proba(text="green triangle").shape == (2,)


def test_threads_do_not_disturb_each_other(model: Predictor) -> None:
    rows = [(IMAGES[n % 4], TEXTS[(n + 1) % 4]) for n in range(24)]
    expected = [model.predict_proba(image=image, text=text) for image, text in rows]
    fused = model.embed(image=IMAGES[0], text=TEXTS[0]).fused
    with ThreadPoolExecutor(6) as pool:
        embedded = [pool.submit(model.embed, image=IMAGES[0], text=TEXTS[0]) for _ in range(8)]
        found = list(pool.map(lambda row: model.predict_proba(image=row[0], text=row[1]), rows))
    assert all(np.array_equal(ours, theirs) for ours, theirs in zip(found, expected, strict=True))
    assert all(np.array_equal(future.result().fused, fused) for future in embedded)


def test_images_are_read_by_several_threads(model: Predictor, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "shared.png"
    Image.fromarray(IMAGES[0]).save(path)
    images = [IMAGES[number % 4] for number in range(30)] + [Image.open(path)] * 30
    monkeypatch.setattr(batches, "READERS", 4)
    found = model.predict(images=images, texts=None)
    expected = model.predict_proba(images=[*IMAGES[:4], IMAGES[0]], texts=None)
    assert np.allclose(found.probabilities[:30], expected[np.arange(30) % 4], atol=1e-6)
    assert np.allclose(found.probabilities[30:], expected[4], atol=1e-6)
    with pytest.raises(RobustTuneError, match=r"^image 33 "):
        model.predict(images=[*images[:33], b"no image", *images[34:50], b"no image"], texts=None)


def test_global_state_stays(model: Predictor) -> None:
    def state() -> tuple[object, ...]:
        return (
            torch.random.get_rng_state().tolist(),
            random.getstate(),
            np.random.get_state(legacy=False)["state"]["key"].tolist(),  # noqa: NPY002
            torch.get_num_threads(),
            torch.is_grad_enabled(),
            logging.getLogger().level,
        )

    before = state()
    model.predict(images=IMAGES, texts=TEXTS, batch_size=2, explain=True)
    model.embed(text="soup")
    assert state() == before


def test_images_that_cannot_be_read(model: Predictor, tmp_path: Path) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(write_image(tmp_path / "good.jpg").read_bytes()[:200])
    with pytest.raises(RobustTuneError, match=r"broken.jpg cannot be read as an image"):
        model.predict(image=broken, text="soup")
    rows = [(broken, "soup"), (IMAGES[0], "soup"), (tmp_path / "none.jpg", None)]
    found = model.predict(rows, unreadable_as_missing=True)
    assert [bool(reason) for reason in found.unreadable] == [True, False, True]
    assert [prediction.modalities for prediction in found] == [("text",), ("image", "text"), ()]


def test_several_images_of_a_sample(model: Predictor) -> None:
    """Their features are averaged, so two equal ones are one."""
    one_image = model.embed(image=IMAGES[0]).image
    np.testing.assert_allclose(model.embed(image=[IMAGES[0], IMAGES[0]]).image, one_image, atol=1e-5)
    both = model.embed([([IMAGES[0], IMAGES[1]], "soup"), (IMAGES[1], None)]).image
    np.testing.assert_allclose(both[0], (one_image[0] + both[1]) / 2, atol=1e-5)
    with pytest.raises(RobustTuneError, match="image 0, number 1, is an array of shape"):
        model.predict(image=[IMAGES[0], np.zeros(3)])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ({"images": [], "texts": []}, "no samples were given"),
        ({"images": [None], "texts": ["a", "b"]}, "1 images and 2 texts"),
        ({"text": 3}, "text is of the type int"),
        ({"texts": ["a", 4.5]}, "text 1 is of the type float"),
        ({"image": object()}, "image 0 is of the type object"),
        ({"image": np.zeros((3, 4, 5), np.uint8)}, r"array of shape \(3, 4, 5\)"),
        ({"image": np.full((4, 4), np.nan)}, "NaN or outside"),
        ({"image": np.full((4, 4), 200.0)}, "NaN or outside"),
        ({"image": np.zeros((4, 4), np.int64)}, "dtype int64"),
        ({"image": b"no image"}, "cannot be read as an image"),
        ({"text": "a", "batch_size": 0}, "batch_size is 0"),
        ({"text": "a", "images": [None]}, "two ways at once"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_wrong_input(model: Predictor, call: dict[str, object], message: str) -> None:
    with pytest.raises(RobustTuneError, match=message):
        model.predict(**call)  # type: ignore[call-overload]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("photo.jpg", "of the type str"),
        ([], "no samples were given"),
        ([("a", "b", "c")], "row 0 is of the type tuple"),
        ([{"picture": "a.png"}], "the columns are 'picture'"),
        (pd.DataFrame({"title": ["a"]}), "the columns are 'title'"),
    ],
    ids=["text", "empty", "triple", "dictionary", "pandas"],
)
def test_wrong_rows(model: Predictor, rows: object, message: str) -> None:
    with pytest.raises(RobustTuneError, match=message):
        model.predict(rows)


def test_precision(text_folder: Path) -> None:
    rows = [(IMAGES[0], TEXTS[0]), (None, TEXTS[1]), (IMAGES[2], None)]
    exact = Predictor([fusion(text_folder)]).predict_proba(rows)
    rounded = Predictor([fusion(text_folder).to(dtype=torch.bfloat16)]).predict_proba(rows)
    assert rounded.dtype == np.float32
    np.testing.assert_allclose(rounded, exact, atol=0.03)
