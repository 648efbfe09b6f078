"""A vocabulary that NumPy has pickled, read without running anything."""

from __future__ import annotations

import codecs
import pickle
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from robusttune.data.sources.files import is_unicode, unchanged
from robusttune.errors import RobustTuneError


def read_words(path: Path) -> dict[int, str]:
    """The vocabulary, by number. The file is a pickle, of which plain values alone are read.

    Raises:
        RobustTuneError: it holds anything else, or no vocabulary.
    """
    try:
        with unchanged(path), path.open("rb") as file:
            np.lib.format.read_magic(file)
            np.lib.format.read_array_header_1_0(file)
            words = _Plain(file, encoding="latin1").load().item()["ix_to_word"]
        if not all(isinstance(word, str) and is_unicode(word) for word in words.values()):
            raise ValueError("its words are no texts")
        return {int(number): str(word) for number, word in words.items()}
    except RobustTuneError:
        raise
    except Exception as error:  # a pickle can go wrong in any way
        raise RobustTuneError(f"{path} holds no vocabulary ({error!s:.120}): fetch it again") from None


class _Plain(pickle.Unpickler):
    """Makes NumPy arrays, and nothing that could run."""

    made_by: ClassVar[dict[str, Any]] = {
        "ndarray": np.ndarray,
        "dtype": np.dtype,
        "_reconstruct": np.empty(0).__reduce__()[0],
        "scalar": np.float64(0).__reduce__()[0],
    }

    def find_class(self, module: str, name: str) -> Any:
        if module.startswith("numpy") and name in self.made_by:
            return self.made_by[name]
        if (module, name) == ("_codecs", "encode"):  # bytes, as Python 2 wrote them
            return codecs.encode
        raise ValueError(f"it names {module}.{name}")
