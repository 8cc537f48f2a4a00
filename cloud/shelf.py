"""Where models come from: a directory, and which versions lie in it now."""

import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from stat import S_ISREG

from ..shared.bundle import list_bundles
from ..shared.errors import UnknownModel
from ..shared.manifest import Precision, Runtime
from ..shared.security import Security
from ..shared.signing import TrustStore
from .choices import chosen
from .model import Model
from .remote import RemoteUrl, open_remote
from .repository import load_version


@dataclass(frozen=True, slots=True)
class Found:
    """One version of a model on disk; `mark` is another once its files are."""

    name: str
    version: str
    path: Path
    mark: str

    @property
    def key(self) -> tuple[str, str]:
        return self.name, self.version

    @property
    def revision(self) -> int:
        """The same files under the same version have the same."""
        return zlib.crc32(self.mark.encode())

    def __str__(self) -> str:
        return f"{self.name}/{self.version}"


@dataclass(frozen=True, slots=True)
class Seen:
    """What a shelf held of one model: the version that was chosen, if any, and all to be served."""

    chosen: str
    versions: tuple[Found, ...]
    """Oldest first."""


Snapshot = dict[str, Seen]


class Shelf(ABC):
    """A directory of models."""

    @abstractmethod
    def found(self, *, everything: bool = False) -> list[Found]:
        """What is to be served of what is there, or all of it, by name, oldest version first."""

    @abstractmethod
    def open(self, found: Found, *, load: bool = True) -> Model:
        """A version, with its whole loaded and tried unless told not to; blocking.

        BundleError or ModelFault if it is bad.
        """

    def snapshot(self) -> "Snapshot":
        """What is to be served now, to be compared with a later one."""
        return {
            name: Seen(chosen(found[0].path.parent), tuple(found))
            for name, found in by_name(self.found()).items()
        }

    def folder(self, name: str) -> Path:
        """Where the versions of a model lie; UnknownModel if it is not here."""
        for found in self.found(everything=True):
            if found.name == name:
                return found.path.parent
        raise UnknownModel(f"{name!r} is not in the repository")


@dataclass(frozen=True, kw_only=True)
class BundleShelf(Shelf):
    """Bundles: every version is served, since a fleet has edges with old and new ones."""

    root: Path
    trust: TrustStore
    max_batch: int
    precision: Precision = Precision.FLOAT32
    runtime: Runtime | None = None
    remotes: Mapping[str, RemoteUrl] = field(default_factory=dict)
    """Where the whole large models of some bundles are computed, by the bundles' names."""
    security: Security = field(default_factory=Security)
    budget_bytes: int | None = None

    def found(self, *, everything: bool = False) -> list[Found]:
        return [
            Found(name, path.name, path, mark_of((*path.glob("*"), *path.glob("blobs/*"))))
            for name, paths in list_bundles(self.root).items()
            for path in paths
        ]

    def open(self, found: Found, *, load: bool = True) -> Model:
        url = self.remotes.get(found.name)
        return load_version(
            found.path,
            trust=self.trust,
            max_batch=self.max_batch,
            precision=self.precision,
            runtime=self.runtime,
            revision=found.revision,
            remote=partial(open_remote, url=url, security=self.security) if url else None,
            budget_bytes=self.budget_bytes,
            load=load,
        )


def mark_of(files: Iterable[Path]) -> str:
    """Tells files from what they were before: by number, size and age."""
    sizes, newest_ns = [], 0
    for file in files:
        try:
            stat = file.stat()
        except OSError:  # it is being replaced
            continue
        if S_ISREG(stat.st_mode):
            sizes.append(stat.st_size)
            newest_ns = max(newest_ns, stat.st_mtime_ns)
    return f"{len(sizes)} files, {sum(sizes)} bytes, {newest_ns} ns"


def by_name(found: Sequence[Found]) -> dict[str, list[Found]]:
    """Oldest version first."""
    names: dict[str, list[Found]] = {}
    for each in found:
        names.setdefault(each.name, []).append(each)
    return names


@dataclass(frozen=True)
class Shelves(Shelf):
    """Several directories as one; of models of the same name, those of the first that has any."""

    shelves: Mapping[Path, Shelf]
    """By their directories."""

    def found(self, *, everything: bool = False) -> list[Found]:
        named: dict[str, list[Found]] = {}
        for shelf in self.shelves.values():
            for name, versions in by_name(shelf.found(everything=everything)).items():
                named.setdefault(name, versions)
        return [found for name in sorted(named) for found in named[name]]

    def open(self, found: Found, *, load: bool = True) -> Model:
        return self.shelves[found.path.parent.parent].open(found, load=load)
