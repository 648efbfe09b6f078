"""The feature cache: outputs of the frozen encoders, computed once and stored on disk."""

from robusttune.data.cache.cached import CachedModality
from robusttune.data.cache.feature_cache import CachedEncoder, EncodingSettings, FeatureCache
from robusttune.data.cache.memory import MemoryStore

__all__ = ["CachedEncoder", "CachedModality", "EncodingSettings", "FeatureCache", "MemoryStore"]
