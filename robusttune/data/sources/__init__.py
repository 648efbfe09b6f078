"""Data sources: one small module per data set, which converts its layout on disk to tables of records."""

from robusttune.data.problems import Problems
from robusttune.data.sources.aircraft import FGVCAircraft
from robusttune.data.sources.base import Published, Record, Source, none_if_blank, to_table
from robusttune.data.sources.coop import CoOp
from robusttune.data.sources.files import read_text, within
from robusttune.data.sources.food101 import Food101
from robusttune.data.sources.hateful_memes import HatefulMemes
from robusttune.data.sources.hugging_face import HuggingFace
from robusttune.data.sources.hugging_face_stream import Stream
from robusttune.data.sources.image_folder import ImageFolder
from robusttune.data.sources.imagenet import ImageNet, ImageNetVariant
from robusttune.data.sources.mmimdb import MMIMDb
from robusttune.data.sources.mmimdb_hdf5 import MMIMDbHDF5
from robusttune.data.sources.mora_arrow import MoRAArrow
from robusttune.data.sources.shapes import Shapes, Visibility, World
from robusttune.data.sources.snli_ve import SNLIVE
from robusttune.data.sources.split_names import SplitNames
from robusttune.data.sources.table import Table

__all__ = [
    "SNLIVE",
    "CoOp",
    "FGVCAircraft",
    "Food101",
    "HatefulMemes",
    "HuggingFace",
    "ImageFolder",
    "ImageNet",
    "ImageNetVariant",
    "MMIMDb",
    "MMIMDbHDF5",
    "MoRAArrow",
    "Problems",
    "Published",
    "Record",
    "Shapes",
    "Source",
    "SplitNames",
    "Stream",
    "Table",
    "Visibility",
    "World",
    "none_if_blank",
    "read_text",
    "to_table",
    "within",
]
