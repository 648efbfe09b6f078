"""The identity of a fit or a test: a hash of its full settings, which are parsed but not used."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from robusttune.counting import counted
from robusttune.errors import RobustTuneError
from robusttune.paths import atomic_write, cache_home, digest_of_file
from robusttune.protocols.command_lines import arguments_of_fit, arguments_of_test, data_paths
from robusttune.protocols.matrix import PlannedRun, Protocol

UNNAMED = ("name", "run_root", "resume", "checkpoint_minutes", "test_best", "report")  # settings that change no result
PARSERS = ("jsonargparse", "lightning", "torch")  # packages whose defaults are among the settings
Resolve = Callable[[str, Sequence[str]], dict[str, Any]]  # verb, arguments -> all settings as plain data


@dataclass(frozen=True)
class Identified:
    """A fit or a test with its identity.

    Attributes:
        identity: Hash of its full settings, as hexadecimal digits.
        paths: Paths of its data by setting, as the configurations name them.
        args: Arguments of its command line, without folder, checkpoint and report.
    """

    identity: str
    paths: dict[str, str]
    args: tuple[str, ...]


@dataclass(frozen=True)
class IdentifiedRun:
    """A planned run, with the identities of its fit and its tests.

    Attributes:
        run: The run.
        fit: Its fit.
        tests: Its tests, in their order.
    """

    run: PlannedRun
    fit: Identified
    tests: tuple[Identified, ...]

    @property
    def name(self) -> str:
        """Return the name of the folder of the run: its labels, and the first digits of its identity."""
        return f"{self.run.slug}-{self.fit.identity[:8]}"


class Identities:
    """The identities of command lines, remembered in a file: parsing takes a second for each.

    Args:
        file: File that remembers them.
        resolve: Parser of a command line.
    """

    def __init__(self, file: Path, resolve: Resolve) -> None:
        self._file, self._resolve = file, resolve
        self._code = _code()
        self._known = _read(file, self._code)
        self._has_new = False
        self._digests: dict[str, str] = {}

    def of(self, verb: str, args: Sequence[str], about: str) -> Identified:
        """Return the identity of a command line.

        Args:
            verb: Name of the command.
            args: Its arguments.
            about: Whose command line it is, for error messages.

        Raises:
            RobustTuneError: An argument is invalid.
        """
        key = self._key(args)
        if key not in self._known:
            try:
                settings = self._resolve(verb, args)
            except RobustTuneError as error:
                raise RobustTuneError(f"{about}: {error}") from None
            kept = {name: value for name, value in settings.items() if name not in UNNAMED}
            self._known[key] = {"identity": _hash(kept), "paths": data_paths(settings)}
            self._has_new = True
        return Identified(self._known[key]["identity"], self._known[key]["paths"], tuple(args))

    def knows(self, args: Sequence[str]) -> bool:
        """Return whether the identity of a command line is remembered."""
        return self._key(args) in self._known

    def save(self) -> None:
        """Write the file if there is anything new. It may fail, since it only saves time."""
        if not self._has_new:
            return
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(self._file) as partial:
                partial.write_text(json.dumps({"code": self._code, "known": self._known}), encoding="utf-8")
        except OSError:
            return

    def _key(self, args: Sequence[str]) -> str:
        return _hash([self._content(arg) for arg in args])

    def _content(self, arg: str) -> str:
        """Return an argument, and for a configuration the digest of the file."""
        option, _, path = arg.partition("=")
        if option != "--config":
            return arg
        if path not in self._digests:
            try:
                self._digests[path] = digest_of_file(Path(path))
            except OSError as error:
                raise RobustTuneError(
                    f"the configuration {path} cannot be read ({error.strerror}): check the path"
                ) from None
        return f"{option}={self._digests[path]}"


def identify(
    protocol: Protocol, runs: Sequence[PlannedRun], resolve: Resolve, tell: Callable[[str], None]
) -> list[IdentifiedRun]:
    """Check the settings of all runs, and return the runs with their identities.

    Args:
        protocol: Protocol of the runs.
        runs: Runs to identify.
        resolve: Parser of a command line.
        tell: Function that shows a line to the user while this takes long.

    Raises:
        RobustTuneError: A configuration or a setting does not exist, or two runs have the same settings.
    """
    where = hashlib.sha256(str(protocol.path.absolute()).encode()).hexdigest()[:16]
    identities = Identities(cache_home() / "protocols" / f"{protocol.name}-{where}.json", resolve)
    commands = [_commands(protocol, run) for run in runs]
    new = sum(not identities.knows(args) for _, fit, tests in commands for args in (fit, *tests))
    if new:
        tell(f"checking the settings of {counted(new, 'fit and test', 'fits and tests')}, which is remembered")
    found = []
    try:
        for run, fit, tests in commands:
            about = _about(protocol, run)
            own = identities.of("fit", fit, about)
            found.append(
                IdentifiedRun(
                    run,
                    own,
                    tuple(
                        identities.of("test", args, f"{about}, test {test.report}")
                        for test, args in zip(run.tests, tests, strict=True)
                    ),
                )
            )
    finally:
        identities.save()
    _refuse_equal(protocol, found)
    return found


def _commands(protocol: Protocol, run: PlannedRun) -> tuple[PlannedRun, list[str], list[list[str]]]:
    """Return a run with the arguments of its fit and of its tests.

    Raises:
        RobustTuneError: A configuration does not exist.
    """
    try:
        return run, arguments_of_fit(run), [arguments_of_test(run, test) for test in run.tests]
    except RobustTuneError as error:
        raise RobustTuneError(f"{_about(protocol, run)}: {error}") from None


def _about(protocol: Protocol, run: PlannedRun) -> str:
    return f"{protocol.path}, {_labels(run)}"


def _refuse_equal(protocol: Protocol, runs: Iterable[IdentifiedRun]) -> None:
    """Refuse runs that would be the same fit.

    Raises:
        RobustTuneError: Two runs have the same identity.
    """
    runs = [*runs]
    [(identity, count)] = Counter(run.fit.identity for run in runs).most_common(1)
    if count > 1:
        first, second = [run.run for run in runs if run.fit.identity == identity][:2]
        raise RobustTuneError(
            f"{protocol.path}: {_labels(first)} and {_labels(second)} are the same fit, since all their settings are "
            "the same: correct the values of the axes"
        )


def _labels(run: PlannedRun) -> str:
    return " ".join(f"{axis}={label}" for axis, label in run.labels.items())


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


def _code() -> str:
    """Return a hash of this package's code and of the versions of those whose defaults are among the settings."""
    package = Path(__file__).parents[1]
    files = (digest_of_file(path) for path in sorted(package.rglob("*.py")))
    return _hash([[*files], [version(name) for name in PARSERS]])


def _read(file: Path, code: str) -> dict[str, Any]:
    """Return the content of a file; nothing if it is of other code, missing or damaged."""
    try:
        read = json.loads(file.read_text(encoding="utf-8"))
        found = read["known"] if read["code"] == code else {}
        return {key: {"identity": str(one["identity"]), "paths": dict(one["paths"])} for key, one in found.items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return {}
