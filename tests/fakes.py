"""Tiny encoders, models, batches, files and command-line flags for the tests."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from dishes import DISHES
from PIL import Image

from robusttune.corruption.noise import ImageNoise, NoiseBySplit, SplitNoise, TextNoise
from robusttune.data import CacheSettings, EvaluationSettings, LoaderSettings, TrainingSettings
from robusttune.encoders import TimmEncoder, TransformersTextEncoder
from robusttune.tasks import RobustTask
from robusttune.types import Batch, Encoded, Facts, Tokens, Variants, View

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

TWO_TOWERS = ("clip", "siglip", "siglip2", "chinese_clip")
VISION = ("vit", "deit", "beit", "dinov2", "dinov2_with_registers", "siglip_vision_model", "clip_vision_model", "yolos")
NOISY = NoiseBySplit(train=SplitNoise(ImageNoise(["gaussian"]), TextNoise(["deletion"])))
FACTS = Facts(["a", "b", "c"], [0.5, 0.3, 0.2], False)
VIEWS = {"complete": View(), "no_image": View(image=None), "no_text": View(text=None)}

KINDS: dict[str, Callable[..., Any]] = {
    "loader": LoaderSettings,
    "training": TrainingSettings,
    "evaluation": EvaluationSettings,
    "cache": CacheSettings,
}
GROUPS = {  # short names of settings in groups of the data module
    "workers": ("loader", "workers"),
    "modality_dropout": ("training", "modality_dropout"),
    "augmentation": ("training", "augmentation"),
    "conditions": ("evaluation", "conditions"),
    "classes": ("evaluation", "classes"),
    "folder": ("cache", "folder"),
    "dtype": ("cache", "dtype"),
    "views": ("cache", "views"),
}


def by_view(task: RobustTask, batch: Batch, views: Mapping[str, View] = VIEWS) -> dict[str, torch.Tensor]:
    """Return the task's logits for each view by the view's name, each of shape (B, C)."""
    return dict(zip(views, task.classifier.logits(batch, list(views.values())), strict=True))


def parts(key: str, count: int = 2) -> str:
    """Return the first ``count`` parts of a key of a state dict, such as ``classifier.network``."""
    return ".".join(key.split(".")[:count])


def tiny_image_encoder(**changes: Any) -> TimmEncoder:
    """Return the settings of a small timm encoder with random weights; ``changes`` replace some of them."""
    settings: dict[str, Any] = {"name": "test_vit", "weights": "random", "layers": 2, "grid": 2, "size": 32}
    return TimmEncoder(**(settings | changes))


def tiny_text_encoder(folder: Path, **changes: Any) -> TransformersTextEncoder:
    """Return the settings of a small text encoder that is loaded from a folder; ``changes`` replace some of them."""
    settings: dict[str, Any] = {"name": str(folder), "layers": 2, "max_length": 16}
    return TransformersTextEncoder(**(settings | changes))


def tiny_flags(food101: Path, text_folder: Path) -> list[str]:
    """Return flags that replace the encoders, the model's sizes and the data of a shipped configuration by tiny ones.

    Args:
        food101: Folder of the data. The flag for it is left out if the folder has another name.
        text_folder: Folder of the text encoder.
    """
    return [
        "--image_encoder.name=test_vit",
        "--image_encoder.weights=random",
        "--image_encoder.layers=2",
        "--image_encoder.grid=2",
        "--image_encoder.size=32",
        f"--text_encoder.name={text_folder}",
        "--text_encoder.weights=pretrained",
        "--text_encoder.layers=2",
        "--text_encoder.max_length=16",
        "--model.fusion.common_width=16",
        "--model.fusion.bilinear_width=16",
        "--model.fusion.fusion_width=32",
        "--model.fusion.cca_dim=4",
        *_run_flags(food101),
    ]


def mmrl_flags(food101: Path, clip_folder: Path) -> list[str]:
    """Return the flags of `tiny_flags` for an MMRL configuration, with a tiny CLIP from a folder."""
    return [
        *clip_flags(clip_folder, 3),
        "--model.adapter.space_width=8",
        '--model.templates=["{}"]',
        *_run_flags(food101),
    ]


def method_flags(food101: Path, clip_folder: Path, method: str) -> list[str]:
    """Return the flags of `tiny_flags` for an overlay of ``methods``, with a tiny CLIP of four layers from a folder.

    Args:
        food101: Folder of the data, see `tiny_flags`.
        clip_folder: Folder of the CLIP.
        method: Name of the overlay, such as ``dcp``.
    """
    prompted, updated = method in ("dcp", "dpl_dcp"), method.startswith(("mora", "lora"))
    return [
        *clip_flags(clip_folder, 1 if prompted else 3 if updated else 5),
        *(["--model.fusion.prompts=6", "--model.fusion.depth=2"] if prompted else []),
        *_run_flags(food101),
    ]


def clip_flags(clip_folder: Path, first_layer: int) -> list[str]:
    """Return flags for the towers of a tiny CLIP from a folder, from one of their layers on."""
    settings = (f"name={clip_folder}", f"first_layer={first_layer}")
    towers = [f"--{modality}_encoder.{setting}" for modality in ("image", "text") for setting in settings]
    return [*towers, "--text_encoder.max_length=16"]


def _run_flags(food101: Path) -> list[str]:
    """Return flags for one quiet epoch on the CPU."""
    return [
        "--data.batch_size=32",
        "--data.loader.workers=0",
        "--trainer.accelerator=cpu",
        "--trainer.max_epochs=1",
        "--trainer.enable_progress_bar=false",
        "--trainer.enable_model_summary=false",
    ] + ([f"--data.source.root={food101}"] if food101.name == "food101" else [])


def write_table(folder: Path, split: str, rows: list[dict[str, Any]]) -> Path:
    """Write a table of samples as ``<split>.jsonl`` and return its path."""
    path = folder / f"{split}.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def write_image(path: Path, size: tuple[int, int] = (40, 30), colour: str = "red", **options: Any) -> Path:
    """Write an image of one colour and return its path; ``options`` are those of Pillow's `Image.save`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path, **options)
    return path


