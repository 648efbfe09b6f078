"""A small drawn data set in the layout of UPMC Food-101, and a tiny random text encoder that knows its words."""

from __future__ import annotations

import csv
import random
from pathlib import Path

from PIL import Image, ImageDraw

# Colour, shape and title words of each dish.
DISHES = {
    "apple_pie": ("#d9a441", "ellipse", ["apple", "pie", "crust", "cinnamon"]),
    "beet_salad": ("#8e2452", "ellipse", ["beet", "salad", "goat cheese", "walnuts"]),
    "caesar_salad": ("#7cae4f", "ellipse", ["caesar", "salad", "romaine", "croutons"]),
    "carrot_cake": ("#d9823b", "rectangle", ["carrot", "cake", "frosting", "layers"]),
    "cheesecake": ("#f1e2a8", "rectangle", ["cheesecake", "cream", "berries", "no-bake"]),
    "chocolate_cake": ("#4a2c1a", "rectangle", ["chocolate", "cake", "ganache", "moist"]),
    "guacamole": ("#9fbf3b", "rectangle", ["guacamole", "avocado", "lime", "dip"]),
    "miso_soup": ("#c8b48a", "ellipse", ["miso", "soup", "tofu", "seaweed"]),
    "pho": ("#a8743f", "ellipse", ["pho", "noodles", "broth", "vietnamese"]),
    "ramen": ("#e8c65a", "triangle", ["ramen", "noodles", "pork", "egg"]),
    "red_velvet_cake": ("#b0182b", "rectangle", ["red velvet", "cake", "cream cheese", "beetroot"]),
    "tacos": ("#e0b03a", "triangle", ["tacos", "salsa", "tortilla", "street"]),
}
FILLERS = [
    "recipe",
    "easy",
    "the best",
    "how to make",
    "homemade",
    "| Food Blog",
    "- Allrecipes",
    "Mom&#39;s",
    "quick &amp; easy",
]


def write_food101(root: Path, per_class: dict[str, int], seed: int, size: int = 96) -> None:
    """Write images and title files in the layout of UPMC Food-101.

    On average one title in twenty is blank, and one photo in ten is grey noise.

    Args:
        root: Folder that will contain ``images`` and ``texts``.
        per_class: Number of samples per dish by split.
        seed: Random seed; the same seed gives the same files.
        size: Edge length of the images in pixels.
    """
    rng = random.Random(seed)
    (root / "texts").mkdir(parents=True)
    for split, samples in per_class.items():
        rows = []
        for dish in DISHES:
            folder = root / "images" / split / dish
            folder.mkdir(parents=True)
            for number in range(samples):
                name = f"{dish}_{number}.jpg"
                draw_dish(dish, size, rng).save(folder / name, quality=90)
                rows.append((name, "" if rng.random() < 0.05 else make_title(dish, rng), dish))
        rng.shuffle(rows)
        with (root / "texts" / f"{split}_titles.csv").open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows(rows)


def draw_dish(dish: str, size: int, rng: random.Random) -> Image.Image:
    """Draw a plate with the dish's shape in its colour at a random position; one time in ten, draw grey noise."""
    if rng.random() < 0.1:
        return Image.frombytes("L", (size, size), rng.randbytes(size * size)).convert("RGB")
    table = tuple(rng.randint(60, 200) for _ in range(3))
    image = Image.new("RGB", (size, size), table)
    draw = ImageDraw.Draw(image)
    draw.ellipse([size * 0.08, size * 0.08, size * 0.92, size * 0.92], fill="#f4f1ea")
    colour, shape, _ = DISHES[dish]
    radius = size * rng.uniform(0.18, 0.28)
    x, y = (size * rng.uniform(0.42, 0.58) for _ in range(2))
    box = [x - radius, y - radius, x + radius, y + radius]
    if shape == "triangle":
        draw.polygon([(box[0], box[3]), (box[2], box[3]), (x, box[1])], fill=colour)
    elif shape == "rectangle":
        draw.rectangle(box, fill=colour)
    else:
        draw.ellipse(box, fill=colour)
    return image


def make_title(dish: str, rng: random.Random) -> str:
    """Return a title with some of the dish's words among filler words; one title in ten has only filler words."""
    words = [] if rng.random() < 0.1 else rng.sample(DISHES[dish][2], rng.randint(2, 3))
    words += rng.sample(FILLERS, rng.randint(1, 3))
    rng.shuffle(words)
    return " ".join(words).capitalize()


def write_text_encoder(folder: Path, width: int = 64, layers: int = 4) -> None:
    """Write a small BERT with seeded random weights, and a word-piece tokenizer that knows the words of the titles.

    Args:
        folder: Folder to write to.
        width: Width of the hidden states.
        layers: Number of layers.
    """
    import torch
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    normalizer, splitter = normalizers.BertNormalizer(lowercase=True), pre_tokenizers.BertPreTokenizer()
    texts = [" ".join(words) for _, _, words in DISHES.values()] + FILLERS
    split = [splitter.pre_tokenize_str(normalizer.normalize_str(text)) for text in texts]
    words = sorted({word for pieces in split for word, _ in pieces})
    letters = sorted({letter for word in words for letter in word})
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    # The vocabulary is fixed, because WordPieceTrainer learns a different one in every process.
    vocabulary = dict.fromkeys([*special, *letters, *(f"##{letter}" for letter in letters), *words])
    tokenizer = Tokenizer(models.WordPiece({token: i for i, token in enumerate(vocabulary)}, unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizer, splitter
    ids = [(token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", special_tokens=ids)
    names = {f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep", "mask")}
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=64, **names)
    config = BertConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=layers,
        num_attention_heads=2,
        max_position_embeddings=64,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = BertModel(config)
    model.save_pretrained(folder)
    fast.save_pretrained(folder)
