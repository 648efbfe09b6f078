"""Base classes of the frozen encoders.

`Encoder` and its subclasses are cheap settings that can be compared and stored. `FrozenEncoder` and its subclasses are
the torch modules that `Encoder.load` builds.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from robusttune.encoders.low_rank import LoRA, insert_updates, merge_updates
from robusttune.encoders.preprocessing import Preprocessing
from robusttune.encoders.presence import expand_present
from robusttune.encoders.tokenization import Tokenizer
from robusttune.errors import RobustTuneError
from robusttune.types import Encoded, EncoderInputs, ImageSets, Tokens, Widths


@dataclass(frozen=True, kw_only=True)
class Encoder(ABC):
    """Settings of a frozen encoder. Constructing one reads no file; `load` builds the module.

    Args:
        name: Published name of the model, or a local folder.
        weights: ``pretrained`` (fetched by name), ``random`` (seeded, always the same), or a local file or folder.
        revision: Branch, tag or commit of the published weights.
    """

    name: str
    weights: str = "pretrained"
    revision: str | None = None

    @property
    def is_adapted(self) -> bool:
        """Return whether the encoder has trained updates, so that its features change in training."""
        return False

    @abstractmethod
    def inputs(self) -> dict[str, Any]:
        """Return the settings that turn a sample into this encoder's input.

        A checkpoint stores them, so that loading it with a different preprocessing or tokenizer is noticed.
        """

    @abstractmethod
    def load(self) -> FrozenEncoder:
        """Build the module with its weights.

        Raises:
            RobustTuneError: The model is unknown, or its weights are neither local nor available for download.
        """

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write the model with everything that `load` and `inputs` read, so that the folder works as ``name``.

        Args:
            folder: Folder that is created. Both towers of one model may be saved to the same folder.

        Raises:
            RobustTuneError: The model cannot be loaded.
        """

    @abstractmethod
    def licence(self) -> str | None:
        """Return the name of the model's licence, such as ``apache-2.0``, or None if it is not known."""


@dataclass(frozen=True, kw_only=True)
class ImageEncoder(Encoder):
    """Settings of a frozen image encoder. A setting that is None follows the model's own preprocessing.

    Args:
        size: Edge length of the square input, in pixels.
        crop: Fraction of the resized image's edge length that the centre crop keeps, in (0, 1].
        mean: Mean of each colour channel of the input, for values in [0, 1].
        std: Standard deviation of each colour channel of the input, for values in [0, 1].
    """

    size: int | None = None
    crop: float | None = None
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None

    @abstractmethod
    def preprocessing(self) -> Preprocessing:
        """Return how an image becomes the encoder's input. Read the model's configuration, not its weights.

        Raises:
            RobustTuneError: The model is unknown, or its configuration cannot be read.
        """

    def inputs(self) -> dict[str, Any]:
        """Return the fields of `Preprocessing` as a dictionary."""
        return asdict(self.preprocessing())

    def override(self, own: Preprocessing) -> Preprocessing:
        """Replace fields of the model's own preprocessing by the settings that are not None.

        Args:
            own: Preprocessing that the model was published with.

        Returns:
            Preprocessing with ``size``, ``crop``, ``mean`` and ``std`` overridden where they are set.
        """
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
        """Return the tokenizer that turns texts into the encoder's input.

        Raises:
            RobustTuneError: The tokenizer is missing, or does not fit the model.
        """

    def inputs(self) -> dict[str, Any]:
        """Return the hash of the tokenizer as a dictionary with the key ``tokenizer``."""
        return {"tokenizer": self.tokenizer().sha256}


