"""The longest text that a model has positions for."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn
from transformers import AutoModel


def count_positions(config: Any) -> int | None:
    """Return the maximum number of tokens of a text, or None where the model has no maximum.

    RoBERTa and its relatives count positions from the padding token's id on, so that their table holds some rows that
    no token uses. Models with relative positions (T5, XLNet, DeBERTa) have no table, and take any length.

    Args:
        config: Configuration of a model of transformers, of both towers where there are two.
    """
    text = getattr(config, "text_config", config)
    declared = getattr(text, "max_position_embeddings", None)
    relative_only = getattr(text, "relative_attention", False) and not getattr(text, "position_biased_input", True)
    if not declared or declared < 1 or relative_only:
        return None
    return min([int(declared), *_table_sizes(config)])


def _table_sizes(config: Any) -> list[int]:
    """Return the usable rows of each table of positions that counts from a padding token on."""
    try:
        with torch.device("meta"):
            model: nn.Module = AutoModel.from_config(copy.deepcopy(config), trust_remote_code=False)
    except Exception:  # the model itself is loaded later, and says what is wrong with its configuration
        return []
    tables = (module for name, module in model.named_modules() if "position" in name.rpartition(".")[2])
    padded = (table for table in tables if getattr(table, "padding_idx", None) is not None)
    return [len(table.weight) - table.padding_idx - 1 for table in padded]
