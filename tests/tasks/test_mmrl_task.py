"""The MMRL task: its loss, conditions, base and new classes, and that nothing stale is ever used."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from fakes import VIEWS, by_view, parts, random_batch
from lightning.pytorch import Trainer
from torch import Tensor
from torch.nn import functional
from torch.optim import SGD, AdamW
from transformers import CLIPModel

from robusttune.checkpoint_file import KEY
from robusttune.encoders import CLIPImageEncoder, CLIPTextEncoder
from robusttune.errors import RobustTuneError
from robusttune.models import MMRL
from robusttune.tasks import MMRLTask
from robusttune.tasks.checkpoint import settings_of
from robusttune.types import Batch, Facts, Tokens, Variants, View

FACTS = Facts(["apple", "pie", "soup"], [0.5, 0.3, 0.2], False)
SMALL = MMRL(space_tokens=2, space_width=8)
PLUS_PLUS = MMRL(space_tokens=2, space_width=8, beta=0.6, residual_rank=2, projection_rank=2)


def make_task(clip_folder: Path, facts: Facts = FACTS, **changes: Any) -> MMRLTask:
    torch.manual_seed(0)
    encoders: dict[str, Any] = {
        "image_encoder": CLIPImageEncoder(name=str(clip_folder), first_layer=3),
        "text_encoder": CLIPTextEncoder(name=str(clip_folder), first_layer=2),
    }
    task = MMRLTask(**(encoders | {"adapter": SMALL, "templates": ["a photo of {}"]} | changes), facts=facts)
    with torch.no_grad():
        task.classifier.network.space.mul_(20)
    task.trainer = Trainer(logger=False, enable_checkpointing=False, accelerator="cpu")
    return task


def evaluated(task: MMRLTask, batch: Batch) -> tuple[dict[str, Tensor], dict[str, Tensor] | None]:
    """By view the logits, and those of not being told of which kind a sample is."""
    known, unknown = task.metric_logits(batch, list(VIEWS.values()))
    named = dict(zip(VIEWS, known, strict=True))
    return named, None if unknown is None else dict(zip(VIEWS, unknown, strict=True))


def make_batch(size: int = 6, complete: bool = False) -> Batch:
    """Rows as of `random_batch`, with texts that the tiny CLIP knows."""
    batch = random_batch(size, complete=complete)
    count = len(batch.texts["clean"])
    lengths, ids = torch.randint(1, 7, (count, 1)), torch.randint(2, 10, (count, 9))
    ids[:, 0] = 0
    place = torch.arange(9)
    ids[place == lengths + 1] = 1
    batch.texts = Variants(["clean"], Tokens(ids, place <= lengths + 1))
    return batch


def saved(task: MMRLTask) -> dict[str, Any]:
    checkpoint: dict[str, Any] = {"state_dict": dict(task.state_dict())}
    task.on_save_checkpoint(checkpoint)
    return checkpoint


def text_features(clip: Any, words: list[str], task: MMRLTask) -> Tensor:
    """Of the untouched CLIP."""
    tokens, _ = task.classifier.text_encoder.prompt_tokenizer(words)
    out = clip.get_text_features(tokens.input_ids, tokens.attention_mask.long())
    return functional.normalize(out if isinstance(out, Tensor) else out.pooler_output, dim=-1)


def test_only_the_network_is_trained_and_saved(clip_folder: Path) -> None:
    task = make_task(clip_folder)
    assert {parts(name) for name, p in task.named_parameters() if p.requires_grad} == {"classifier.network"}
    assert {parts(key) for key in saved(task)["state_dict"]} == {"classifier.network", "classifier.temperatures"}
    task.training_losses(make_batch(), 0).loss.backward()
    assert all((p.grad is not None) == p.requires_grad for p in task.parameters())


@pytest.mark.parametrize("adapter", [SMALL, PLUS_PLUS])
def test_loss_is_its_formula(clip_folder: Path, adapter: MMRL) -> None:
    """Out of the logits that evaluation gives, and of CLIP's own features."""
    task = make_task(clip_folder, adapter=adapter, alpha=0.6, reg_weight=3.0, text_weight=0.5)
    batch, clip = make_batch(), CLIPModel.from_pretrained(clip_folder).eval()
    losses = task.training_losses(batch, 0)
    label, shown, told = batch.label, batch.image_present, batch.text_present
    assert label is not None
    with torch.no_grad():
        by_text = by_view(task, batch)["no_image"]
        image_only = {"no_text": VIEWS["no_text"]}
        task.classifier.inference = "class"
        by_class = by_view(task, batch, image_only)["no_text"]
        task.classifier.inference = "fused"
        by_both = by_view(task, batch, image_only)["no_text"]
        by_representation = (by_both - 0.6 * by_class) / 0.4
        expected = 0.6 * functional.cross_entropy(by_class[shown], label[shown])
        expected += 0.4 * functional.cross_entropy(by_representation[shown], label[shown])
        torch.testing.assert_close(losses.parts["task_loss"], expected)
        torch.testing.assert_close(losses.parts["text_loss"], functional.cross_entropy(by_text[told], label[told]))
        images = batch.images["clean"]
        assert isinstance(images, Tensor)
        pixels = task.classifier.image_encoder.normalise(images)
        out = clip.get_image_features(pixels)
        own = functional.normalize(out if isinstance(out, Tensor) else out.pooler_output, dim=-1)
        words = text_features(clip, [f"a photo of {name}" for name in FACTS.class_names], task)
        adapted = task.classifier.adapted()
        upper, states = (
            task.classifier.image_encoder.upper,
            task.classifier.image_encoder.encode_lower(batch.images["clean"], False).tokens[0],
        )
        features, _ = task.classifier.network.image_features(upper, states, adapted.tokens.image)
        torch.testing.assert_close(losses.parts["image_distance"], 1 - (features * own).sum(1).mean())
        torch.testing.assert_close(losses.parts["class_distance"], 1 - (adapted.classes * words).sum(1).mean())
    parts = losses.parts
    distance = parts["image_distance"] + parts["class_distance"]
    torch.testing.assert_close(losses.loss, parts["task_loss"] + 0.5 * parts["text_loss"] + 3.0 * distance)


