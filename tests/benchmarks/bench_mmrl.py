"""Training MMRL on a ViT-B/16 CLIP with random weights, against computing everything as the published code does.

`python tests/benchmarks/bench_mmrl.py [--device cuda] [--batch 4] [--classes 19 51 199] [--rounds 5] [--epoch]`

Both ways are checked to be equal, then timed by turns in one process. Memory is the most that a step takes beyond what
is resident before it. The floor is what exact losses and gradients cannot do without, at the rate of this machine's
matrix product. With ``--epoch``, whole epochs with evaluation.
"""

from __future__ import annotations

import argparse
import ctypes
import random
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from time import perf_counter
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from benchmarks.paired import compare
from benchmarks.photos import write_photos
from fakes import write_table
from lightning.pytorch import Trainer
from plain_mmrl import Plain, plain_features, plain_image, plain_loss, plain_text
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import Tensor
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, PreTrainedTokenizerFast

from robusttune.commands.quiet import quiet
from robusttune.data import ImageTextDataModule, LoaderSettings, ModalityDropout, TrainingSettings
from robusttune.data.sources import Table
from robusttune.encoders import CLIPImageEncoder, CLIPTextEncoder
from robusttune.models import MMRL, MMRLNetwork
from robusttune.models.packed import Packed, common_prefix_length
from robusttune.models.prompts import tokenise
from robusttune.tasks import MMRLTask
from robusttune.tasks.losses import Losses
from robusttune.types import Batch, Tokens, View

CONTEXT, START, END = 77, 49406, 49407
FIRST, LAYERS = 6, 12
REG_WEIGHT, ALPHA, SCALE = 5.0, 0.7, 100.0


def write_clip(folder: Path, width: int = 64) -> None:
    """Write a CLIP with random weights: ViT-B/16 as OpenAI's, or a narrower one with another width of a head."""
    text = {"hidden_size": 8 * width, "intermediate_size": 32 * width, "num_attention_heads": 8}
    vision = {"hidden_size": 12 * width, "intermediate_size": 48 * width, "num_attention_heads": 12}
    special = {"bos_token_id": START, "eos_token_id": END, "pad_token_id": 0, "vocab_size": 49408}
    torch.manual_seed(0)
    text |= {"num_hidden_layers": LAYERS, **special}
    vision |= {"num_hidden_layers": LAYERS, "patch_size": 16}
    config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=8 * width)
    CLIPModel(config).save_pretrained(folder)
    CLIPImageProcessor().save_pretrained(folder)
    words = ["<unk>", "a", "photo", "of", ",", "type", "food", ".", *(f"w{number}" for number in range(300))]
    vocabulary = {word: number for number, word in enumerate(words)} | {"<start>": START, "<end>": END}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    special_tokens = [("<start>", START), ("<end>", END)]
    tokenizer.post_processor = processors.TemplateProcessing("<start> $A <end>", special_tokens=special_tokens)
    fast = {"bos_token": "<start>", "eos_token": "<end>", "pad_token": "<end>", "unk_token": "<unk>"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=CONTEXT, **fast).save_pretrained(folder)


def make_prompts(classes: int) -> tuple[Tensor, Tensor]:
    """Ids (C, 77) as of Food-101's prompts: a start, three words, a name of 1 to 4 tokens, six more, an end."""
    rng = torch.Generator().manual_seed(classes)
    ids, end = torch.zeros(classes, CONTEXT, dtype=torch.int64), torch.zeros(classes, dtype=torch.int64)
    opening, closing = torch.arange(1000, 1003), torch.arange(2000, 2006)
    for row in range(classes):
        length = int(torch.multinomial(torch.tensor([0.2, 0.5, 0.2, 0.1]), 1, generator=rng)) + 1
        name = torch.randint(3000, 49000, (length,), generator=rng)
        prompt = torch.cat([torch.tensor([START]), opening, name, closing, torch.tensor([END])])
        ids[row, : len(prompt)], end[row] = prompt, len(prompt) - 1
    return ids, end


