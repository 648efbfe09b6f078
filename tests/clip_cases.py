"""Networks of DCP and DPL on small CLIPs, from golden files or made up, and what one pass and three steps give."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import AdamW, Optimizer
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel

from robusttune.encoders import CLIPImageEncoder, CLIPTextEncoder
from robusttune.encoders.clip import FrozenCLIPImage, FrozenCLIPText
from robusttune.models import DCP, DPL, Prototypes
from robusttune.models.clip_network import CLIPNetwork
from robusttune.models.published import Names, dcp_names
from robusttune.tasks.optimisation import parameter_groups
from robusttune.types import Encoded, Facts, Tokens

GOLDEN = Path(__file__).parent / "golden"


class Samples:
    """Inputs of a batch.

    Args:
        tensors: Tensors with the names of the golden files' ``input``.
    """

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self.pixels, self.ids = tensors["pixel_values"], tensors["input_ids"]
        self.missing, self.label = tensors["missing_type"], tensors["labels"]

    @property
    def present(self) -> tuple[Tensor, Tensor]:
        """Return masks of images and of texts."""
        return self.missing != 2, self.missing != 1


@dataclass
class Case:
    """A CLIP, the towers that it was cut into, and a network on them.

    Attributes:
        golden: Tensors of the golden file; none in a made-up case.
        config: Numbers by the names of the golden files' ``config``.
    """

    clip: Any
    image: FrozenCLIPImage
    text: FrozenCLIPText
    network: CLIPNetwork
    golden: dict[str, Tensor]
    config: dict[str, Any]

    @property
    def names(self) -> Names:
        """Return the published names of the weights."""
        return dcp_names(self.network.state_dict(), self.config.get("published_task", "food101"))

    def of(self, *prefixes: str) -> dict[str, Tensor]:
        """Return tensors of the golden file by their names without a prefix."""
        names = [(name, prefix) for name in self.golden for prefix in prefixes if name.startswith(prefix)]
        return {name.removeprefix(prefix): self.golden[name] for name, prefix in names}

    def read(self, published: Mapping[str, Tensor]) -> None:
        """Set the weights of the network from published names."""
        matched = self.names.read(published, self.network.state_dict())
        assert not matched.left
        self.network.load_state_dict(matched.state)

    def published(self) -> dict[str, Tensor]:
        """Return the weights of the network by published name."""
        return self.names.write(self.network.state_dict())

    def gradients(self) -> dict[str, Tensor]:
        """Return the gradients by published name, without those of constants."""
        state = {name: torch.zeros_like(tensor) for name, tensor in self.network.state_dict().items()}
        for name, parameter in self.network.named_parameters():
            assert parameter.grad is not None, name
            state[name] = parameter.grad
        return {name: grad for name, grad in self.names.write(state).items() if "prompts_dynamic" not in name}

    def encode(self, samples: Samples, longest: int | None = None) -> tuple[Encoded, Encoded]:
        """Return what the frozen layers make of samples; texts are cut to ``longest``, by default that of the batch."""
        end = samples.ids.argmax(1)
        length = int(end.max()) + 1 if longest is None else longest
        tokens = Tokens(samples.ids[:, :length], torch.arange(length) <= end.unsqueeze(1))
        with torch.no_grad():
            return self.image.compute(samples.pixels, False), self.text.compute(tokens, False)

    def logits(self, samples: Samples) -> Tensor:
        """Run the network as a training step does."""
        return self.network(*self.encode(samples), *samples.present).logits

    def loss(self, samples: Samples, logits: Tensor | None = None) -> Tensor:
        """Return the loss of a training step."""
        logits = self.network.training_logits(
            self.logits(samples) if logits is None else logits, samples.label, *samples.present
        )
        extra = sum(self.network.extra_losses().values(), torch.zeros(()))
        if samples.label.dim() == 1:
            return functional.cross_entropy(logits, samples.label) + extra
        return functional.binary_cross_entropy_with_logits(logits, samples.label.float()) + extra


class FormerAdamW(Optimizer):
    """The AdamW that transformers had, with its update rule: eps before the correction, decay after the step."""

    def __init__(self, groups: Any, lr: float, betas: tuple[float, float], eps: float, weight_decay: float) -> None:
        super().__init__(groups, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Change the parameters."""
        for group in self.param_groups:
            first, second = group["betas"]
            for parameter in group["params"]:
                state = self.state[parameter]
                if not state:
                    state |= {"t": 0, "m": torch.zeros_like(parameter), "v": torch.zeros_like(parameter)}
                state["t"] += 1
                state["m"].mul_(first).add_(parameter.grad, alpha=1 - first)
                state["v"].mul_(second).addcmul_(parameter.grad, parameter.grad, value=1 - second)
                rate = group["lr"] * (1 - second ** state["t"]) ** 0.5 / (1 - first ** state["t"])
                parameter.addcdiv_(state["m"], state["v"].sqrt() + group["eps"], value=-rate)
                parameter.add_(parameter, alpha=-group["lr"] * group["weight_decay"])


