"""The fusion task: losses, conditions, what is trained, what a checkpoint holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest
import torch
from fakes import FACTS, by_view, parts, random_batch, tiny_image_encoder, tiny_text_encoder
from lightning.pytorch import Trainer
from torch import Tensor
from torch.nn import functional

from robusttune.checkpoint_file import KEY, read_checkpoint
from robusttune.errors import RobustTuneError
from robusttune.models import Concatenation, Experts, FusionModel, MoLT
from robusttune.models.experts import ExpertsNetwork
from robusttune.tasks import FusionTask, Schedule
from robusttune.tasks.checkpoint import settings_of
from robusttune.tasks.losses import FiniteCheck, mean_over_ranks
from robusttune.types import Encoded, Facts, Tokens, Variants, View

SMALL = MoLT(common_width=16, bilinear_width=8, fusion_width=16, cca_dim=2)
STORED = {"classifier.network", "classifier.temperatures", "correlation.running", "correlation.steps"}


def make_task(text_folder: Path, facts: Facts = FACTS, **changes: Any) -> FusionTask:
    torch.manual_seed(0)
    image = changes.pop("image_encoder", tiny_image_encoder())
    text = changes.pop("text_encoder", tiny_text_encoder(text_folder))
    task = FusionTask(image, text, facts, **{"fusion": SMALL} | changes)
    task.trainer = Trainer(logger=False, enable_checkpointing=False, accelerator="cpu", log_every_n_steps=1)
    return task


def saved(task: FusionTask) -> dict[str, Any]:
    checkpoint: dict[str, Any] = {"state_dict": dict(task.state_dict())}
    task.on_save_checkpoint(checkpoint)
    return checkpoint


@pytest.mark.parametrize("multilabel", [False, True])
def test_loss_is_its_formula(text_folder: Path, multilabel: bool) -> None:
    task = make_task(text_folder, FACTS._replace(multilabel=multilabel), alpha=0.7, beta=0.2).eval()
    batch = random_batch(12, multilabel=multilabel)
    losses = task.training_losses(batch, 0)
    logits = task.classifier.logits(batch, [View()])[0]
    assert batch.label is not None
    cross_entropy = functional.binary_cross_entropy_with_logits if multilabel else functional.cross_entropy
    torch.testing.assert_close(losses.parts["task_loss"], cross_entropy(logits, batch.label))
    total = 0.7 * losses.parts["task_loss"] + 0.2 * losses.parts["correlation_loss"]
    torch.testing.assert_close(losses.loss, total)
    assert -1 <= losses.parts["correlation_loss"] < 0
    assert -1 <= losses.parts["shuffled_correlation_loss"] <= 0


def test_a_fusion_with_nothing_to_correlate(text_folder: Path) -> None:
    task = make_task(text_folder, fusion=Concatenation(width=8), beta=0.0).eval()
    losses = task.training_losses(random_batch(12), 0)
    assert [*losses.parts] == ["task_loss"]
    assert losses.finite.all()
    torch.testing.assert_close(losses.loss, losses.parts["task_loss"])
    losses.loss.backward()
    assert all(p.grad is not None for p in task.parameters() if p.requires_grad)
    with pytest.raises(RobustTuneError, match="Concatenation has nothing to correlate: set model.beta to 0"):
        make_task(text_folder, fusion=Concatenation())


def test_rows_that_do_not_count_change_nothing(text_folder: Path) -> None:
    task = make_task(text_folder).eval()
    batch = random_batch(8)
    whole = task.training_losses(batch, 0).loss
    # The first sample, which has both modalities, twice more.
    batch = batch.map(lambda tensor: torch.cat([tensor, tensor[:1], tensor[:1]]))
    batch.counted = torch.arange(10) < 8
    torch.testing.assert_close(task.training_losses(batch, 0).loss, whole)


@pytest.mark.parametrize("multilabel", [False, True])
@pytest.mark.parametrize("fusion", [SMALL, Experts(width=8)])
def test_every_pattern_of_a_sample_is_in_its_loss(text_folder: Path, multilabel: bool, fusion: FusionModel) -> None:
    """Half of it of the whole, a quarter of each modality; of a sample that lacks a modality, all of what there is."""
    facts, smoothing = FACTS._replace(multilabel=multilabel), 0.3
    changes = {"fusion": fusion, "beta": 0.0, "every_pattern": True, "label_smoothing": smoothing}
    task, batch = make_task(text_folder, facts, **changes).eval(), random_batch(8, multilabel=multilabel)
    found = task.training_losses(batch, 0)
    assert batch.label is not None
    target = batch.label if multilabel else functional.one_hot(batch.label, 3).float()
    target = target * (1 - smoothing) + smoothing * (torch.tensor(facts.class_frequencies) if multilabel else 1 / 3)
    by_pattern = []
    for logits in task.classifier.logits(batch, [View(), View(text=None), View(image=None)]):
        if multilabel:
            by_pattern.append(functional.binary_cross_entropy_with_logits(logits, target, reduction="none").mean(1))
        else:
            by_pattern.append(-(target * logits.log_softmax(1)).sum(1))
    whole, image, text = by_pattern
    both = batch.image_present & batch.text_present
    expected = torch.where(both, whole / 2 + image / 4 + text / 4, whole)
    torch.testing.assert_close(found.parts["task_loss"], expected.mean())


def test_pairs_are_correlated_once_in_every_pattern(text_folder: Path) -> None:
    task, batch = make_task(text_folder).eval(), random_batch(12)
    expected = task.training_losses(batch, 0).parts["correlation_loss"]
    task.every_pattern = True
    torch.testing.assert_close(task.training_losses(batch, 0).parts["correlation_loss"], expected)


@pytest.mark.parametrize("every_pattern", [False, True])
def test_rows_that_fill_up_are_not_in_the_centre(text_folder: Path, every_pattern: bool) -> None:
    task = make_task(text_folder, fusion=Experts(width=8), beta=0.0, every_pattern=every_pattern)
    batch = random_batch(8)
    batch.counted = torch.arange(8) < 5
    task.training_losses(batch, 0)
    network = task.classifier.network
    assert isinstance(network, ExpertsNetwork)
    assert [network.image.rows, network.text.rows] == [batch.image_present[:5].sum(), batch.text_present[:5].sum()]


def test_mean_over_counted_rows() -> None:
    values, counted = torch.tensor([1.0, 2.0, float("nan")]), torch.tensor([True, True, False])
    assert mean_over_ranks(values, counted) == 1.5
    assert mean_over_ranks(values, counted & False) == 0


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("modality", ["image", "text"])
def test_a_loss_that_is_not_finite_names_its_samples(text_folder: Path, modality: str, value: float) -> None:
    task = make_task(text_folder)
    batch = random_batch(8)
    row = torch.zeros(7, 1)
    row[4] = value  # of those that have the modality: sample 6 for images, and for texts, since each modality lacks 2

    def spoil(_: Any, __: Any, encoded: Encoded) -> Encoded:
        return encoded.map(lambda t: t if t.dtype == torch.bool else t + row[: len(t)].view(-1, *[1] * (t.dim() - 1)))

    task.classifier.encoder(f"{modality}_encoder").register_forward_hook(spoil)
    message = r"step 0 in epoch 0 is not finite, because of 1 of its 8 samples, '6': lower model.optimizer.lr"
    check = FiniteCheck(task.training_losses(batch, 0), batch, step=0, epoch=0)
    with pytest.raises(RobustTuneError, match=message):
        check.finish()


def test_weights_that_are_not_finite_are_no_samples_fault(text_folder: Path) -> None:
    task = make_task(text_folder)
    with torch.no_grad():
        task.classifier.network.fusion.head.weight.fill_(float("nan"))  # type: ignore[union-attr, operator]
    batch = random_batch(complete=True)
    check = FiniteCheck(task.training_losses(batch, 0), batch, step=0, epoch=0)
    with pytest.raises(RobustTuneError, match="because of all its 6 samples, '0', '1', '2', '3', '4', ...: lower"):
        check.finish()


def test_each_variant_is_encoded_once_for_all_conditions(text_folder: Path) -> None:
    task = make_task(text_folder).eval()
    calls: list[str] = []
    task.classifier.image_encoder.register_forward_hook(lambda *_: calls.append("image"))
    task.classifier.text_encoder.register_forward_hook(lambda *_: calls.append("text"))
    logits = by_view(task, random_batch())
    assert sorted(calls) == ["image", "text"]
    assert set(logits) == {"complete", "no_image", "no_text"}


def test_only_what_is_present_goes_through_an_encoder(text_folder: Path) -> None:
    """And whatever stands in the absent rows' place, the answers are those of encoding row by row."""
    task, batch = make_task(text_folder).eval(), random_batch()
    seen: dict[str, int] = {}
    task.classifier.image_encoder.register_forward_hook(lambda _, args, __: seen.update(image=len(args[0])))
    task.classifier.text_encoder.register_forward_hook(lambda _, args, __: seen.update(text=len(args[0])))
    together = task.classifier.logits(batch, [View()])[0]
    assert seen == {"image": 4, "text": 4}
    pixels, tokens = batch.images["clean"], batch.texts["clean"]
    assert isinstance(pixels, torch.Tensor)
    assert isinstance(tokens, Tokens)
    images, texts, masks = (iter(t.split(1)) for t in (pixels, tokens.input_ids, tokens.attention_mask))
    for row, logits in enumerate(together):
        one = batch.map(lambda tensor, row=row: tensor[row : row + 1])  # type: ignore[misc]
        none = Tokens(torch.zeros(0, 0, dtype=torch.int64), torch.zeros(0, 0, dtype=torch.bool))
        nothing = torch.zeros(0, 3, 32, 32, dtype=torch.uint8)
        one.images = Variants(["clean"], next(images) if one.image_present else nothing)
        one.texts = Variants(["clean"], Tokens(next(texts), next(masks)) if one.text_present else none)
        torch.testing.assert_close(task.classifier.logits(one, [View()])[0, 0], logits)


