"""The data set `shapes`: generated scenes with captions, whose Bayes accuracy is known under every condition."""

from robusttune.data.sources.shapes.factors import FACTORS, HIDDEN
from robusttune.data.sources.shapes.source import Shapes
from robusttune.data.sources.shapes.world import Scene, Visibility, World

__all__ = ["FACTORS", "HIDDEN", "Scene", "Shapes", "Visibility", "World"]
