"""What frozen encoders make of the samples, computed once and kept."""

from robusttune.data.cache.cached import Cached
from robusttune.data.cache.feature_cache import FeatureCache, Running

__all__ = ["Cached", "FeatureCache", "Running"]