class FrozenEncoder(nn.Module, ABC):
    """A frozen encoder: always in eval mode, without gradients, and with weights that are left out of checkpoints.

    With low-rank adaptation, its updates alone are trained and stored, see `LoRA`. Subclasses set ``widths`` and map a
    batch of inputs to `Encoded`.

    Attributes:
        widths: Widths of the outputs.
        settings: Settings that the encoder was loaded from.
        sha256: Hash of the frozen weights. A checkpoint stores it to recognise its encoder.
        architecture: Description of the modules and their configuration. Encoders with equal weights may differ in it.
        size: Number of frozen weights.
        anchor: Empty tensor with the encoder's device and dtype, which remain known while the weights are released.
    """

    widths: Widths
    anchor: Tensor

    def __init__(self, backbone: nn.Module, settings: Encoder) -> None:
        super().__init__()
        self.backbone = backbone.float().requires_grad_(False)
        self.settings = settings
        self.eval()
        # Hash the weights here, because a Trainer may change their precision later.
        self.sha256 = hash_weights(self.backbone)
        self.architecture = describe_architecture(self.backbone)
        self.size = sum(weights.numel() for weights in self.backbone.parameters())
        self.register_buffer("anchor", torch.empty(0), persistent=False)
        self._released = False
        self._updated: list[str] = []  # names of the layers with updates

    def adapt(self, settings: LoRA | None, depth: int) -> None:
        """Insert the updates of low-rank adaptation into the layers; nothing without settings.

        Args:
            settings: Settings of the updates, or None.
            depth: Number of layers that are run.

        Raises:
            RobustTuneError: The settings do not fit the model, see `insert_updates`.
        """
        if settings is not None:
            self._updated = insert_updates(self.backbone, settings, depth, self.settings.name)

    def merge(self) -> None:
        """Add the updates to the weights, and remove them. Outputs stay the same up to rounding."""
        merge_updates(self._updated_layers().values())

    def updates(self) -> list[nn.Parameter]:
        """Return the parameters of the updates, which are the only ones that are trained; none after `merge`."""
        layers = self._updated_layers().values()
        return [parameter for layer in layers for parameter in layer.parameters() if parameter.requires_grad]

    def updated_weights(self) -> dict[str, Tensor]:
        """Return the weights with their updates, whether they are merged or not, by their keys in the model alone."""
        layers = self._updated_layers().items()
        return {f"{name}.weight": layer.weight.detach() for name, layer in layers}  # type: ignore[operator]

    def _updated_layers(self) -> dict[str, nn.Module]:
        """Return the linear layers with updates, by their names in the model."""
        return {name: self.backbone.get_submodule(name) for name in self._updated}

    def __call__(self, inputs: Any) -> Encoded:
        self.ready()
        if isinstance(inputs, ImageSets):
            return self.mean_over_images(inputs)
        encoded: Encoded = super().__call__(inputs)
        return encoded

    def release(self) -> None:
        """Free the memory of the weights. Call it when all features are cached; `ready` loads the weights again.

        An encoder with updates keeps them, because its features are not cached.
        """
        if self.settings.is_adapted:
            return
        self.backbone = nn.Identity()
        self._released = True

    @abstractmethod
    def feature_count(self, length: int) -> int:
        """Return how many numbers the features of one input consist of, which determines their size in the cache.

        Args:
            length: Length of a text, in tokens. Image encoders ignore it, because all images have the same size.
        """

    def train(self, mode: bool = True) -> FrozenEncoder:
        """Stay in eval mode, whichever mode the caller requests."""
        del mode
        super().train(False)
        return self

    def encode(self, inputs: EncoderInputs, present: Tensor, pooled: bool = True) -> Encoded:
        """Encode the present rows and expand the result to all rows of the batch.

        Gradients are recorded for the updates of low-rank adaptation alone.

        Args:
            inputs: Inputs of the ``P`` present rows, in order; other rows are not encoded. Cached features (`Encoded`)
                are only converted to the encoder's dtype.
            present: Mask of the present rows, shape (B,), bool, with ``P`` rows True.
            pooled: False if pooled embeddings are not needed; an encoder that can save their computation may then
                return some of width 0.

        Returns:
            Features with ``B`` rows. Absent rows hold arbitrary values, and their masks may be False everywhere.
        """
        with torch.set_grad_enabled(self.settings.is_adapted and torch.is_grad_enabled()):
            if len(inputs) == 0:
                return self._empty_features(len(present))
            encoded = self.as_computed(inputs) if isinstance(inputs, Encoded) else self.compute(inputs, pooled)
            if len(inputs) == len(present):
                return encoded
            return encoded.map(lambda tensor: expand_present(tensor, present))

    def compute(self, inputs: Any, pooled: bool) -> Encoded:
        """Encode inputs, see `encode`; by default with pooled embeddings in any case."""
        del pooled
        return self(inputs)

    def mean_over_images(self, sets: ImageSets) -> Encoded:
        """Encode samples with several images, and average the features of each sample.

        The first images of all samples are encoded together, then the second ones, and so on. So a sample takes no more
        memory than one with a single image.

        Args:
            sets: Images of ``B`` samples.

        Returns:
            Mean pooled embeddings and mean tokens of each layer, for ``B`` samples, with the encoder's dtypes.
        """
        first: Encoded = super().__call__(sets.pixels[:, 0])
        parts = [first.pooled, *first.tokens]
        sums = [part.to(torch.promote_types(part.dtype, torch.float32), copy=True) for part in parts]
        for number in range(1, sets.pixels.shape[1]):
            rows = (sets.counts > number).nonzero().squeeze(1)
            more: Encoded = super().__call__(sets.pixels[rows, number])
            for total, part in zip(sums, [more.pooled, *more.tokens], strict=True):
                total.index_add_(0, rows, part.to(total.dtype))
        means = [
            (total / sets.counts.view(-1, *[1] * (total.dim() - 1))).to(part.dtype)
            for total, part in zip(sums, parts, strict=True)
        ]
        return Encoded(means[0], means[1:], first.mask)

    def as_computed(self, kept: Encoded) -> Encoded:
        """Convert cached features to the encoder's own floating-point dtype; masks keep theirs."""
        return kept.map(lambda tensor: tensor.to(self.anchor.dtype) if tensor.is_floating_point() else tensor)

    def ready(self) -> None:
        """Load the weights again if `release` has freed them.

        Raises:
            RobustTuneError: The weights differ from those that were loaded first.
        """
        if not self._released:
            return
        fresh = self.settings.load()
        if fresh.sha256 != self.sha256:
            raise RobustTuneError(f"the weights of {self.settings.name!r} have changed since: start again")
        self.backbone = fresh.backbone.to(self.anchor)
        self._released = False

    def _empty_features(self, rows: int) -> Encoded:
        """Return features of a batch without any present row: one masked token per layer."""
        tokens = [self.anchor.new_zeros(rows, 1, width) for width in self.widths.layers]
        mask = torch.zeros(rows, 1, dtype=torch.bool, device=self.anchor.device)
        return Encoded(self.anchor.new_zeros(rows, self.widths.pooled), tokens, [mask] * len(tokens))