OPTIMIZERS: dict[str, type[Optimizer]] = {"": FormerAdamW, "_torch_adamw": AdamW}  # by the end of their names in files


def optimizer_of(network: nn.Module, config: Mapping[str, Any], kind: str) -> Optimizer:
    """Return one of `OPTIMIZERS` with the numbers of a golden file, without weight decay of biases."""
    settings = {name: config["optimizer"][name] for name in ("lr", "eps", "weight_decay")}
    groups = parameter_groups(network, decay_biases=False)
    return OPTIMIZERS[kind](groups, betas=tuple(config["optimizer"]["betas"]), **settings)  # type: ignore[call-arg]


def comparable(tensors: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """Yield tensors by published name, without biases of keys, whose gradients are noise around 0."""
    for name, tensor in tensors.items():
        if name.endswith("in_proj_bias"):
            query, _, value = tensor.chunk(3)
            yield name, torch.cat([query, value])
        else:
            yield name, tensor


def assert_near(found: Mapping[str, Tensor], expected: Mapping[str, Tensor], relative: float) -> float:
    """Compare tensors by published name in their relative norms, and return the greatest difference."""
    assert found.keys() == expected.keys()
    worst, others = 0.0, dict(comparable(expected))
    for name, tensor in comparable(found):
        off, size = (tensor - others[name]).norm().item(), others[name].norm().item()
        assert off <= relative * size, f"{name}: {off / size:.1e}"
        worst = max(worst, off / size if size else 0.0)
    return worst


def golden_files(method: str) -> list[Path]:
    """Return the golden files of a method, whatever they are called beyond it."""
    return sorted(GOLDEN.glob(f"{method}*_*.safetensors"))


def golden_config(path: Path) -> dict[str, Any]:
    """Return the numbers of a golden file."""
    with safe_open(path, "pt") as file:
        config: dict[str, Any] = json.loads(file.metadata()["config"])
    return config


def golden_case(path: Path) -> Case:
    """Return the case of a golden file, with the weights that its network begins with."""
    with safe_open(path, "pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    config = golden_config(path)
    clip = CLIPModel(_clip_config(config))
    clip.load_state_dict({key.removeprefix("clip."): t for key, t in tensors.items() if key.startswith("clip.")})
    classes = config["num_classes"]
    case = cut(clip, config, classes, several=tensors["input.labels"].dim() == 2)
    case.golden = tensors
    case.read(case.of("adapter.", "constant."))
    return case


def cut(clip: Any, config: dict[str, Any], classes: int, several: bool) -> Case:
    """Cut a CLIP into towers and build a network on them, as the numbers of a golden file have it."""
    prompts, side = config.get("prompt_length", 0), config["clip_vision"]["image_size"]
    first = [1 if prompts > 0 else 1 + config[f"clip_{kind}"]["num_hidden_layers"] for kind in ("vision", "text")]
    facts = Facts([f"class {number}" for number in range(classes)], [1 / classes] * classes, several)
    with TemporaryDirectory() as folder:
        clip.save_pretrained(folder)
        size = {"height": side, "width": side}
        CLIPImageProcessor(size={"shortest_edge": side}, crop_size=size).save_pretrained(folder)
        image = CLIPImageEncoder(name=folder, first_layer=first[0]).load()
        text = CLIPTextEncoder(name=folder, first_layer=first[1]).load()
    image.normalise = lambda images: images  # type: ignore[method-assign]
    head = prototypes_of(config) if "arc_s" in config else None
    if prompts > 0:
        network: Any = DCP(prompts, config["prompt_depth"], prototypes=head).build_on(image, text, facts)
    else:
        assert head is not None
        network = DPL(head).build_on(image, text, facts)
    return Case(clip.eval(), image, text, network, {}, config)


def prototypes_of(config: Mapping[str, Any], **changes: Any) -> Prototypes:
    """Return the published numbers of DPL as settings."""
    ends, weights = ("", "_tm", "_im"), ("mintra", "minter_pintra", "minter_pinter")
    joint = config["contrastive_form"] == "joint"
    settings: dict[str, Any] = {
        "scale": tuple(config[f"arc_s{end}"] for end in ends),
        "margin": tuple(config[f"arc_m{end}"] for end in ends),
        "missing": config["setting"],
        "share_untrained": False,
        "contrast": config["contrast_coef"] if joint else 0.0,
        "pairwise": None if joint else tuple(config[f"contrast_coef_{name}"] for name in weights),
        "temperature": config["contrast_temp"],
        "base_temperature": config["contrast_temp_base"],
        "anchors": config["contrast_mode"],
    }
    return Prototypes(**(settings | changes))


def _clip_config(config: Mapping[str, Any]) -> CLIPConfig:
    return CLIPConfig(
        text_config=config["clip_text"], vision_config=config["clip_vision"], projection_dim=config["projection_dim"]
    )


def made_up(config: Mapping[str, Any], classes: int, several: bool) -> tuple[Case, Samples]:
    """Return a network on a CLIP with random weights, all large, and nine samples of all patterns.

    Args:
        config: Numbers by the names of the golden files' ``config`` that differ from small ones.
        classes: Number of classes.
        several: True for several labels a sample.
    """
    both = {"num_attention_heads": 2, "hidden_act": "quick_gelu"}
    text = {"hidden_size": 32, "intermediate_size": 64, "vocab_size": 60, "max_position_embeddings": 12}
    text |= {"bos_token_id": 58, "eos_token_id": 59, "pad_token_id": 0}
    vision = {"hidden_size": 48, "intermediate_size": 64, "image_size": 32, "patch_size": 16}
    vision |= {"num_hidden_layers": config["vision_layers"]}
    text |= {"num_hidden_layers": config["text_layers"]}
    whole = {"clip_text": text | both, "clip_vision": vision | both, "projection_dim": 24, **config}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        clip = CLIPModel(_clip_config(whole))
        for parameter in clip.parameters():
            parameter.data.add_(0.1 * torch.randn(parameter.shape))
        case = cut(clip, whole, classes, several)
        state = case.published()
        case.read({name: tensor + 0.2 * torch.randn(tensor.shape) for name, tensor in state.items()})
        missing = torch.tensor([0, 1, 2, 0, 2, 1, 0, 1, 2])
        ids = torch.zeros(9, 12, dtype=torch.int64)
        for row, length in zip(ids, (3, 0, 8, 9, 1, 0, 5, 0, 6), strict=True):
            row[: length + 2] = torch.tensor([58, *torch.randint(1, 57, (length,)).tolist(), 59])
        label = torch.rand(9, classes).round() if several else torch.randint(classes, (9,))
        pixels = torch.where((missing == 2)[:, None, None, None], 1.0, torch.randn(9, 3, 32, 32))
    tensors = {"pixel_values": pixels, "input_ids": ids, "missing_type": missing, "labels": label}
    return case, Samples(tensors)
