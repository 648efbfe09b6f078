"""Maximum text length of a model, derived from its position embeddings."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn
from transformers import AutoModel


def count_positions(config: Any) -> int | None:
    """Return the maximum number of tokens of a text, or None if the model has no maximum.

    RoBERTa and related models start counting positions after the id of the padding token, so some rows of their table
    are never used. Models with relative positions (T5, XLNet, DeBERTa) have no table and take texts of any length.

    Args:
        config: Configuration of a model from transformers. A configuration of two towers is read through its
            ``text_config``.
    """
    text = getattr(config, "text_config", config)
    declared = getattr(text, "max_position_embeddings", None)
    relative_only = getattr(text, "relative_attention", False) and not getattr(text, "position_biased_input", True)
    if not declared or declared < 1 or relative_only:
        return None
    return min([int(declared), *_table_sizes(config)])


def _table_sizes(config: Any) -> list[int]:
    """Return the number of usable rows of each position table that starts counting after a padding token's id."""
    try:
        with torch.device("meta"):
            model: nn.Module = AutoModel.from_config(copy.deepcopy(config), trust_remote_code=False)
    except Exception:  # a wrong configuration is reported when the model itself is loaded
        return []
    tables = (module for name, module in model.named_modules() if "position" in name.rpartition(".")[2])
    padded = (table for table in tables if getattr(table, "padding_idx", None) is not None)
    return [len(table.weight) - table.padding_idx - 1 for table in padded]
