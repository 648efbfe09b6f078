"""Export of tuned models to ONNX, with a check against the live model and an example that needs no PyTorch."""

from __future__ import annotations

from robusttune.inference.onnx.folder import write_onnx

__all__ = ["write_onnx"]
