"""Robust tuning of frozen image and text encoders for image-text classification."""

__version__ = "0.1.0"
