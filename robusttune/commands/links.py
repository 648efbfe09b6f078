"""The encoders on the command line, and the links that pass encoders and facts between data and model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from jsonargparse import ArgumentParser

from robusttune.encoders import ImageEncoder, TextEncoder

ENCODERS = {"image_encoder": ImageEncoder, "text_encoder": TextEncoder}
LINKED = {*ENCODERS, "facts"}  # arguments of data and model that are no settings: the links below fill them in


def add_encoders(parser: ArgumentParser, *groups: str) -> None:
    """Add the settings of both encoders, and pass the encoders to groups of arguments.

    Args:
        parser: Parser of the command.
        groups: Groups with the arguments ``image_encoder`` and ``text_encoder``, such as ``data``.
    """
    for encoder, kind in ENCODERS.items():
        parser.add_subclass_arguments(kind, encoder, required=True)
        for group in groups:
            parser.link_arguments(encoder, f"{group}.{encoder}", apply_on="instantiate")


def link_facts(parser: ArgumentParser, facts_of: Callable[[Any], Any]) -> None:
    """Pass the facts of the data to the model.

    Args:
        parser: Parser of the command, with the groups ``data`` and ``model``.
        facts_of: Function that returns the facts of a data module.
    """
    parser.link_arguments("data", "model.init_args.facts", compute_fn=facts_of, apply_on="instantiate")
