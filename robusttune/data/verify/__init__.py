"""Is a copy of a data set good? Counts, files, duplicates, texts, presence, and a hash of what there is."""

from robusttune.data.verify.check import verify
from robusttune.data.verify.findings import Verification

__all__ = ["Verification", "verify"]
