"""Programs of others, each in an environment of its own, installed from the package index."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

INSTALL_S = 900


class Unavailable(Exception):
    """What was asked for could not be installed or did not run; the message says why."""


def default_folder() -> Path:
    """Where environments are kept: the user's cache."""
    home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(home).expanduser() / "autopoiesis"


def environment(venv: Path, requirement: str, module: str) -> Path:
    """The Python of an environment that can import `module`, made and filled where it cannot. Raises Unavailable."""
    python = venv / "bin" / "python"
    if not python.exists():
        call([sys.executable, "-m", "venv", str(venv)], INSTALL_S)
    if _fails([str(python), "-I", "-c", f"import {module}"]):
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        call([*pip, requirement], INSTALL_S)
    return python


def call(command: list[str], timeout_s: float, folder: str | None = None) -> str:
    """What a command prints. Raises Unavailable with its last words if it fails or takes longer."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False, cwd=folder)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unavailable(str(error)) from error
    if done.returncode:
        said = [line.strip() for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        raise Unavailable(said[-1] if said else f"{command[0]} failed with {done.returncode}")
    return done.stdout


def _fails(command: list[str]) -> bool:
    return subprocess.run(command, capture_output=True, check=False).returncode != 0
