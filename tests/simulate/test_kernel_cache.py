"""Where compiled code is kept: an edit of any source file leaves no stale machine code behind."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numba
import pytest

from autopoiesis.simulate import jit
from autopoiesis.simulate.jit import KEPT, cache_directory, compiled, fingerprint


@pytest.fixture
def package(tmp_path: Path) -> Path:
    folder = tmp_path / "package"
    folder.mkdir()
    (folder / "kernel.py").write_text("import engine\n")
    (folder / "engine.py").write_text("STEP = 1\n")
    return folder


def test_an_edit_of_any_file_names_another_directory(package: Path) -> None:
    before = cache_directory(package, "")
    assert before is not None
    assert before.parent == package / "__pycache__"
    assert cache_directory(package, "") == before
    (package / "engine.py").write_text("STEP = 2\n")
    assert cache_directory(package, "") not in (None, before)
    (package / "engine.py").write_text("STEP = 1\n")
    assert cache_directory(package, "") == before


def test_a_file_that_moves_its_text_to_another_counts_as_an_edit(package: Path) -> None:
    before = fingerprint(package)
    (package / "kernel.py").write_text("")
    (package / "engine.py").write_text("import engine\nSTEP = 1\n")
    assert fingerprint(package) != before


def test_the_operators_directory_is_used_if_there_is_one(package: Path, tmp_path: Path) -> None:
    assert (
        cache_directory(package, str(tmp_path / "chosen")) == tmp_path / "chosen" / f"compiled-{fingerprint(package)}"
    )


def test_an_installation_that_cannot_be_written_caches_for_the_user(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (package / "__pycache__").write_text("a file, so that no directory can be made here")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    assert cache_directory(package, "") == tmp_path / "user" / "autopoiesis" / f"compiled-{fingerprint(package)}"


def test_where_nothing_can_be_written_there_is_no_cache(package: Path) -> None:
    assert cache_directory(package, str(package / "kernel.py")) is None


def test_few_caches_of_earlier_sources_stay(package: Path) -> None:
    made = []
    for edit in range(KEPT + 3):
        (package / "engine.py").write_text(f"STEP = {edit}\n")
        directory = cache_directory(package, "")
        assert directory is not None
        os.utime(directory, (edit, edit))
        made.append(directory)
    assert [directory.is_dir() for directory in made] == [False] * 2 + [True] * (KEPT + 1)


def test_only_what_is_compiled_here_goes_to_that_directory() -> None:
    configuration: Any = numba.config
    before = configuration.CACHE_DIR
    function: Any = compiled(twice)
    assert function(4) == 8
    assert before == configuration.CACHE_DIR
    if jit._DIRECTORY is not None:
        assert Path(function.stats.cache_path).parent == jit._DIRECTORY


def twice(x: int) -> int:
    return 2 * x
