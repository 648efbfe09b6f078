"""MM-IMDb in its raw files: posters and plots of films, with any number of 23 genres per film (arXiv 1702.01992)."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa

from robusttune.data.problems import Problems
from robusttune.data.sources.base import Published, Record, Source, none_if_blank, require_paths, to_table
from robusttune.data.sources.files import is_unicode, read_json
from robusttune.errors import RobustTuneError
from robusttune.paths import user_path
from robusttune.types import Split

log = logging.getLogger(__name__)

GENRES = (
    *("Action", "Adventure", "Animation", "Biography", "Comedy", "Crime", "Documentary", "Drama"),
    *("Family", "Fantasy", "Film-Noir", "History", "Horror", "Music", "Musical", "Mystery"),
    *("Romance", "Sci-Fi", "Short", "Sport", "Thriller", "War", "Western"),
)
RARE = ("Adult", "News", "Reality-TV", "Talk-Show")  # genres that the raw files have beside the 23 of the paper
SAMPLES = {"train": 15_552, "val": 2_608, "test": 7_799}


@dataclass(frozen=True)
class MMIMDb(Source):
    """The MM-IMDb data set in its original layout of one JSON file and one JPEG file per film.

    The files are ``split.json`` and ``dataset/<7 digits>.{json,jpeg}``. If a film has several plots, the longest one is
    its text. Genres are in alphabetical order.

    Source: Arevalo et al., Gated Multimodal Units for Information Fusion (arXiv 1702.01992).

    Args:
        root: Folder that holds ``split.json`` and ``dataset``.
        rare_genres: Treatment of films with one of the four rare genres: ``drop_genre`` removes these genres from the
            film's labels, ``drop_film`` leaves the film out.
    """

    root: str
    rare_genres: Literal["drop_genre", "drop_film"] = "drop_genre"
    multilabel = True

    def __post_init__(self) -> None:
        hint = "set data.source.root to the folder of MM-IMDb that holds split.json and dataset/"
        require_paths(self._folder / "split.json", folders=[self._folder / "dataset"], hint=hint)

    @property
    def _folder(self) -> Path:
        return user_path(self.root)

    @property
    def published(self) -> Published | None:
        """Return the published counts, or None with ``drop_film``, whose counts nobody has published."""
        return Published(SAMPLES, classes=len(GENRES)) if self.rare_genres == "drop_genre" else None

    def read(self, split: Split) -> pa.Table | None:
        """Return the records of ``train``, ``val`` or ``test``, or None for ``predict``.

        Raises:
            RobustTuneError: If ``split.json`` or a film's JSON file cannot be read or has an unknown form.
        """
        if split == "predict":
            return None
        file = self._folder / "split.json"
        bad = Problems(f"{file}, {split}", "films")
        films = [self._film(number, bad) for number in self._numbers(split)]
        bad.add_repeats((film.id, f"film {place}") for place, film in enumerate(films, 1) if film)
        bad.refuse(len(films))
        return self._without_rare([film for film in films if film], split)

    def class_names(self, table: pa.Table) -> list[str]:
        """Return the 23 genres, also those that no film of the table has."""
        return list(GENRES)

    def _numbers(self, split: Split) -> list[Any]:
        name = {"val": "dev"}.get(split, split)
        splits = read_json(self._folder / "split.json")
        if not isinstance(splits, dict) or not isinstance(splits.get(name), list):
            raise RobustTuneError(f"{self._folder / 'split.json'} has no list {name!r}: fetch it again")
        return list(splits[name])

    def _film(self, number: Any, bad: Problems) -> Record | None:
        """Return the record of a film with all its genres, or None where the film cannot be read."""
        name = str(number).zfill(7)
        if not name.isdecimal():
            bad.add(repr(number), "have an id that is no number")
            return None
        file = self._folder / "dataset" / f"{name}.json"
        try:
            metadata = read_json(file)
        except RobustTuneError as error:
            bad.add(str(error), "have no JSON file that can be read")
            return None
        metadata = metadata if isinstance(metadata, dict) else {}
        plots, genres = metadata.get("plot", []), metadata.get("genres")
        plots = [plots] if isinstance(plots, str) else plots
        if not isinstance(genres, list) or not all(genre in (*GENRES, *RARE) for genre in genres):
            bad.add(f"{name}, {genres!r:.60}", "have no list of known genres")
            genres = []
        if not isinstance(plots, list) or not all(isinstance(plot, str) and is_unicode(plot) for plot in plots):
            bad.add(name, "have a plot that is no text")
            plots = []
        poster = str(file.with_suffix(".jpeg"))
        return Record(name, poster, none_if_blank(max(plots, key=len, default=None)), list(dict.fromkeys(genres)))

    def _without_rare(self, records: list[Record], split: Split) -> pa.Table:
        rare = [record.id for record in records if {*(record.labels or [])} & {*RARE}]
        kept = [record for record in records if self.rare_genres == "drop_genre" or record.id not in {*rare}]
        labels = [[genre for genre in record.labels or [] if genre not in RARE] for record in kept]
        if rare:
            outcome = "lose them" if self.rare_genres == "drop_genre" else "are left out"
            log.warning(
                "%s: %d of %d films have rare genres (%s) and %s; %d films now have no genre",
                *(split, len(rare), len(records), ", ".join(RARE), outcome, sum(not genres for genres in labels)),
            )
        return to_table(record._replace(labels=genres) for record, genres in zip(kept, labels, strict=True))