class FrozenImageEncoder(FrozenEncoder):
    """A frozen encoder of images of shape (B, 3, H, W), uint8, which it normalises on its own device.

    Attributes:
        mean: Mean of each colour channel, shape (1, 3, 1, 1).
        std: Standard deviation of each colour channel, shape (1, 3, 1, 1).
    """

    mean: Tensor
    std: Tensor
    _numbers_per_image: int

    def __init__(self, backbone: nn.Module, settings: ImageEncoder, preprocessing: Preprocessing) -> None:
        super().__init__(backbone, settings)
        self.side = preprocessing.size
        self.register_buffer("mean", torch.tensor(preprocessing.mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(preprocessing.std).view(1, 3, 1, 1), persistent=False)

    @abstractmethod
    def forward(self, images: Tensor) -> Encoded:
        """Encode images of shape (B, 3, H, W), uint8, into pooled embeddings and tokens of the chosen layers."""

    def normalise(self, images: Tensor) -> Tensor:
        """Scale images (B, 3, H, W), uint8, to [0, 1], subtract the mean and divide by the standard deviation."""
        return (images.to(self.mean.dtype) / 255 - self.mean) / self.std

    def measure_widths(self) -> Widths:
        """Return the widths of the outputs, measured by encoding one black image."""
        with torch.no_grad():
            encoded = self(torch.zeros(1, 3, self.side, self.side, dtype=torch.uint8))
        self._numbers_per_image = encoded.pooled.numel() + sum(tokens.numel() for tokens in encoded.tokens)
        return Widths(tuple(tokens.shape[-1] for tokens in encoded.tokens), encoded.pooled.shape[-1])

    def feature_count(self, length: int) -> int:
        """Return how many numbers the features of one image consist of; ``length`` is ignored."""
        return self._numbers_per_image


class FrozenTextEncoder(FrozenEncoder):
    """A frozen encoder of tokenised texts."""

    @abstractmethod
    def forward(self, tokens: Tokens) -> Encoded:
        """Encode ``B`` tokenised texts into pooled embeddings and tokens of the chosen layers."""

    def feature_count(self, length: int) -> int:
        """Return how many numbers the features of a text with ``length`` tokens consist of."""
        return self.widths.pooled + length * sum(self.widths.layers)


def hash_weights(module: nn.Module) -> str:
    """Return the SHA-256 hash of the names, shapes, dtypes and values in a module's state dict, as 64 hex digits."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def describe_architecture(module: nn.Module) -> str:
    """Describe a module's layers and, for a model from transformers, its configuration.

    Entries that depend on the machine or the library's version, such as paths and dtypes, are left out.
    """
    config = getattr(module, "config", None)
    settings = {} if config is None else config.to_dict()
    ignored = ("_name_or_path", "transformers_version", "dtype", "torch_dtype")
    return f"{module!r} {sorted((name, str(value)) for name, value in settings.items() if name not in ignored)}"


def all_real(tokens: list[Tensor]) -> list[Tensor]:
    """Return one mask per layer that is True everywhere, shape (B, n), bool, for tokens without padding.

    Args:
        tokens: Tokens of each layer, shape (B, n, d).
    """
    return [torch.ones(t.shape[:2], dtype=torch.bool, device=t.device) for t in tokens]
