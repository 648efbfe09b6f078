"""Loading of image and text towers from transformers: locations, configurations and weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel
from transformers.utils import logging as transformers_logging

from robusttune.encoders.base import Encoder
from robusttune.encoders.layered import LayeredEncoder
from robusttune.encoders.remote_code import refuse_remote_code
from robusttune.encoders.weights import fetching, local_weights, named_folder, seeded
from robusttune.errors import RobustTuneError


def location(settings: Encoder) -> dict[str, Any]:
    """Return the arguments of ``from_pretrained`` for the folder or published repository that the settings name.

    Raises:
        RobustTuneError: The folder does not exist, or ``weights`` is a file.
    """
    if settings.weights in ("pretrained", "random"):
        folder = named_folder(settings.name)
        return {
            "pretrained_model_name_or_path": settings.name if folder is None else str(folder),
            "revision": settings.revision or "main",
        }
    folder = local_weights(settings.weights)
    if not folder.is_dir():
        raise RobustTuneError(
            f"weights {settings.weights} is a file: give the folder with its config.json and tokenizer"
        )
    return {"pretrained_model_name_or_path": str(folder)}


def load_config(settings: Encoder) -> Any:
    """Return the model's configuration.

    Raises:
        RobustTuneError: The configuration cannot be read, or the model needs its own Python code.
    """
    place = location(settings)
    with fetching(settings.name, settings.weights):
        refuse_remote_code(place, "AutoConfig", "AutoModel")
        return AutoConfig.from_pretrained(**place, trust_remote_code=False)


def load_tower(settings: LayeredEncoder, tower: str, needs_pooler: bool = False) -> nn.Module:
    """Load one encoder tower: the named tower of a two-tower model (CLIP, SigLIP), or the whole model otherwise.

    Args:
        settings: Settings of the encoder; ``depth`` limits the number of layers that are built.
        tower: ``text_model`` or ``vision_model``.
        needs_pooler: True if the weights of a pooler must not be missing.

    Raises:
        RobustTuneError: The model has a decoder or no stack of layers, or weights that are used are missing.
    """
    model = load_whole(settings, tower, needs_pooler)
    found: nn.Module = getattr(model, tower, model)
    return found


def load_whole(settings: LayeredEncoder, tower: str, needs_pooler: bool = False) -> nn.Module:
    """Load the whole model that a tower is part of, see `load_tower`."""
    config = load_config(settings)
    if has_decoder(config):
        raise RobustTuneError(f"{settings.name!r} is an encoder with a decoder: choose an encoder alone, such as BERT")
    own = getattr(config, tower.replace("_model", "_config"), config)
    if not hasattr(own, "num_hidden_layers"):
        raise RobustTuneError(f"{settings.name!r} is no stack of layers: choose another model, such as BERT or CLIP")
    own.num_hidden_layers = settings.run_depth(own.num_hidden_layers)
    return load_model(settings, config, lambda key: needs_pooler or "pooler" not in key)


def has_decoder(config: Any) -> bool:
    """Return True if a configuration's model type has a decoder, even if only the encoder was saved."""
    if getattr(config, "is_encoder_decoder", False):
        return True
    try:
        return bool(type(config)().is_encoder_decoder)
    except (AttributeError, TypeError, ValueError):  # a model type without default values
        return False


def load_model(settings: Encoder, config: Any, needs: Callable[[str], bool] = lambda _: True) -> nn.Module:
    """Load the whole model.

    Args:
        settings: Settings that name the model and its weights.
        config: Configuration from transformers that the model is built from.
        needs: Function that returns True if the weight with a given key is used.

    Raises:
        RobustTuneError: The weights cannot be loaded, or a weight that is used is missing.
    """
    missing: set[str] = set()
    with seeded(), fetching(settings.name, settings.weights), _without_report():
        if settings.weights == "random":
            model: nn.Module = AutoModel.from_config(config, trust_remote_code=False)
        else:
            model, about = AutoModel.from_pretrained(
                **location(settings),
                config=config,
                dtype=torch.float32,
                output_loading_info=True,
                trust_remote_code=False,
            )
            missing = {key for key in about["missing_keys"] if needs(key)}
    if missing:
        raise RobustTuneError(
            f"the weights of {settings.name!r} lack {', '.join(sorted(missing)[:3])}"
            + (": set image_encoder.pooling to class or mean" if all("pooler" in key for key in missing) else "")
        )
    return model


@contextmanager
def _without_report() -> Iterator[None]:
    """Silence transformers' warning about unused weights: heads, the other tower, and layers beyond ``depth``."""
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)


def chosen_layers(settings: LayeredEncoder, hidden_states: tuple[Tensor, ...]) -> list[Tensor]:
    """Return the hidden states of the chosen layers.

    Args:
        settings: Settings of the encoder, which choose the layers.
        hidden_states: Embeddings before the first layer, followed by the output of every layer, each (B, n, d).
    """
    return [hidden_states[number] for number in settings.layer_numbers(len(hidden_states) - 1)]
