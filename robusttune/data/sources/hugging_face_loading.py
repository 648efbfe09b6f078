"""Loading of data sets by the `datasets` library: whole, or as a stream of training samples beside whole splits."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from robusttune.data.sources.extras import import_extra
from robusttune.data.sources.files import path_kind
from robusttune.encoders.hub import PREFETCH, cached_commit, offline
from robusttune.errors import RobustTuneError
from robusttune.paths import user_path

if TYPE_CHECKING:
    from robusttune.data.sources.hugging_face import HuggingFace

T = TypeVar("T")
RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")
TAR_FORMAT = "webdataset"  # the library's name of tar files whose files of one name make up a sample
# How the library decodes the files in tars, by the last part of their endings. All others are bytes.
TAR_TEXTS, TAR_NUMBERS = ("txt", "text", "transcript"), ("cls", "cls2", "index", "inx", "id")
TAR_OBJECTS = ("json", "jsn")
OF_THE_SPLITS = ("name", "version", "data_dir", "data_files", "description", "features")  # of a configuration


def load_splits(source: HuggingFace) -> Mapping[str, Any]:
    """Load a data set whole.

    Returns:
        Mapping from the data set's own split names to its `datasets.Dataset` objects. A data set that was saved without
        splits is mapped from ``train``.

    Raises:
        RobustTuneError: If the data set cannot be loaded, is incomplete, or was prepared at another revision. The
            message gives the reason in one line.
    """
    datasets = import_extra("datasets", "huggingface")
    if is_saved(source):
        found = _loaded(source, lambda: datasets.load_from_disk(str(user_path(source.path))))
    else:
        options = {"data_files": source.data_files, "revision": source.revision} | _tar_options(source)
        found = _loaded(source, lambda: datasets.load_dataset(source.path, source.name, **options))
    splits = found if isinstance(found, dict) else {"train": found}
    if source.on_hub:
        _check_prepared(source, splits)
    return splits


def is_saved(source: HuggingFace) -> bool:
    """Return whether the path is a folder that ``save_to_disk`` has made."""
    folder = user_path(source.path)
    return any(path_kind(folder / name) == "file" for name in ("dataset_dict.json", "state.json"))


class StreamedSplits(Mapping[str, Any]):
    """The splits of a data set, each of which is loaded when it is asked for, or read as a stream.

    Args:
        source: Source of the samples.

    Raises:
        RobustTuneError: The data set cannot be found, or is on the disk already.
    """

    def __init__(self, source: HuggingFace) -> None:
        self.source = source
        if is_saved(source):
            raise RobustTuneError(
                f"{source.path} was made by save_to_disk and is on the disk already: leave data.source.stream out"
            )
        self._loaded: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self._loaded:
            load, builder = import_extra("datasets", "huggingface").load_dataset, self._builder
            options = {"data_files": {name: self.files[name]}, "features": builder.info.features}
            options |= {key: value for key, value in vars(builder.config).items() if key not in OF_THE_SPLITS}
            self._loaded[name] = _loaded(self.source, lambda: load(builder.name, split=name, **options))
        return self._loaded[name]

    def __contains__(self, name: object) -> bool:  # without loading it
        return name in self.files

    def __iter__(self) -> Iterator[str]:
        return iter(self.files)

    def __len__(self) -> int:
        return len(self.files)

    @cached_property
    def files(self) -> dict[str, list[str]]:
        """The paths or URLs of the files of each split."""
        return {str(name): [str(file) for file in files] for name, files in self._builder.config.data_files.items()}

    def stream(self, name: str) -> Any:
        """Return a split as `datasets.IterableDataset`, whose images are not decoded."""
        found = _loaded(self.source, lambda: self._builder.as_streaming_dataset(split=name))
        return found if found.features is None else found.decode(False)  # Only known types can be images.

    @property
    def is_tar(self) -> bool:
        """Return whether the files are tar files."""
        return bool(self._builder.name == TAR_FORMAT)

    @cached_property
    def _builder(self) -> Any:
        source, load = self.source, import_extra("datasets", "huggingface").load_dataset_builder
        options = {"data_files": source.data_files, "revision": source.revision}
        builder = _loaded(source, lambda: load(source.path, source.name, **options))
        if not builder.config.data_files:
            raise RobustTuneError(f"{source.path} has no data files to stream: give data.source.files")
        if builder.name == TAR_FORMAT:  # It would otherwise refuse samples that lack a modality.
            return _loaded(source, lambda: load(source.path, source.name, **options, features=tar_features(source)))
        return builder


def tar_features(source: HuggingFace) -> Any:
    """Return the types of the files that make up a sample in tar files, as `datasets.Features`.

    A file that a sample lacks is a missing cell. The library itself would find the types by the first samples, and
    refuses those that lack a file.

    Raises:
        RobustTuneError: A column is JSON, which may be a list of labels only, or several labels are no list.
    """
    datasets = import_extra("datasets", "huggingface")
    features = {name: datasets.Image() for name in source.image_columns}
    features |= {name: datasets.Value("string") for name in ("__key__", "__url__")}
    for name in (name for name in source.used_columns if name not in features):
        ending = name.rpartition(".")[2]
        if (ending in TAR_OBJECTS) != (source.multilabel and name == source.label_column):
            raise RobustTuneError(
                f"the files that end in {name} cannot be used as a column: texts, ids and single labels are txt or cls "
                "files, and several labels a list in a json file"
            )
        kind = "string" if ending in TAR_TEXTS else "int64" if ending in TAR_NUMBERS else "binary"
        features[name] = datasets.List(datasets.Value("string")) if ending in TAR_OBJECTS else datasets.Value(kind)
    return datasets.Features(features)


def expanded(pattern: str) -> list[str]:
    """Return the paths or URLs that a pattern with a range in braces stands for.

    Example:
        >>> expanded("https://example.org/train-{08..10}.tar")[1:]
        ['https://example.org/train-09.tar', 'https://example.org/train-10.tar']
    """
    found = RANGE.search(pattern)
    if found is None:
        return [pattern]
    first, last = found.groups()
    numbers = range(int(first), int(last) + 1)
    return [
        path
        for number in numbers
        for path in expanded(f"{pattern[: found.start()]}{number:0{len(first)}}{pattern[found.end() :]}")
    ]


def _tar_options(source: HuggingFace) -> dict[str, Any]:
    return {"features": tar_features(source)} if source.path == TAR_FORMAT else {}


def _loaded(source: HuggingFace, load: Callable[[], T]) -> T:
    """Return the result of a function of the library; replace its errors by one that says what to do."""
    try:
        return load()
    except Exception as error:  # hub, network and parsers raise many types
        cause = error.__cause__ or error  # the library wraps the errors of parsers in one that says nothing
        reason = " ".join(str(cause).split()).rstrip(".")
        remedy = "correct data.source.path, name and revision" if source.files is None else "correct data.source.files"
        remedy += f", or {PREFETCH}" if source.on_hub else ""
        raise RobustTuneError(f"{source.path} cannot be loaded ({reason:.240}): {remedy}") from None


def _check_prepared(source: HuggingFace, splits: Mapping[str, Any]) -> None:
    """Check the number of rows and the revision of the splits that the library has prepared.

    The library itself does not count the rows, and when offline it uses whichever revision is cached.

    Raises:
        RobustTuneError: If rows are missing, or the cached revision is another one.
    """
    commit = cached_commit(source.path, source.revision, "dataset")
    for name, data in splits.items():
        folder, rows = Path(data.cache_files[0]["filename"]).parent, data.info.splits[name].num_examples
        if len(data) != rows:
            raise RobustTuneError(f"{folder} has {len(data)} rows of {name}, not {rows}: remove it, and {PREFETCH}")
        if offline() and commit != folder.name and (commit or source.revision):
            raise RobustTuneError(
                f"{source.path} was last prepared at {folder.name}, which is not {source.revision or 'main'}: "
                "prefetch each revision into an HF_HOME of its own"
            )