def test_conditions_withhold_their_modality(text_folder: Path) -> None:
    """Under no_image the image does not matter, and rows without one answer as under complete."""
    task = make_task(text_folder).eval()
    batch = random_batch()
    logits = by_view(task, batch)
    changed = random_batch()
    changed.texts, changed.text_present = batch.texts, batch.text_present
    other = by_view(task, changed)
    assert torch.equal(logits["no_image"], other["no_image"])
    assert not torch.equal(logits["no_text"], other["no_text"])
    torch.testing.assert_close(logits["no_image"][1], logits["complete"][1])
    torch.testing.assert_close(logits["no_text"][2], logits["complete"][2])
    prior = torch.tensor(FACTS.class_frequencies).log()
    for name, row in (("complete", 3), ("no_image", 2), ("no_text", 1)):
        torch.testing.assert_close(logits[name][row], prior)


def test_only_the_network_is_trained(text_folder: Path) -> None:
    task = make_task(text_folder)
    assert {parts(name) for name, p in task.named_parameters() if p.requires_grad} == {"classifier.network"}
    task.training_losses(random_batch(), 0).loss.backward()
    assert all((p.grad is not None) == p.requires_grad for p in task.parameters())


def test_an_encoder_that_gave_its_memory_back_computes_again(
    text_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When it is needed after all, in its old precision; unless its weights have changed on disk."""
    task, batch = make_task(text_folder).double().eval(), random_batch()
    expected = by_view(task, batch)
    for encoder in (task.classifier.image_encoder, task.classifier.text_encoder):
        encoder.release()
        assert not list(encoder.parameters())
    assert {parts(key) for key in saved(task)["state_dict"]} == STORED
    for name, logits in by_view(task, batch).items():
        assert torch.equal(logits, expected[name])
    task.classifier.image_encoder.release()
    task.classifier.image_encoder.sha256 = "of others"
    with pytest.raises(RobustTuneError, match="the weights of 'test_vit' have changed since: start again"):
        by_view(task, batch)


def test_a_checkpoint_holds_no_encoder_and_only_plain_data(text_folder: Path, tmp_path: Path) -> None:
    encoder = tiny_image_encoder(mean=(0.4, 0.5, 0.5))
    task = make_task(text_folder, image_encoder=encoder, correlation_momentum=0.5)
    checkpoint = saved(task)
    assert {parts(key) for key in checkpoint["state_dict"]} == STORED
    torch.save(checkpoint, tmp_path / "task.ckpt")
    again = FusionTask.load_from_checkpoint(tmp_path / "task.ckpt")
    assert settings_of(again) == settings_of(task)
    assert again.facts == task.facts
    assert not again.training
    batch = random_batch()
    for mine, theirs in zip(
        by_view(task.eval(), batch).values(),
        by_view(again, batch).values(),
        strict=True,
    ):
        assert torch.equal(mine, theirs)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"beta": 0.5}, "model.beta 0.5, not 0.1"),
        (
            {"fusion": MoLT(common_width=32, bilinear_width=8, fusion_width=16, cca_dim=2)},
            "model.fusion.common_width 32",
        ),
        ({"image_encoder": tiny_image_encoder(grid=1)}, "image_encoder.grid 1, not 2"),
        ({"image_encoder": tiny_image_encoder(model_args={"depth": 7}, layers=[3, 6])}, "image_encoder.layers"),
    ],
)
def test_settings_that_contradict_a_checkpoint_are_refused(
    text_folder: Path, changes: dict[str, Any], message: str
) -> None:
    checkpoint = saved(make_task(text_folder))
    with pytest.raises(RobustTuneError, match=f"contradicts the settings.*{message}"):
        make_task(text_folder, **changes).on_load_checkpoint(checkpoint)


def test_other_encoder_weights_are_refused(text_folder: Path) -> None:
    checkpoint = saved(make_task(text_folder))
    checkpoint[KEY]["sha256"]["text_encoder"] = "0" * 64
    with pytest.raises(RobustTuneError, match="the weights of text_encoder are not those it was trained with"):
        make_task(text_folder).on_load_checkpoint(checkpoint)


def test_another_tokenizer_is_refused(text_folder: Path) -> None:
    checkpoint = saved(make_task(text_folder))
    checkpoint[KEY]["inputs"]["text_encoder"]["tokenizer"] = "0" * 64
    with pytest.raises(RobustTuneError, match=r"inputs\.text_encoder\.tokenizer"):
        make_task(text_folder).on_load_checkpoint(checkpoint)


def test_classes_in_another_order_are_refused(text_folder: Path) -> None:
    checkpoint = saved(make_task(text_folder))
    with pytest.raises(RobustTuneError, match="in another order"):
        make_task(text_folder, FACTS._replace(class_names=["b", "a", "c"])).on_load_checkpoint(checkpoint)


def test_a_moved_encoder_folder_is_not_a_contradiction(text_folder: Path, tmp_path: Path) -> None:
    checkpoint = saved(make_task(text_folder))
    moved = tmp_path / "elsewhere"
    moved.symlink_to(text_folder)
    make_task(text_folder, text_encoder=tiny_text_encoder(moved)).on_load_checkpoint(checkpoint)


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path("/tmp/robusttune-was-executed").touch, ())


def test_files_that_are_no_checkpoints_are_refused(text_folder: Path, tmp_path: Path) -> None:
    torch.save(saved(make_task(text_folder)), tmp_path / "good.ckpt")
    good = (tmp_path / "good.ckpt").read_bytes()
    torch.save({"state_dict": {}}, tmp_path / "foreign.ckpt")
    torch.save({KEY: Evil()}, tmp_path / "hostile.ckpt")
    (tmp_path / "truncated.ckpt").write_bytes(good[: len(good) // 2])
    (tmp_path / "empty.ckpt").touch()
    (tmp_path / "text.ckpt").write_text("no checkpoint")
    for name, message in {
        "none": "does not exist",
        "foreign": "is no checkpoint of robusttune",
        "hostile": "holds more than tensors and plain data",
        "truncated": "damaged",
        "empty": "damaged",
        "text": "tensors and plain data|damaged",
    }.items():
        with pytest.raises(RobustTuneError, match=message):
            read_checkpoint(tmp_path / f"{name}.ckpt")
    assert not Path("/tmp/robusttune-was-executed").exists()


def test_warns_once_of_few_pairs_naming_the_settings(text_folder: Path) -> None:
    task = make_task(text_folder)
    with pytest.warns(UserWarning, match="3 complete pairs .* in 2 dimensions: raise data.batch_size, or lower"):
        task.training_losses(random_batch(6), 0)
    task.training_losses(random_batch(6), 0)


@pytest.mark.parametrize(
    "changes", [{"alpha": -1}, {"beta": -0.1}, {"correlation_momentum": 1.0}, {"schedule": ("cosine", 2.0)}]
)
def test_settings_out_of_range_are_refused(text_folder: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(RobustTuneError):
        make_task(text_folder, **{k: cast("Any", Schedule(*v)) if k == "schedule" else v for k, v in changes.items()})


def test_dropout_is_a_function_of_seed_epoch_and_batch(text_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = make_task(text_folder)

    def draw(batch_idx: int, seed: str) -> Tensor:
        monkeypatch.setenv("PL_GLOBAL_SEED", seed)
        task.on_train_batch_start(random_batch(), batch_idx)
        return torch.rand(3)

    first = draw(0, "0")
    assert torch.equal(draw(0, "0"), first)
    assert not torch.equal(draw(1, "0"), first)
    assert not torch.equal(draw(0, "1"), first)
