"""Train the CLIP in this folder: contrastive training on scenes and captions that are generated on the fly.

`make pretrain-demo`, or `python -m robusttune.demo_clip.pretrain --config FILE --out FOLDER`
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonargparse
import numpy as np
import tokenizers
import torch
from lightning.pytorch import LightningModule, Trainer, seed_everything
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, PreTrainedTokenizerFast, get_scheduler

from robusttune.corruption.dropout import sample_generator
from robusttune.corruption.noise.text import drop_words
from robusttune.data.sources.shapes import Shapes, Visibility, World
from robusttune.data.sources.shapes.caption import CLOSINGS, OPENINGS, SENTENCES, WORDS
from robusttune.data.sources.shapes.drawing import SIDE, STYLES, StyleName

HERE = Path(__file__).parent
PROMPT = "a drawing of the {}"
SPLIT = "pretrain"  # no data set has a split of this name, so its samples differ from those of all data sets


@dataclass(frozen=True)
class Settings:
    """The settings of the pretraining.

    Args:
        seed: Seed of the weights and of the scenes.
        steps: Number of optimizer steps.
        batch_size: Number of image-text pairs per step; the pairs of a batch are each other's negatives.
        learning_rate: Learning rate at the end of the warm-up; it then falls to 0 along a cosine.
        warmup: Number of steps while the learning rate rises linearly from 0.
        weight_decay: Weight decay of matrices; vectors and scalars have none.
        word_dropout: Mean probability that a word of a caption is left out, in [0, 0.5]. The probability for a caption
            is drawn uniformly between 0 and twice this value.
        world: World that generates the scenes.
        styles: Drawing styles, which the scenes use alternately.
        vocabulary: Most tokens in the vocabulary.
        context: Most tokens in a text.
        projection: Width of the shared embedding space of images and texts.
        patch: Edge length of a patch in pixels.
        measured: Number of images for each zero-shot accuracy, i.e. for each style and set of classes.
        vision: Settings of the image tower, with the names of transformers' `CLIPVisionConfig`.
        text: Settings of the text tower, with the names of transformers' `CLIPTextConfig`.
    """

    seed: int
    steps: int
    batch_size: int
    learning_rate: float
    warmup: int
    weight_decay: float
    word_dropout: float
    world: World
    styles: list[StyleName]
    vocabulary: int
    context: int
    projection: int
    patch: int
    measured: int
    vision: dict[str, Any]
    text: dict[str, Any]


class Pairs(Dataset[dict[str, Tensor]]):
    """A data set whose items are batches of images and tokenised captions.

    A batch is a pure function of the settings and its number. Each scene is generated anew and used once.

    Args:
        settings: Settings of the pretraining.
        tokenizer: Tokenizer of the captions.
    """

    def __init__(self, settings: Settings, tokenizer: PreTrainedTokenizerFast) -> None:
        self.settings = settings
        self.shapes = [Shapes(settings.world, style, seed=settings.seed) for style in settings.styles]
        self.tokenizer = tokenizer

    def __len__(self) -> int:
        return self.settings.steps

    def __getitem__(self, step: int) -> dict[str, Tensor]:
        """Return the batch of a step.

        Returns:
            ``pixel_values`` of shape (B, 3, 64, 64) in [-1, 1], and ``input_ids`` and ``attention_mask`` of shape
            (B, n), where n is the length of the longest caption in tokens.
        """
        size = self.settings.batch_size
        indices = range(step * size, (step + 1) * size)
        drawn = [self._source(index).draw(SPLIT, index) for index in indices]
        texts = self.tokenizer([self._text(index) for index in indices], padding=True, return_tensors="pt")
        return {"pixel_values": to_pixels(drawn), **texts}

    def _source(self, index: int) -> Shapes:
        return self.shapes[index % len(self.shapes)]

    def _text(self, index: int) -> str:
        """Return the caption of a scene with some words left out."""
        rng = sample_generator(self.settings.seed, 0, f"{SPLIT}/{index}", "words")
        return drop_words(self._source(index).caption(SPLIT, index), self.settings.word_dropout * 2 * rng.random(), rng)


class Pretraining(LightningModule):
    """The training of a CLIP with its symmetric contrastive loss (Radford et al. 2021, arXiv 2103.00020).

    Args:
        settings: Settings of the pretraining.
        model: CLIP to train.
    """

    def __init__(self, settings: Settings, model: CLIPModel) -> None:
        super().__init__()
        self.settings = settings
        self.model = model

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        """Return the contrastive loss of a batch, a scalar."""
        loss: Tensor = self.model(**batch, return_loss=True).loss
        self.log("loss", loss.detach(), prog_bar=True)
        return loss

    def on_train_batch_end(self, *_: Any) -> None:
        """Limit the factor of the logits to 100, as CLIP does for stability."""
        self.model.logit_scale.data.clamp_(max=np.log(100.0))

    def configure_optimizers(self) -> Any:
        """Return AdamW, with weight decay on matrices only, and a cosine schedule with warm-up."""
        decayed = [p for p in self.parameters() if p.ndim > 1]
        others = [p for p in self.parameters() if p.ndim <= 1]
        groups = [
            {"params": decayed, "weight_decay": self.settings.weight_decay},
            {"params": others, "weight_decay": 0.0},
        ]
        optimizer = torch.optim.AdamW(groups, lr=self.settings.learning_rate, betas=(0.9, 0.98))
        schedule = get_scheduler("cosine", optimizer, self.settings.warmup, self.settings.steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def to_pixels(images: Sequence[Image.Image]) -> Tensor:
    """Convert RGB images to the model's input.

    Args:
        images: B images of 64 x 64 pixels.

    Returns:
        Pixels, shape (B, 3, 64, 64), float32 in [-1, 1].

    Example:
        >>> to_pixels([Image.new("RGB", (64, 64), "white")]).shape
        torch.Size([1, 3, 64, 64])
    """
    return torch.from_numpy(np.stack([np.asarray(image) for image in images])).permute(0, 3, 1, 2).float() / 127.5 - 1


def make_tokenizer(settings: Settings) -> PreTrainedTokenizerFast:
    """Train a tokenizer with byte-pair encoding on bytes.

    No text is out of its vocabulary, and each word of the captions is one token.

    Args:
        settings: Settings with ``vocabulary`` and ``context``.
    """
    backend = tokenizers.Tokenizer(tokenizers.models.BPE())
    backend.normalizer = tokenizers.normalizers.Lowercase()
    backend.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=True)
    backend.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=settings.vocabulary,
        special_tokens=["<start>", "<end>"],
        initial_alphabet=sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    backend.train_from_iterator(
        [*OPENINGS, *CLOSINGS, *(s.replace("{", "").replace("}", "") for s in SENTENCES), *WORDS], trainer
    )
    backend.post_processor = tokenizers.processors.TemplateProcessing(
        "<start> $A <end>", special_tokens=[("<start>", 0), ("<end>", 1)]
    )
    special = {"bos_token": "<start>", "eos_token": "<end>", "pad_token": "<end>", "unk_token": "<end>"}
    # Earlier releases of transformers have other defaults, so all of these settings are written to the file.
    defaults = {
        "model_max_length": settings.context,
        "model_input_names": ["input_ids", "attention_mask"],
        "clean_up_tokenization_spaces": False,
        "add_prefix_space": True,
    }
    return PreTrainedTokenizerFast(tokenizer_object=backend, **defaults, **special)


def make_model(settings: Settings, tokens: int) -> CLIPModel:
    """Create a CLIP with random weights.

    Args:
        settings: Settings with the sizes of the model.
        tokens: Size of the tokenizer's vocabulary.
    """
    special = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
    config = CLIPConfig(
        text_config={**settings.text, **special, "vocab_size": tokens, "max_position_embeddings": settings.context},
        vision_config={**settings.vision, "image_size": SIDE, "patch_size": settings.patch},
        projection_dim=settings.projection,
    )
    return CLIPModel(config)


def zero_shot(model: CLIPModel, tokenizer: PreTrainedTokenizerFast, shapes: Shapes, images: int) -> float:
    """Measure the zero-shot accuracy with one prompt per class.

    Args:
        model: CLIP on the CPU, in eval mode.
        tokenizer: Tokenizer of the model.
        shapes: Data source whose test scenes are classified among its classes.
        images: Number of test scenes.

    Returns:
        Accuracy in [0, 1].
    """
    names = shapes.world.class_names
    prompts = tokenizer([PROMPT.format(name) for name in names], padding=True, return_tensors="pt")
    pixels = to_pixels([shapes.draw("test", index) for index in range(images)])
    labels = [shapes.world.scene(shapes.seed, "test", index).label for index in range(images)]
    with torch.inference_mode():
        predicted = model(pixel_values=pixels, **prompts).logits_per_image.argmax(1)
    return float((predicted == torch.tensor(labels)).float().mean())


def pretrain(settings: Settings, out: Path) -> None:
    """Train a CLIP, and write it, its tokenizer, its preprocessing and its zero-shot accuracies to a folder.

    Args:
        settings: Settings of the pretraining.
        out: Folder to write to. It is created if it does not exist.
    """
    seed_everything(settings.seed)
    out.mkdir(parents=True, exist_ok=True)
    tokenizer = make_tokenizer(settings)
    task = Pretraining(settings, make_model(settings, len(tokenizer)))
    trainer = Trainer(
        max_epochs=1,
        devices=1,
        gradient_clip_val=1.0,
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
    )
    # On a GPU, drawing the scenes takes longest, so worker processes do it.
    workers = len(os.sched_getaffinity(0)) if trainer.strategy.root_device.type != "cpu" else 0
    trainer.fit(task, DataLoader(Pairs(settings, tokenizer), batch_size=None, num_workers=workers))
    model = task.model.cpu().half()
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    CLIPImageProcessor(
        size={"shortest_edge": SIDE},
        crop_size={"height": SIDE, "width": SIDE},
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
    ).save_pretrained(out)
    _name_any_tokenizer(out / "tokenizer_config.json")
    measure(model.float().eval(), tokenizer, out, settings.measured)


def _name_any_tokenizer(path: Path) -> None:
    """Replace the tokenizer class in a configuration file by one that all releases of transformers know.

    Release 5 of transformers writes a class that earlier releases do not have.
    """
    config = json.loads(path.read_text())
    config["tokenizer_class"] = "PreTrainedTokenizerFast"
    config.pop("backend", None)
    path.write_text(json.dumps(config, indent=2) + "\n")


def measure(model: CLIPModel, tokenizer: PreTrainedTokenizerFast, out: Path, images: int) -> None:
    """Measure the zero-shot accuracy for each style and set of classes, and write ``zero_shot.json``.

    The measured scenes hide nothing, neither in the image nor in the text.

    Args:
        model: CLIP on the CPU, in eval mode.
        tokenizer: Tokenizer of the model.
        out: Existing folder to write to.
        images: Number of scenes for each accuracy.
    """
    results = {}
    for style in STYLES:
        for part in ("base", "new"):
            world = World(part=part, visibility=Visibility(image=0, text=0, both=1))
            shapes = Shapes(world=world, style=style)
            accuracy, chance = zero_shot(model, tokenizer, shapes, images), 1 / len(world.class_names)
            results[f"{style}, {part}"] = {"accuracy": accuracy, "chance": chance}
            print(f"{style}, {part} classes: accuracy {accuracy:.3f}, chance {chance:.3f}")  # noqa: T201
    (out / "zero_shot.json").write_text(json.dumps(results, indent=2) + "\n")


def main() -> None:
    """Read the settings from the command line and train the CLIP."""
    parser = jsonargparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", action="config")
    parser.add_argument("--out", type=Path, default=HERE, help="folder to write to")
    parser.add_class_arguments(Settings)
    arguments = parser.instantiate(parser.parse_args())
    out = arguments.pop("out")
    del arguments["config"]
    pretrain(Settings(**arguments.as_dict()), out)


if __name__ == "__main__":
    main()
