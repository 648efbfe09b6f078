"""What every frozen encoder is: cheap settings that can be compared and stored, and the module they load."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from robusttune.encoders.preprocessing import Preprocessing
from robusttune.encoders.tokenization import Tokenizer
from robusttune.errors import RobustTuneError
from robusttune.types import Encoded, EncoderInputs, Tokens, Widths


@dataclass(frozen=True, kw_only=True)
class Encoder(ABC):
    """Settings of a frozen encoder. Making one reads nothing; `load` builds the module.

    Args:
        name: the model's name where it is published, or a local folder.
        weights: ``pretrained`` (fetched by name), ``random`` (seeded, always the same), or a local file or folder.
        revision: branch, tag or commit of the published weights.
    """

    name: str
    weights: str = "pretrained"
    revision: str | None = None

    @abstractmethod
    def inputs(self) -> dict[str, Any]:
        """What decides how a sample becomes this encoder's input, by which a checkpoint knows it again."""

    @abstractmethod
    def load(self) -> FrozenEncoder:
        """Build the module with its weights.

        Raises:
            RobustTuneError: the model is unknown, or its weights are neither here nor to be fetched.
        """


@dataclass(frozen=True, kw_only=True)
class ImageEncoder(Encoder):
    """Settings of a frozen image encoder; what is None follows the model's own preprocessing.

    Args:
        size: side of the square input, pixels.
        crop: share of the resized image's side that the crop keeps, in (0, 1].
        mean: per-channel mean of the input, of values in [0, 1].
        std: per-channel standard deviation of the input.
    """

    size: int | None = None
    crop: float | None = None
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None

    @abstractmethod
    def preprocessing(self) -> Preprocessing:
        """How an image becomes the encoder's input; read from the model's description, not its weights."""

    def inputs(self) -> dict[str, Any]:
        return asdict(self.preprocessing())

    def override(self, own: Preprocessing) -> Preprocessing:
        """The model's own preprocessing with whatever was set here in its place."""
        return Preprocessing(
            size=own.size if self.size is None else self.size,
            crop=own.crop if self.crop is None else self.crop,
            mean=own.mean if self.mean is None else self.mean,
            std=own.std if self.std is None else self.std,
            interpolation=own.interpolation,
            crop_mode=own.crop_mode,
        )


@dataclass(frozen=True, kw_only=True)
class TextEncoder(Encoder):
    """Settings of a frozen text encoder."""

    @abstractmethod
    def tokenizer(self) -> Tokenizer:
        """How texts become the encoder's input."""

    def inputs(self) -> dict[str, Any]:
        return {"tokenizer": self.tokenizer().sha256}