def test_rows_that_do_not_count_change_nothing(clip_folder: Path) -> None:
    task, batch = make_task(clip_folder), make_batch(8)
    whole = task.training_losses(batch, 0).loss
    batch = batch.map(lambda tensor: torch.cat([tensor, tensor[:1], tensor[:1]]))
    batch.counted = torch.arange(10) < 8
    torch.testing.assert_close(task.training_losses(batch, 0).loss, whole)


@pytest.mark.parametrize("modality", ["images", "texts"])
def test_a_batch_without_a_modality(clip_folder: Path, modality: str) -> None:
    """As of image-only data, or on one rank of several: every parameter stays in the graph."""
    task, batch = make_task(clip_folder), make_batch(4, complete=True)
    whole = by_view(task, batch)
    present = batch.image_present if modality == "images" else batch.text_present
    present[:] = False
    if modality == "images":
        batch.images = Variants(["clean"], torch.zeros(0, 3, 32, 32, dtype=torch.uint8))
    else:
        batch.texts = batch.texts.map(lambda t: t[:0])
    logits = by_view(task, batch)
    left = "no_image" if modality == "images" else "no_text"
    torch.testing.assert_close(logits["complete"], whole[left])
    prior = torch.tensor(FACTS.class_frequencies).log()
    torch.testing.assert_close(logits["no_text" if modality == "images" else "no_image"], prior.expand(4, -1))
    losses = task.training_losses(batch, 0)
    assert losses.loss.isfinite()
    losses.loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in task.classifier.network.parameters())


