"""Prompts of class names, and their features from a frozen CLIP."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from robusttune.counting import counted
from robusttune.encoders.clip import FrozenCLIPText
from robusttune.encoders.tokenization import Tokenizer
from robusttune.encoders.upper_tower import unit
from robusttune.errors import RobustTuneError
from robusttune.models.packed import Packed, common_prefix_length
from robusttune.types import Encoded, Tokens, prompt_name

PLACE = "{}"  # the placeholder of the class name in a template
BLOCK = 256  # prompts that are encoded at once


class ClassPrompts(NamedTuple):
    """Features of the prompts of ``C`` classes from the frozen CLIP.

    Attributes:
        packed: Token states of the first template's prompts, as inputs of the first layer that is adapted.
        untouched: Features of the classes, averaged over all templates, shape (C, d_e), L2-normalised.
    """

    packed: Packed
    untouched: Tensor

    def map(self, fn: Callable[[Tensor], Tensor]) -> ClassPrompts:
        """Return a copy with ``fn`` applied to every tensor."""
        packed = Packed(**{name: fn(tensor) for name, tensor in vars(self.packed).items()})
        return ClassPrompts(packed, fn(self.untouched))


def check_templates(templates: Sequence[str]) -> None:
    """Check that there is a template, and that each contains ``{}`` exactly once.

    Raises:
        RobustTuneError: The list is empty, or a template does not contain ``{}`` exactly once.

    Example:
        >>> check_templates(["a photo of a {}."])
    """
    if not templates:
        raise RobustTuneError("model.templates is empty: give at least one, such as 'a photo of a {}.'")
    for template in templates:
        if template.count(PLACE) != 1:
            raise RobustTuneError(
                f"model.templates has {template!r}: give each one {PLACE}, where the name of the class stands"
            )


def tokenise(class_names: list[str], template: str, tokenizer: Tokenizer) -> Tokens:
    """Tokenise the prompts of classes, each with the class's `prompt_name`.

    Args:
        class_names: Names of ``C`` classes.
        template: Prompt template with ``{}``.
        tokenizer: Tokenizer of the text encoder.

    Returns:
        Tokens of the prompts, shape (C, n).

    Raises:
        RobustTuneError: A name is blank, two classes have the same prompt (unless their full names differ in a suffix
            in brackets), or a prompt is longer than the encoder's limit.
    """
    names = [prompt_name(name) for name in class_names]
    if "" in names:
        raise RobustTuneError(
            f"class {names.index('') + 1} of {len(names)} has a blank name: give it a name for its prompt"
        )
    tokens, cut = tokenizer([template.replace(PLACE, name) for name in names])
    too_long = [name for name, was_cut in zip(class_names, cut, strict=True) if was_cut]
    if too_long:
        raise RobustTuneError(
            f"{counted(len(too_long), 'prompt')} {'is' if len(too_long) == 1 else 'are'} longer than the "
            f"{tokenizer.max_length} tokens that the text encoder takes, "
            f"the first is that of {too_long[0]!r}: shorten its name, or {template!r}"
        )
    first_with: dict[tuple[int, ...], int] = {}
    for number, ids in enumerate(tokens.input_ids.tolist()):
        other = first_with.setdefault(tuple(ids), number)
        namesakes = names[other] == names[number] and all(class_names[n].endswith("]") for n in (other, number))
        if other != number and not namesakes:
            both = f"{class_names[other]!r} and {class_names[number]!r}"
            raise RobustTuneError(f"the classes {both} make the same prompt: give each another name")
    return tokens


@torch.inference_mode(False)  # Autograd refuses tensors that were created in inference mode.
@torch.no_grad()
def encode_prompts(encoder: FrozenCLIPText, class_names: list[str], templates: Sequence[str]) -> ClassPrompts:
    """Encode the prompts of classes with the frozen text tower of a CLIP.

    Args:
        encoder: Text encoder.
        class_names: Names of the classes, in label order.
        templates: Prompt templates, at least one.

    Raises:
        RobustTuneError: See `tokenise`.
    """
    device, first = encoder.anchor.device, None
    means = torch.zeros((), device=device)
    for template in templates:
        tokens = tokenise(class_names, template, encoder.prompt_tokenizer).map(lambda tensor: tensor.to(device))
        with torch.autocast(device.type, enabled=False):
            encoded = _encode(encoder, tokens)
        means = means + encoded.pooled / len(templates)
        # Where attention is not causal, the states of a common prefix depend on the rest of the text.
        first = first or (encoded, common_prefix_length(tokens) if encoder.upper.causal else 0)
    assert first is not None
    (states, mask), shared = (first[0].tokens[0], first[0].mask[0]), first[1]
    return ClassPrompts(Packed.of(states, mask, states[0, :shared].clone()), unit(means))


def _encode(encoder: FrozenCLIPText, tokens: Tokens) -> Encoded:
    """Encode prompts in blocks, because the token features of a thousand prompts would take gigabytes."""
    starts = range(0, len(tokens), BLOCK)
    blocks = [tokens.map(lambda tensor, start=start: tensor[start : start + BLOCK]) for start in starts]  # type: ignore[misc]
    parts = [encoder.encode_lower(block, untouched=True) for block in blocks]
    states = torch.cat([part.tokens[0] for part in parts])
    return Encoded(torch.cat([part.pooled for part in parts]), [states], [torch.cat([part.mask[0] for part in parts])])
