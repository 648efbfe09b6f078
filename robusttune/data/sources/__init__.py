"""Data sources: one small file a data set, from its layout on disk to a table of records."""

from robusttune.data.sources.base import Record, Source
from robusttune.data.sources.food101 import Food101
from robusttune.data.sources.shapes import Shapes, Visibility, World
from robusttune.data.sources.table import Table

__all__ = ["Food101", "Record", "Shapes", "Source", "Table", "Visibility", "World"]
