"""The feature cache: outputs of the frozen encoders, computed once and stored on disk."""

from robusttune.data.cache.cached import Cached
from robusttune.data.cache.feature_cache import FeatureCache, Running, Tower

__all__ = ["Cached", "FeatureCache", "Running", "Tower"]
