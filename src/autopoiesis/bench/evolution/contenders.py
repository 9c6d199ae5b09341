"""Who is measured, and how each is started.

A contender is a command that takes `--iterations N --jobs J --port PORT [--hang]`, asks the model at
`http://127.0.0.1:PORT/v1`, finds the program to start from as `program.py` in its working folder, and ends after one
line `RESULT {json}`.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

from autopoiesis import __version__
from autopoiesis.bench.environment import environment
from autopoiesis.bench.evolution import drivers, programs

_PROGRAMS = Path(programs.__file__).parent
_DRIVE = str(Path(drivers.__file__).with_name("drive.py"))


@dataclass(frozen=True, slots=True)
class Contender:
    """A framework, or ours."""

    name: str
    title: str
    program: Path
    """What it evolves, for the model to fill in."""
    imports: str
    """The statement that its user begins with."""
    start: tuple[str, ...]
    """Arguments of its Python."""
    long: int | None
    """Iterations of a second run, where the rate depends on how many there are."""
    hanging: int | None
    """Iterations with programs that hang; None where it has no time limit."""
    requirement: str = ""
    """For the package index; none for ours."""

    def python(self, venvs: Path) -> Path:
        """Its interpreter, installed below `venvs` where need be. Raises Unavailable."""
        if not self.requirement:
            return Path(sys.executable)
        venv = venvs.absolute() / self.requirement.replace("==", "-")
        return environment(venv, self.requirement, self.imports.split()[1])

    def environ(self, python: Path, folder: Path) -> dict[str, str]:
        """Variables to run it with: nothing of the user's, keys least of all, is for the packages of others."""
        if not self.requirement:
            return dict(os.environ)
        return {
            "PATH": f"{python.parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
            "HOME": str(folder),
            "NO_COLOR": "1",
            "NO_PROXY": "127.0.0.1",
            "OMP_NUM_THREADS": "1",
            "OPENAI_API_KEY": "none",
        }


def _peer(name: str, title: str, requirement: str, imports: str, long: int | None, hanging: int | None) -> Contender:
    # neither the variables nor the packages of the user
    start = ("-E", "-s", _DRIVE, name)
    title = f"{title} {requirement.partition('==')[2]}"
    return Contender(name, title, _PROGRAMS / "program.py", imports, start, long, hanging, requirement)


CONTENDERS = (
    Contender(
        "ours", f"Autopoiesis {__version__}", _PROGRAMS / "policy.py",
        "from autopoiesis.evolve import population, prompt, store, workers",
        ("-m", "autopoiesis.bench.evolution.ours"), 10_000, 60,
    ),
    _peer("openevolve", "OpenEvolve", "openevolve==0.4.0", "from openevolve import OpenEvolve", 1_000, 60),
    # slow: fewer show the same
    _peer("shinka", "ShinkaEvolve", "shinka-evolve==0.0.7", "from shinka.core import ShinkaEvolveRunner", None, 20),
    _peer("gepa", "GEPA", "gepa==0.1.4", "from gepa.optimize_anything import optimize_anything", None, None),
)  # fmt: skip
