"""Class names as prompts, and what a frozen CLIP makes of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from robusttune.counting import counted
from robusttune.encoders.clip import FrozenCLIPText, unit
from robusttune.encoders.tokenization import Tokenizer
from robusttune.errors import RobustTuneError
from robusttune.models.prompts import Packed, shared_tokens
from robusttune.types import Encoded, Tokens, prompt_name

PLACE = "{}"
BLOCK = 256  # prompts that the encoder takes at once


class ClassPrompts(NamedTuple):
    """What the frozen CLIP makes of prompts for ``C`` classes.

    Attributes:
        packed: states that enter the first layer that takes tokens, of the first template's prompts.
        untouched: (C, d_e) features of length 1, the mean over all templates.
    """

    packed: Packed
    untouched: Tensor

    def map(self, fn: Callable[[Tensor], Tensor]) -> ClassPrompts:
        """The same with ``fn`` applied to every tensor."""
        packed = Packed(**{name: fn(tensor) for name, tensor in vars(self.packed).items()})
        return ClassPrompts(packed, fn(self.untouched))


def check_templates(templates: list[str]) -> None:
    """Raises:
    RobustTuneError: there is none, or one without a place for the class's name.
    """
    if not templates:
        raise RobustTuneError("model.templates is empty: give at least one, such as 'a photo of a {}.'")
    for template in templates:
        if template.count(PLACE) != 1:
            raise RobustTuneError(
                f"model.templates has {template!r}: give each one {PLACE}, where the name of the class stands"
            )


def tokenise(class_names: list[str], template: str, tokenizer: Tokenizer) -> Tokens:
    """Return prompts, in which each class goes by its `prompt_name`.

    Raises:
        RobustTuneError: a name is blank or comes twice, or a prompt is longer than the model takes.
    """
    said = [prompt_name(name) for name in class_names]
    if "" in said:
        raise RobustTuneError(f"class {said.index('') + 1} of {len(said)} has no name: give it one to be prompted by")
    tokens, cut = tokenizer([template.replace(PLACE, words) for words in said])
    too_long = [name for name, was_cut in zip(class_names, cut, strict=True) if was_cut]
    if too_long:
        raise RobustTuneError(
            f"{counted(len(too_long), 'prompt')} {'is' if len(too_long) == 1 else 'are'} longer than the "
            f"{tokenizer.max_length} tokens that the text encoder takes, "
            f"the first is that of {too_long[0]!r}: shorten its name, or {template!r}"
        )
    seen: dict[tuple[int, ...], int] = {}
    for number, ids in enumerate(tokens.input_ids.tolist()):
        other = seen.setdefault(tuple(ids), number)
        namesakes = said[other] == said[number] and all(class_names[n].endswith("]") for n in (other, number))
        if other != number and not namesakes:
            both = f"{class_names[other]!r} and {class_names[number]!r}"
            raise RobustTuneError(f"the classes {both} make the same prompt: give each another name")
    return tokens


@torch.inference_mode(False)  # what comes of inference mode cannot be trained with
@torch.no_grad()
def encode_prompts(encoder: FrozenCLIPText, class_names: list[str], templates: list[str]) -> ClassPrompts:
    """Prompts through the frozen layers.

    Raises:
        RobustTuneError: see `tokenise`.
    """
    device, first = encoder.anchor.device, None
    means = torch.zeros((), device=device)
    for template in templates:
        tokens = tokenise(class_names, template, encoder.prompt_tokenizer).map(lambda tensor: tensor.to(device))
        with torch.autocast(device.type, enabled=False):
            encoded = _encode(encoder, tokens)
        means = means + encoded.pooled / len(templates)
        first = first or (encoded, shared_tokens(tokens))
    assert first is not None
    (states, mask), shared = (first[0].tokens[0], first[0].mask[0]), first[1]
    return ClassPrompts(Packed.of(states, mask, states[0, :shared].clone()), unit(means))


def _encode(encoder: FrozenCLIPText, tokens: Tokens) -> Encoded:
    """A block at a time: all tokens of a thousand prompts would take gigabytes."""
    starts = range(0, len(tokens), BLOCK)
    blocks = [tokens.map(lambda tensor, start=start: tensor[start : start + BLOCK]) for start in starts]  # type: ignore[misc]
    parts = [encoder.enter(block, untouched=True) for block in blocks]
    states = torch.cat([part.tokens[0] for part in parts])
    return Encoded(torch.cat([part.pooled for part in parts]), [states], [tokens.attention_mask])
