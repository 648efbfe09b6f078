"""Verification of a copy of a data set: counts, files, duplicates, texts, present modalities, and a content hash."""

from robusttune.data.verify.check import verify
from robusttune.data.verify.findings import Verification

__all__ = ["Verification", "verify"]