class Step:
    """The two ways to take a step."""

    def __init__(self, folder: Path, classes: int, batch: int, device: str) -> None:
        self.clip = CLIPModel.from_pretrained(folder).eval().requires_grad_(False).to(device)
        self.image = CLIPImageEncoder(name=str(folder), first_layer=FIRST).load().to(device)
        self.text = CLIPTextEncoder(name=str(folder), first_layer=FIRST).load().to(device)
        self.network = MMRLNetwork(MMRL(), self.image.upper.shape, self.text.upper.shape).to(device)
        self.device = device
        self.ids, self.end = (tensor.to(device) for tensor in make_prompts(classes))
        self.images = torch.randint(0, 256, (batch, 3, 224, 224), dtype=torch.uint8, device=device)
        self.label = torch.randint(classes, (batch,), device=device)
        longest = int(self.end.max()) + 1
        tokens = Tokens(self.ids[:, :longest], torch.arange(longest, device=device) <= self.end.unsqueeze(1))
        with torch.no_grad():
            prompts = self.text(tokens)
        self.untouched_text = prompts.pooled
        self.packed = Packed.of(
            prompts.tokens[0], tokens.attention_mask, prompts.tokens[0][0, : common_prefix_length(tokens)]
        )

    def autocast(self) -> AbstractContextManager[Any]:
        return torch.autocast("cuda", torch.float16) if self.device == "cuda" else nullcontext()

    def plain(self) -> Tensor:
        with self.autocast():
            features = plain_features(
                self.clip, self.network, self.image.normalise(self.images), self.ids, self.end, self.untouched_text
            )
        return plain_loss(features, self.label, SCALE, ALPHA, REG_WEIGHT)

    def fast(self) -> Tensor:
        with self.autocast():
            images = self.image.encode_lower(self.images, untouched=True)
            put_in = self.network.tokens()
            image, representation = self.network.image_features(self.image.upper, images.tokens[0], put_in.image)
            text = self.network.text_features(self.text.upper, self.packed, put_in.text)
        features = Plain(image, representation, text, images.pooled, self.untouched_text)
        return plain_loss(features, self.label, SCALE, ALPHA, REG_WEIGHT)

    def differences(self) -> tuple[float, float]:
        """Return how much the loss and the gradients of both ways differ, relative to those of the plain way."""
        found = []
        for way in (self.plain, self.fast):
            loss = way()
            found.append((loss, torch.autograd.grad(loss, [*self.network.parameters()])))
        (loss, gradients), (fast_loss, fast_gradients) = found
        off = max(float((f - g).norm() / g.norm()) for f, g in zip(fast_gradients, gradients, strict=True))
        return float(((fast_loss - loss) / loss).detach().abs()), off

    def check(self) -> None:
        """Check that both ways give the same loss and gradients."""
        loss, gradients = self.differences()
        print(f"losses differ by {loss:.1e}, gradients by {gradients:.1e} of their norm at most")
        assert gradients < (1e-4 if self.device == "cpu" else 0.05)

    def seconds(self, way: Callable[[], Tensor]) -> float:
        """Forward and backward."""
        self.network.zero_grad()
        self._wait()
        start = perf_counter()
        way().backward()
        self._wait()
        return perf_counter() - start

    def memory(self, way: Callable[[], Tensor]) -> float:
        """The most that a step takes, MB."""
        self.network.zero_grad()
        if self.device == "cuda":
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            way().backward()
            return (torch.cuda.max_memory_allocated() - before) / 1e6
        ctypes.CDLL("libc.so.6").malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")  # the greatest resident size begins anew
        resident_before = resident("VmRSS")
        way().backward()
        return resident("VmHWM") - resident_before

    def operations(self, way: Callable[[], Tensor]) -> float:
        """Floating-point operations of matrix products that a step does, 1e9."""
        with FlopCounterMode(display=False) as counter:
            way().backward()
        return counter.get_total_flops() / 1e9

    def floor(self) -> float:
        """Floating-point operations of matrix products that exact losses and gradients cannot do without, 1e9."""
        settings, layers = MMRL(), LAYERS - FIRST + 1
        k, batch, patches = settings.space_tokens, len(self.images), 196
        n, d = patches + 1, 768
        below = patches * 3 * 16 * 16 * d + (FIRST - 1) * full(n, n, d)
        untouched = (layers - 1) * full(n, n, d) + last(n, 1, d)
        # The first layer's queries, keys and values are those of the untouched tower, and need no gradient.
        forward = (layers - 1) * full(n, n + k, d) - 3 * n * d * d + last(n, k + 1, d)
        backward = 9 * n * d * d + (layers - 2) * 12 * n * d * d + last(n, k + 1, d)
        backward += (layers - 1) * 4 * n * (n + k) * d
        image = batch * (below + untouched + forward + backward)
        own, shared, d = len(self.packed.states), len(self.packed.shared) + k, 512
        each = own / len(self.end)
        attention = own * (shared + each / 2) * d * 2
        ends = len(self.end) * last(shared + int(each), 1, d)
        text = (layers - 1) * (12 * own * d * d + attention) - 3 * own * d * d + ends
        text += 9 * own * d * d + (layers - 2) * 12 * own * d * d + 2 * (layers - 1) * attention + ends
        text += 2 * layers * shared * 12 * d * d
        maps = 3 * layers * k * settings.space_width * (768 + 512)
        return 2 * (image + text + maps) / 1e9

    def rate(self) -> float:
        """Operations a second of this machine's product of the commonest shape, 1e9."""
        rows, weight = torch.randn(len(self.images) * 197, 768), torch.randn(3072, 768)
        rows, weight = rows.to(self.device), weight.to(self.device)
        if self.device == "cuda":
            rows, weight = rows.half(), weight.half()
        times = []
        for _ in range(30):
            self._wait()
            start = perf_counter()
            rows @ weight.T
            self._wait()
            times.append(perf_counter() - start)
        return 2 * len(rows) * 768 * 3072 / sorted(times)[len(times) // 2] / 1e9

    def _wait(self) -> None:
        if self.device == "cuda":
            torch.cuda.synchronize()


def full(tokens: int, keys: int, width: int) -> int:
    """Multiply-adds of a layer."""
    return 12 * tokens * width**2 + 2 * tokens * keys * width


def last(tokens: int, read: int, width: int) -> int:
    """Multiply-adds of a layer of which few tokens are read, without keys and values."""
    return read * (12 * width**2 + 2 * (width // 64) * tokens * width)


def resident(what: str) -> float:
    """MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1e3 for line in lines if line.startswith(what))


class PlainTask(MMRLTask):
    """As published: class features are computed in every step of training, and once for an evaluation."""

    clip: Any = None
    known: Tensor | None = None

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        self.known = None

    def training_losses(self, batch: Batch, batch_idx: int) -> Losses:
        assert batch.label is not None
        network, untouched = self.classifier.network, self.classifier.prompts().untouched
        images = batch.images["clean"]
        assert isinstance(images, Tensor)
        pixels = self.classifier.image_encoder.normalise(images)
        features = plain_features(self.clip, network, pixels, *self._ids(), untouched)
        loss = plain_loss(features, batch.label, SCALE, ALPHA, REG_WEIGHT)
        return Losses(loss, {}, torch.ones(len(batch), dtype=torch.bool))

    def metric_logits(self, batch: Batch, views: Sequence[View]) -> tuple[Tensor, None]:
        network = self.classifier.network
        if self.known is None:
            self.known = plain_text(self.clip, network, *self._ids())
        images = batch.images["clean"]
        assert isinstance(images, Tensor)
        pixels = self.classifier.image_encoder.normalise(images)
        image, representation = plain_image(self.clip, network, pixels)
        logits = SCALE * (ALPHA * image + (1 - ALPHA) * representation) @ self.known.T
        return logits.expand(len(views), *logits.shape), None

    def _ids(self) -> tuple[Tensor, Tensor]:
        names = self.classifier.class_names
        tokens = tokenise(names, self.classifier.templates[0], self.classifier.text_encoder.prompt_tokenizer)
        end = tokens.attention_mask.sum(1) - 1
        return functional.pad(tokens.input_ids, (0, CONTEXT - tokens.input_ids.shape[1])), end


def bench_epoch(folder: Path, classes: int, rounds: int) -> None:
    """16 steps of 4 images, and an evaluation of 32."""
    rng, photos = random.Random(0), write_photos(folder, 64)
    names = [f"w{number} w{rng.randrange(100, 300)}" for number in range(classes)]
    for split, count in (("train", 64), ("val", 32)):
        rows = [{"id": str(n), "image": str(photos[n]), "label": names[n % classes]} for n in range(count)]
        write_table(folder, split, rows)
    clip = CLIPModel.from_pretrained(folder).eval().requires_grad_(False)

    def seconds(kind: type[MMRLTask]) -> float:
        encoders: dict[str, Any] = {
            "image_encoder": CLIPImageEncoder(name=str(folder), first_layer=FIRST),
            "text_encoder": CLIPTextEncoder(name=str(folder), first_layer=FIRST),
        }
        table = Table(train=str(folder / "train.jsonl"), val=str(folder / "val.jsonl"), text_column=None)
        dropout = ModalityDropout(image_dropout=0, text_dropout=0)
        data = ImageTextDataModule(
            table, **encoders, batch_size=4, loader=LoaderSettings(workers=0), training=TrainingSettings(dropout)
        )
        task = kind(**encoders, facts=data.facts, templates=["a photo of {} , a type of food ."], reg_weight=REG_WEIGHT)
        task.__dict__["clip"] = clip
        quiet: dict[str, Any] = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
        trainer = Trainer(accelerator="cpu", max_epochs=1, num_sanity_val_steps=0, enable_model_summary=False, **quiet)
        start = perf_counter()
        trainer.fit(task, data)
        return perf_counter() - start

    ways = {"published": lambda: seconds(PlainTask), "ours": lambda: seconds(MMRLTask)}
    compare(f"MMRL epoch of 16 steps and evaluation of 32 images, {classes} classes, cpu", "s", ways, rounds)


def bench_steps(folder: Path, classes: int, batch: int, device: str, rounds: int) -> None:
    step = Step(folder, classes, batch, device)
    assert sum(p.numel() for p in step.network.parameters()) == 4_992_256
    step.check()
    ways = {"published": step.plain, "ours": step.fast}
    name = f"MMRL step, batch {batch}, {classes} classes, {device}"
    memory = compare(f"{name}, memory", "MB", {n: lambda w=w: step.memory(w) for n, w in ways.items()}, 2)  # type: ignore[misc]
    times = compare(name, "s", {n: lambda w=w: step.seconds(w) for n, w in ways.items()}, rounds)  # type: ignore[misc]
    floor, rate = step.floor(), step.rate()
    done = {n: step.operations(way) for n, way in ways.items()}
    print(
        f"{done['published']:.0f} GFLOP published, {done['ours']:.0f} ours, {floor:.0f} needed; at {rate:.0f} GFLOP/s "
        f"the floor is {floor / rate:.3f} s, of which the step takes {times['ours (s)'] * rate / floor:.2f} times"
    )
    print(f"{times['published / ours']:.2f} times as fast, {1 / memory['published / ours']:.3f} of the memory\n")


@quiet()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--classes", type=int, nargs="+", default=[19, 51, 199])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--epoch", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        write_clip(Path(folder))
        for classes in given.classes:
            if given.epoch:
                bench_epoch(Path(folder), classes, given.rounds)
            else:
                bench_steps(Path(folder), classes, given.batch, given.device, given.rounds)


if __name__ == "__main__":
    main()