def write_bomb(path: Path) -> Path:
    """Write a PNG of less than 100 bytes whose header claims 400 million pixels, and return its path."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        """Return a PNG chunk with its length and checksum."""
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 20_000, 20_000, 8, 2, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b""))
    return path


def random_encoded(batch: int, widths: tuple[int, ...], pooled: int, tokens: int = 5) -> Encoded:
    """Return a random encoder output without padding tokens.

    Args:
        batch: Number of samples B.
        widths: Width of each layer.
        pooled: Width of the pooled features.
        tokens: Number of tokens per sample.
    """
    return Encoded(
        torch.randn(batch, pooled),
        [torch.randn(batch, tokens, width) for width in widths],
        [torch.ones(batch, tokens, dtype=torch.bool)] * len(widths),
    )


def random_batch(
    size: int = 6, classes: int = 3, side: int = 32, multilabel: bool = False, complete: bool = False
) -> Batch:
    """Return a batch of random images, texts and labels of 3 classes.

    Args:
        size: Number of samples, at least 4 unless ``complete``.
        classes: Unused; there are always 3 classes.
        side: Edge length of the images in pixels.
        multilabel: Flag for labels of shape (size, 3) with 0 or 1 in place of class indices of shape (size,).
        complete: Flag for samples that all have both modalities. Otherwise row 1 has no image, row 2 no text, and row
            3 neither.
    """
    present = torch.ones(2, size, dtype=torch.bool)
    if not complete:
        present[0, 1] = present[1, 2] = present[0, 3] = present[1, 3] = False
    label = torch.rand(size, 3).round() if multilabel else torch.randint(3, (size,))
    images = torch.randint(0, 256, (size, 3, side, side), dtype=torch.uint8)
    tokens = Tokens(torch.randint(5, 30, (size, 7)), torch.arange(7) < torch.randint(2, 8, (size, 1)))
    return Batch(
        images=Variants(["clean"], images[present[0]]),
        texts=Variants(["clean"], tokens.map(lambda tensor: tensor[present[1]])),
        image_present=present[0],
        text_present=present[1],
        label=label,
        counted=torch.ones(size, dtype=torch.bool),
        sample_id=[str(i) for i in range(size)],
        split="train",
        unreadable=[],
        cut=[],
    )


def clip_words() -> list[str]:
    """Return the vocabulary of the tiny CLIP and SigLIP: special tokens, words of prompts, and names of classes."""
    words = ["<start>", "<end>", "<unk>", "a", "photo", "of", "apple", "pie", "soup", "cake"]
    words += ["pug", "Abyssinian", "cat", "leonberger", "Spitfire", "Boeing", "F", "tench", "crane", "maillot"]
    return words + sorted({word for dish in DISHES for word in dish.split("_")} - {*words})


def write_clip_tokenizer(folder: Path, template: str) -> None:
    """Write a tokenizer that splits texts into words.

    Args:
        folder: Folder to write to.
        template: Text with its special tokens, such as ``<start> $A <end>``.
    """
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(clip_words())}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(template, special_tokens=[("<start>", 0), ("<end>", 1)])
    special = {"bos_token": "<start>", "eos_token": "<end>", "pad_token": "<end>", "unk_token": "<unk>"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=16, **special).save_pretrained(folder)


def write_clip(folder: Path, text_layers: int = 4) -> None:
    """Write a CLIP with seeded random weights, its image processor and its tokenizer to a folder.

    The vision tower has 4 layers. Images have 32 x 32 pixels in patches of 8 x 8. The tokenizer splits texts into words
    and has CLIP's special tokens.
    """
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel

    write_clip_tokenizer(folder, "<start> $A <end>")
    tower = {"intermediate_size": 64, "num_hidden_layers": 4, "num_attention_heads": 2}
    text = {"hidden_size": 32, "vocab_size": len(clip_words()), "max_position_embeddings": 16, "bos_token_id": 0}
    vision = {"hidden_size": 48, "image_size": 32, "patch_size": 8}
    config = CLIPConfig(
        text_config={**tower, **text, "num_hidden_layers": text_layers, "eos_token_id": 1, "pad_token_id": 1},
        vision_config={**tower, **vision},
        projection_dim=16,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        CLIPModel(config).save_pretrained(folder)
    CLIPImageProcessor(size={"shortest_edge": 36}, crop_size={"height": 32, "width": 32}).save_pretrained(folder)


def write_siglip(folder: Path, **vision: Any) -> None:
    """Write a SigLIP with seeded random weights, its image processor and its tokenizer to a folder.

    Its sizes are those of `write_clip`, but the two towers share an embedding space as wide as the vision tower. Texts
    end with one special token, and have none at their beginning.

    Args:
        folder: Folder to write to.
        vision: Settings of the vision tower that replace the tiny ones.
    """
    from transformers import SiglipConfig, SiglipImageProcessor, SiglipModel

    write_clip_tokenizer(folder, "$A <end>")
    tower = {"intermediate_size": 64, "num_hidden_layers": 4, "num_attention_heads": 2}
    text = {"hidden_size": 32, "projection_size": 48, "vocab_size": len(clip_words()), "max_position_embeddings": 16}
    config = SiglipConfig(
        text_config={**tower, **text, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1},
        vision_config={**tower, "hidden_size": 48, "image_size": 32, "patch_size": 8, **vision},
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = SiglipModel(config)
        for weights in model.parameters():  # the biases, which are zeros otherwise, take part in what is tested
            weights.data.add_(0.05 * torch.randn_like(weights))
        model.logit_scale.data.fill_(3.0)
        model.logit_bias.data.fill_(-5.0)
        model.save_pretrained(folder)
    SiglipImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)


def word_tokenizer(max_length: int | None = None, padding_side: str = "right") -> PreTrainedTokenizerFast:
    """Return a word tokenizer with the special tokens ``<s>``, ``<pad>``, ``<unk>``, ``</s>``.

    Args:
        max_length: Most tokens in a text; None for a tokenizer without a limit.
        padding_side: Position of the padding, ``left`` or ``right``.
    """
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = sorted({word for dish in DISHES for word in dish.split("_")} | {"a", "photo", "of", "the", "recipe"})
    special = {"bos_token": "<s>", "pad_token": "<pad>", "unk_token": "<unk>", "eos_token": "</s>"}
    vocabulary = {word: number for number, word in enumerate([*special.values(), *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing("<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 3)])
    limit = {"model_max_length": max_length} if max_length else {}
    settings: dict[str, Any] = {"padding_side": padding_side} | limit
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special, **settings)


def write_model(folder: Path, model_type: str, **changes: Any) -> Path:
    """Write a tiny model of transformers with seeded random weights, without a tokenizer, and return its folder.

    Args:
        folder: Folder to write to.
        model_type: Name of the model's type in transformers, such as ``bert``.
        changes: Configuration settings that replace the tiny ones.
    """
    from transformers import AutoConfig, AutoModel

    size = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
    text = {**size, "vocab_size": len(word_tokenizer()), "bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 3}
    vision = {**size, "image_size": 32, "patch_size": 8}
    if model_type in TWO_TOWERS:
        text |= {"max_position_embeddings": 16} | changes
        settings: dict[str, Any] = {"text_config": text, "vision_config": vision}
    elif model_type in VISION:
        settings = vision | changes
    else:
        settings = text | changes
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AutoModel.from_config(AutoConfig.for_model(model_type, **settings))
        for weights in model.parameters():  # larger weights make the output depend clearly on the input
            weights.data.add_(0.1 * torch.randn_like(weights))
    model.save_pretrained(folder)
    return folder


def grouped(**settings: Any) -> dict[str, Any]:
    """Return arguments of `ImageTextDataModule`, with the settings of its groups gathered from short names.

    Args:
        settings: Arguments of the data module, or settings of a group by their short names (see `GROUPS`).

    Example:
        >>> grouped(workers=0, seed=1)
        {'seed': 1, 'loader': LoaderSettings(workers=0, prefetch=2)}
    """
    groups: dict[str, dict[str, Any]] = {}
    for name in [name for name in settings if name in GROUPS]:
        group, setting = GROUPS[name]
        groups.setdefault(group, {})[setting] = settings.pop(name)
    return settings | {group: KINDS[group](**values) for group, values in groups.items()}
