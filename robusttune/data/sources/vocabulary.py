"""A reader of vocabularies in pickled NumPy files that never executes code from the file."""

from __future__ import annotations

import codecs
import pickle
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from robusttune.data.sources.files import guard_against_changes, is_unicode
from robusttune.errors import RobustTuneError


def read_words(path: Path) -> dict[int, str]:
    """Read the vocabulary of MM-IMDb's ``metadata.npy``, a pickled dictionary with the key ``ix_to_word``.

    Unpickling is restricted to plain values and NumPy arrays, so a file that holds code is refused.

    Args:
        path: Path of the ``.npy`` file.

    Returns:
        Words, by their number in the data set.

    Raises:
        RobustTuneError: If the file cannot be read, holds other objects, or has no vocabulary.
    """
    try:
        with guard_against_changes(path), path.open("rb") as file:
            np.lib.format.read_magic(file)
            np.lib.format.read_array_header_1_0(file)
            words = _Plain(file, encoding="latin1").load().item()["ix_to_word"]
        if not all(isinstance(word, str) and is_unicode(word) for word in words.values()):
            raise ValueError("its words are no texts")
        return {int(number): str(word) for number, word in words.items()}
    except RobustTuneError:
        raise
    except Exception as error:  # a damaged pickle can raise any exception
        raise RobustTuneError(f"{path} holds no vocabulary ({error!s:.120}): fetch it again") from None


class _Plain(pickle.Unpickler):
    """An unpickler that constructs NumPy arrays and refuses every other class or function."""

    allowed: ClassVar[dict[str, Any]] = {
        "ndarray": np.ndarray,
        "dtype": np.dtype,
        "_reconstruct": np.empty(0).__reduce__()[0],
        "scalar": np.float64(0).__reduce__()[0],
    }

    def find_class(self, module: str, name: str) -> Any:
        """Return the constructor of an object in the pickle.

        Raises:
            ValueError: If the pickle names anything but NumPy's array constructors or ``_codecs.encode``.
        """
        if module.startswith("numpy") and name in self.allowed:
            return self.allowed[name]
        if (module, name) == ("_codecs", "encode"):  # Python 2 pickled bytes with it
            return codecs.encode
        raise ValueError(f"it names {module}.{name}")