class FrozenEncoder(nn.Module, ABC):
    """A frozen encoder: always in eval mode, no parameter with a gradient, weights left out of checkpoints.

    Subclasses set ``widths`` and map a batch of inputs to `Encoded`.

    Attributes:
        widths: of the outputs.
        settings: that it was loaded by.
        sha256: hash of the weights, by which a checkpoint knows its encoder again.
        architecture: what the weights are used in, in words; encoders that differ in it may have the same weights.
        size: number of weights.
        anchor: holds nothing; it is where the encoder is, and of its precision, also while it has no weights.
    """

    widths: Widths
    anchor: Tensor

    def __init__(self, backbone: nn.Module, settings: Encoder) -> None:
        super().__init__()
        self.backbone = backbone.float().requires_grad_(False)
        self.settings = settings
        self.eval()
        # At once: a Trainer may change the precision of the weights later.
        self.sha256 = hash_weights(self.backbone)
        self.architecture = describe_architecture(self.backbone)
        self.size = sum(weights.numel() for weights in self.backbone.parameters())
        self.register_buffer("anchor", torch.empty(0), persistent=False)
        self._released = False

    def __call__(self, inputs: Any) -> Encoded:
        self.ready()
        encoded: Encoded = super().__call__(inputs)
        return encoded

    def release(self) -> None:
        """Give the weights' memory back, where all that is needed of it is in the cache; it is loaded again if not."""
        self.backbone = nn.Identity()
        self._released = True

    @abstractmethod
    def numbers(self, length: int) -> int:
        """How many numbers the features of one input have.

        Args:
            length: of a text, in tokens; images are all alike.
        """

    def train(self, mode: bool = True) -> FrozenEncoder:
        """Stay in eval mode whatever the task asks for."""
        del mode
        super().train(False)
        return self

    @torch.no_grad()
    def encode(self, inputs: EncoderInputs, present: Tensor) -> Encoded:
        """What the encoder makes of the rows that are present, laid out over the whole batch.

        Args:
            inputs: of the ``P`` rows that are present, in order; nothing else goes through the encoder. What it has
                made of them before is taken as it is.
            present: (B,) bool, of which ``P`` are True.

        Returns:
            ``B`` rows; those that are not present hold something, and no token of theirs need be real.
        """
        if len(inputs) == 0:
            return self._nothing(len(present))
        encoded = self.as_computed(inputs) if isinstance(inputs, Encoded) else self(inputs)
        if len(inputs) == len(present):
            return encoded
        row = present.cumsum(0).sub(1).clamp(min=0)  # no boolean index: it would wait for the device
        return encoded.map(lambda tensor: tensor[row])

    def as_computed(self, kept: Encoded) -> Encoded:
        """In the encoder's own precision, whatever it was kept in."""
        return kept.map(lambda tensor: tensor.to(self.anchor.dtype) if tensor.is_floating_point() else tensor)

    def ready(self) -> None:
        """Load the weights again if their memory was given back."""
        if not self._released:
            return
        fresh = self.settings.load()
        if fresh.sha256 != self.sha256:
            raise RobustTuneError(f"the weights of {self.settings.name!r} have changed since: start again")
        self.backbone = fresh.backbone.to(self.anchor)
        self._released = False

    def _nothing(self, rows: int) -> Encoded:
        """One token that is not real in each layer."""
        tokens = [self.anchor.new_zeros(rows, 1, width) for width in self.widths.layers]
        mask = torch.zeros(rows, 1, dtype=torch.bool, device=self.anchor.device)
        return Encoded(self.anchor.new_zeros(rows, self.widths.pooled), tokens, [mask] * len(tokens))


class FrozenImageEncoder(FrozenEncoder):
    """Takes (B, 3, H, W) uint8 images and normalises them on their own device."""

    mean: Tensor
    std: Tensor
    _numbers: int

    def __init__(self, backbone: nn.Module, settings: ImageEncoder, preprocessing: Preprocessing) -> None:
        super().__init__(backbone, settings)
        self.side = preprocessing.size
        self.register_buffer("mean", torch.tensor(preprocessing.mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(preprocessing.std).view(1, 3, 1, 1), persistent=False)

    @abstractmethod
    def forward(self, images: Tensor) -> Encoded: ...

    def normalise(self, images: Tensor) -> Tensor:
        return (images.to(self.mean.dtype) / 255 - self.mean) / self.std

    def measure_widths(self) -> Widths:
        """Widths of the outputs, found by encoding one blank image."""
        with torch.no_grad():
            encoded = self(torch.zeros(1, 3, self.side, self.side, dtype=torch.uint8))
        self._numbers = encoded.pooled.numel() + sum(tokens.numel() for tokens in encoded.tokens)
        return Widths(tuple(tokens.shape[-1] for tokens in encoded.tokens), encoded.pooled.shape[-1])

    def numbers(self, length: int) -> int:
        return self._numbers


class FrozenTextEncoder(FrozenEncoder):
    """Takes tokenised texts."""

    @abstractmethod
    def forward(self, tokens: Tokens) -> Encoded: ...

    def numbers(self, length: int) -> int:
        return self.widths.pooled + length * sum(self.widths.layers)


def hash_weights(module: nn.Module) -> str:
    """SHA-256 of names, shapes and values."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def describe_architecture(module: nn.Module) -> str:
    """The modules, and the configuration of those of transformers."""
    config = getattr(module, "config", None)
    settings = {} if config is None else config.to_dict()
    place = ("_name_or_path", "transformers_version", "dtype", "torch_dtype")
    return f"{module!r} {sorted((name, str(value)) for name, value in settings.items() if name not in place)}"


def all_real(tokens: list[Tensor]) -> list[Tensor]:
    """Masks for tokens among which there is no padding."""
    return [torch.ones(t.shape[:2], dtype=torch.bool, device=t.device) for t in tokens]