@pytest.mark.parametrize("combination_smoothing", [0.0, 0.05])
def test_modalities_are_multiplied_and_what_is_absent_does_not_matter(
    clip_folder: Path, combination_smoothing: float
) -> None:
    task, batch = make_task(clip_folder, combination_smoothing=combination_smoothing).eval(), make_batch()
    with torch.no_grad():
        logits = by_view(task, batch)
    both = batch.image_present & batch.text_present
    image, text = ((logits[name].softmax(1) + combination_smoothing)[both] for name in ("no_text", "no_image"))
    product = image * text
    torch.testing.assert_close(logits["complete"][both].softmax(1), product / product.sum(1, keepdim=True))
    assert torch.equal(logits["complete"][1], logits["no_image"][1])
    assert torch.equal(logits["complete"][2], logits["no_text"][2])
    prior = torch.tensor(FACTS.class_frequencies).log()
    for name, row in (("complete", 3), ("no_image", 2), ("no_text", 1)):
        torch.testing.assert_close(logits[name][row], prior)


def test_no_modality_rules_a_class_out_alone(clip_folder: Path) -> None:
    """An image changes the odds of two classes at most by (1 + smoothing) / smoothing."""
    task, batch = make_task(clip_folder, combination_smoothing=0.05), make_batch(complete=True)
    text = torch.randn(len(batch), 3)
    silent = torch.zeros_like(text)
    odds = []
    for image in (silent, 1e4 * torch.randn_like(text), silent.index_fill(1, torch.tensor(0), -torch.inf)):
        logits = task.classifier.combine_modalities(batch, [View()], {"clean": image}, {"clean": text})[0]
        assert logits.isfinite().all()
        odds.append(logits[:, :, None] - logits[:, None, :])
    assert all((some - odds[0]).abs().max() <= math.log(1.05 / 0.05) + 1e-5 for some in odds[1:])


