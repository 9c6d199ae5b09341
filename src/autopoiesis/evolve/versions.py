"""What a remembered result depends on beside its inputs: the package's own sources and the libraries that compute."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.metadata import version
from importlib.resources import files
from importlib.resources.abc import Traversable

LIBRARIES = ("numpy", "numba", "llvmlite", "highspy", "msgspec")
SOURCES = (".py", ".toml")


@cache
def fingerprint(within: tuple[str, ...] = ("",), without: tuple[str, ...] = ()) -> str:
    """A digest of the package's source and data files and of the versions of the libraries.

    Results are kept under it, so that an edited or upgraded installation never answers with results of another.
    `within` and `without` are beginnings of paths below the package, such as `simulate/`, for results on which only
    some of the files have a bearing.
    """
    digest = hashlib.sha256()
    for path, file in sorted(_sources(files("autopoiesis"), "")):
        below = path.removeprefix("/")
        if not below.startswith(within) or (without and below.startswith(without)):
            continue
        digest.update(path.encode())
        digest.update(file.read_bytes())
    for library in LIBRARIES:
        digest.update(f"{library} {version(library)}".encode())
    return digest.hexdigest()[:16]


def _sources(folder: Traversable, prefix: str) -> list[tuple[str, Traversable]]:
    found: list[tuple[str, Traversable]] = []
    for entry in folder.iterdir():
        path = f"{prefix}/{entry.name}"
        if entry.is_dir():
            found += _sources(entry, path)
        elif entry.name.endswith(SOURCES):
            found.append((path, entry))
    return found