def test_new_classes_are_answered_by_class_features_alone(clip_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As recorded, column by column; what is not told of which kind a sample is uses them for all."""
    task, batch = make_task(clip_folder, combination_smoothing=0.0).eval(), make_batch()
    names = ["apple", "pie", "soup", "cake", "of_a"]
    said: list[str] = []
    monkeypatch.setattr("robusttune.tasks.mmrl.rank_zero_info", said.append)
    task.set_classes(names)
    assert said == ["2 of 5 classes are new, such as 'cake': class features alone predict them"]
    with torch.no_grad():
        recorded, unknown = evaluated(task, batch)
        assert unknown is not None
        task.classifier.inference = "fused"
        fused = by_view(task, batch)
        task.classifier.inference = "class"
        by_class, none = evaluated(task, batch)
    assert none is None
    shown = batch.image_present
    for name in ("complete", "no_text"):
        assert torch.equal(recorded[name][:, :3], fused[name][:, :3])
        assert torch.equal(recorded[name][:, 3:], by_class[name][:, 3:])
        assert not torch.isclose(fused[name][shown], by_class[name][shown]).any(1).all()
        assert torch.equal(unknown[name], by_class[name])
    # New classes have no frequency of their own.
    prior = recorded["no_image"][3].softmax(0)
    torch.testing.assert_close(prior[3:], prior[:3].mean().expand(2))


def test_other_classes_are_those_of_a_task_that_was_made_for_them(clip_folder: Path) -> None:
    """Changing classes after loading leaves nothing of the old ones behind."""
    task, batch, names = make_task(clip_folder).eval(), make_batch(), ["cake", "photo of"]
    with torch.no_grad():
        before = by_view(task, batch)["complete"]
        task.set_classes(names)
        other = by_view(task, batch)
        fresh = make_task(clip_folder, facts=Facts(names, [0.5, 0.5], False), inference="class").eval()
        fresh.classifier.network.load_state_dict(task.classifier.network.state_dict())
        for name, logits in by_view(fresh, batch).items():
            assert torch.equal(other[name], logits)
        task.set_classes(FACTS.class_names)
        assert torch.equal(by_view(task, batch)["complete"], before)


def class_features_made(task: MMRLTask) -> list[int]:
    """Grows by one whenever class features are computed."""
    made, own = [], task.classifier.network.text_features

    def counted(upper: Any, texts: Any, tokens: Any) -> Tensor:
        made.append(len(texts.end))
        return own(upper, texts, tokens)

    task.classifier.network.text_features = counted  # type: ignore[method-assign]
    return made


@pytest.mark.parametrize("kind", ["sgd", "adamw", "fused adamw", "data", "in data", "load"])
def test_weights_that_have_changed_make_class_features_anew(clip_folder: Path, kind: str) -> None:
    """Evaluation computes them once, but never uses those of weights that are no more, whoever changed these."""
    task, batch = make_task(clip_folder), make_batch(complete=True)
    batch.texts = batch.texts.map(lambda t: t[:0])
    batch.text_present[:] = False
    weights = [*task.classifier.network.parameters()]
    optimizer = {"sgd": SGD(weights, 1.0), "adamw": AdamW(weights, 0.1), "fused adamw": AdamW(weights, 0.1, fused=True)}
    for _ in range(2):
        if kind in optimizer:
            task.train()
            optimizer[kind].zero_grad()
            task.training_losses(batch, 0).loss.backward()
            optimizer[kind].step()
        elif kind == "data":
            for parameter in weights:
                parameter.data = parameter.data + 0.1 * torch.randn_like(parameter)
        elif kind == "in data":
            for parameter in weights:
                parameter.data.add_(0.1 * torch.randn_like(parameter))
        else:
            task.classifier.network.load_state_dict(
                {key: t + 0.1 for key, t in task.classifier.network.state_dict().items()}
            )
        if kind in optimizer:
            task.eval()
        made = class_features_made(task)
        with torch.inference_mode():
            found = [by_view(task, batch)["complete"] for _ in range(3)]
        assert made.count(3) == 1
        fresh = make_task(clip_folder).eval()
        fresh.classifier.network.load_state_dict(task.classifier.network.state_dict())
        for logits in found:
            torch.testing.assert_close(logits, by_view(fresh, batch)["complete"])


def test_another_precision_makes_class_features_anew(clip_folder: Path) -> None:
    task, batch = make_task(clip_folder).eval(), make_batch()
    with torch.no_grad():
        full = by_view(task, batch)["complete"]
        with torch.autocast("cpu", torch.bfloat16):
            half = task.classifier.adapted().classes
        again = by_view(task, batch)["complete"]
        assert not torch.equal(task.classifier.adapted().classes, half)
    assert torch.equal(again, full)


def test_evaluating_first_does_not_keep_from_training(clip_folder: Path) -> None:
    """What is computed in inference mode cannot be trained with."""
    task, batch = make_task(clip_folder), make_batch()
    task.eval()
    with torch.inference_mode():
        by_view(task, batch)
    task.train()
    task.training_losses(batch, 0).loss.backward()


def test_templates_are_averaged_in_the_target(clip_folder: Path) -> None:
    templates = ["a photo of {}", "{} a photo", "soup {}"]
    task, clip = make_task(clip_folder, templates=templates), CLIPModel.from_pretrained(clip_folder).eval()
    with torch.no_grad():
        each = [text_features(clip, [t.format(n) for n in FACTS.class_names], task) for t in templates]
    expected = functional.normalize(torch.stack(each).mean(0), dim=-1)
    torch.testing.assert_close(task.classifier.prompts().untouched, expected)
    one = make_task(clip_folder, templates=templates[:1])
    assert torch.equal(one.classifier.prompts().packed.states, task.classifier.prompts().packed.states)


def test_a_checkpoint_comes_back(clip_folder: Path, tmp_path: Path) -> None:
    task, batch = make_task(clip_folder, adapter=PLUS_PLUS, alpha=0.4), make_batch()
    torch.save(saved(task), tmp_path / "task.ckpt")
    again = MMRLTask.load_from_checkpoint(tmp_path / "task.ckpt")
    assert settings_of(again) == settings_of(task)
    with torch.no_grad():
        expected = by_view(task.eval(), batch)
        for name, logits in by_view(again, batch).items():
            assert torch.equal(logits, expected[name])


@pytest.mark.parametrize("changes", [{"templates": ["soup of {}"]}, {"combination_smoothing": 0.3}])
def test_what_may_change_for_a_test_but_not_for_training(clip_folder: Path, changes: dict[str, Any]) -> None:
    checkpoint, task = saved(make_task(clip_folder)), make_task(clip_folder, **changes)
    task.on_load_checkpoint({**checkpoint, "state_dict": dict(checkpoint["state_dict"])})
    task.trainer.state.fn = "fit"  # type: ignore[assignment]
    with pytest.raises(RobustTuneError, match=f"contradicts the settings.*model.{next(iter(changes))}"):
        task.on_load_checkpoint({**checkpoint, "state_dict": dict(checkpoint["state_dict"])})


def test_a_checkpoint_of_before_there_was_smoothing_is_tested(clip_folder: Path) -> None:
    checkpoint = saved(make_task(clip_folder))
    del checkpoint[KEY]["settings"]["combination_smoothing"]
    make_task(clip_folder).on_load_checkpoint(checkpoint)


def test_another_backbone_is_refused(clip_folder: Path, tmp_path: Path) -> None:
    checkpoint = saved(make_task(clip_folder))
    clip = CLIPModel.from_pretrained(clip_folder)
    with torch.no_grad():
        clip.vision_model.post_layernorm.bias.add_(1)
    other = tmp_path / "other"
    other.mkdir()
    for path in clip_folder.iterdir():
        (other / path.name).write_bytes(path.read_bytes())
    clip.save_pretrained(other)
    with pytest.raises(RobustTuneError, match="the weights of image_encoder are not those it was trained with"):
        make_task(other).on_load_checkpoint(checkpoint)
    assert checkpoint[KEY]["facts"]["class_names"] == FACTS.class_names


def test_released_encoders_keep_what_the_adapter_reaches_into(clip_folder: Path) -> None:
    """With a feature cache, what lies below is needed no more; and is loaded again where it is."""
    task, batch = make_task(clip_folder).eval(), make_batch()
    with torch.no_grad():
        expected = by_view(task, batch)
        raw = replace(batch)
        batch.images = Variants(["kept"], task.classifier.image_encoder(batch.images["clean"]))
        batch.texts = Variants(["kept"], task.classifier.text_encoder(batch.texts["clean"]))
        task.classifier.release_encoders()
        for encoder in (task.classifier.image_encoder, task.classifier.text_encoder):
            assert not list(encoder.backbone.parameters())
        kept = {n: View(v.image and "kept", v.text and "kept") for n, v in VIEWS.items()}
        for name, logits in by_view(task, batch, kept).items():
            torch.testing.assert_close(logits, expected[name])
        assert not list(task.classifier.image_encoder.backbone.parameters())
        for name, logits in by_view(task, raw).items():
            assert torch.equal(logits, expected[name])


MISTAKES: dict[str, tuple[dict[str, Any], str]] = {
    "alpha": ({"alpha": 1.5}, "alpha 1.5, reg_weight 5.0, text_weight 1.0 do not work: give an alpha in"),
    "nan": ({"reg_weight": float("nan")}, "reg_weight nan"),
    "smoothing": ({"combination_smoothing": -0.1}, "combination_smoothing is -0.1: give a number of at least 0"),
    "no smoothing": ({"combination_smoothing": float("nan")}, "combination_smoothing is nan"),
    "no template": ({"templates": []}, "model.templates is empty: give at least one"),
    "no place": ({"templates": ["a photo"]}, "model.templates has 'a photo': give each one {}, where the name"),
    "multilabel": (
        {"facts": FACTS._replace(multilabel=True)},
        "predicts one class: .* set model.class_path to Fusion",
    ),
    "twice": ({"facts": FACTS._replace(class_names=["a", "b", "a"])}, "the classes 'a' and 'a' make the same prompt"),
    "same tokens": (
        {"facts": FACTS._replace(class_names=["what", "no such", "else"])},  # words that the tokenizer does not know
        "the classes 'what' and 'else' make the same prompt: give each another name",
    ),
    "same words": (
        {"facts": FACTS._replace(class_names=["apple_pie", "apple pie", "b"])},
        "the classes 'apple_pie' and 'apple pie' make the same prompt: give each another name",
    ),
    "blank": ({"facts": FACTS._replace(class_names=["a", " ", "b"])}, "class 2 of 3 has a blank name: give it a name"),
    "too long": (
        {"facts": FACTS._replace(class_names=["a", "soup " * 20, "b"])},
        "1 prompt is longer than the 16 tokens that the text encoder takes, the first is that of 'soup soup",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_wrong_settings(clip_folder: Path, mistake: str) -> None:
    changes, message = MISTAKES[mistake]
    with pytest.raises(RobustTuneError, match=message):
        make_task(clip_folder, **changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"beta": 0.0}, "model.adapter.beta is 0.0: give a share above 0"),
        ({"beta": float("nan")}, "model.adapter.beta is nan"),
        ({"space_tokens": 0}, "model.adapter.space_tokens is 0: give at least 1"),
        ({"residual_rank": 0}, "model.adapter.residual_rank is 0: give at least 1"),
    ],
)
def test_wrong_adapters(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(RobustTuneError, match=message):
        MMRL(**changes)


@pytest.mark.parametrize("modality", ["image", "text"])
@pytest.mark.parametrize("first_layer", [0, 6])
def test_first_layer_out_of_range(clip_folder: Path, modality: str, first_layer: int) -> None:
    kind = CLIPImageEncoder if modality == "image" else CLIPTextEncoder
    message = f"first_layer {first_layer} does not fit '.*', whose tower has 4 layers: give 1 to 4"
    with pytest.raises(RobustTuneError, match=message):
        kind(name=str(clip_folder), first_layer=first_layer).load()


@pytest.mark.parametrize("modality", ["image", "text"])
def test_a_tower_without_layers_to_adapt(clip_folder: Path, modality: str) -> None:
    kind = CLIPImageEncoder if modality == "image" else CLIPTextEncoder
    encoder: dict[str, Any] = {f"{modality}_encoder": kind(name=str(clip_folder), first_layer=5)}
    with pytest.raises(
        RobustTuneError, match="first_layer 5 does not fit '.*', whose tower has 4 layers: give 1 to 4$"
    ):
        make_task(clip_folder, **encoder)


def test_encoders_that_do_not_go_together(clip_folder: Path, text_folder: Path) -> None:
    with pytest.raises(RobustTuneError, match="does not take images of 64 pixels: set image_encoder.size to 32"):
        CLIPImageEncoder(name=str(clip_folder), size=64).load()
    with pytest.raises(RobustTuneError, match="is a BertModel, and no CLIP or SigLIP: choose one such as openai/clip"):
        CLIPTextEncoder(name=str(text_folder)).load()
    from fakes import tiny_image_encoder

    with pytest.raises(RobustTuneError, match="set image_encoder.class_path to CLIPImageEncoder"):
        make_task(clip_folder, image_encoder=tiny_image_encoder())
    with pytest.raises(RobustTuneError, match="image_encoder.revision is 'a' and text_encoder.revision is None: name"):
        make_task(clip_folder, image_encoder=CLIPImageEncoder(name=str(clip_folder), first_layer=3, revision="a"))
