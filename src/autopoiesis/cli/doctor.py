"""`autopoiesis doctor`: what this machine has of what a run needs, above all the wall around policies."""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import sqlite3
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autopoiesis.cli.output import check_writable, dumps, emit, printable, write_whole
from autopoiesis.cli.parser import Commands, described
from autopoiesis.errors import AutopoiesisError, PolicyError

if TYPE_CHECKING:
    from autopoiesis.policy.limits import Wall

REFUSED = 1
"""Exit code where model-written code would be refused."""

HARMLESS = '"""Only asks for a process."""\n'


@dataclass(frozen=True)
class Layer:
    """What to say of a layer of the wall."""

    title: str
    stops: str
    missing: str
    """What its absence means, and how to get it."""


LAYERS = {
    "nobody": Layer(
        "user without rights",
        "files, processes and limits are not root's",
        "Root's files and processes are kept by the other layers alone. Start as an ordinary user, or leave the "
        "container CAP_SETUID and CAP_SETGID.",
    ),
    "no_network": Layer(
        "no network",
        "network and IPC namespaces with nothing in them",
        "UDP and Unix sockets are kept by seccomp alone. Allow user namespaces (sysctl user.max_user_namespaces, "
        "kernel.apparmor_restrict_unprivileged_userns=0 on Ubuntu), or give root in a container CAP_SYS_ADMIN.",
    ),
    "rlimits": Layer(
        "resource limits",
        "memory, CPU time, files and processes are bounded",
        "Required: a policy could use up memory and CPU time until its deadline. Let the container or service manager "
        "permit setrlimit.",
    ),
    "no_new_privileges": Layer(
        "no new privileges",
        "no capability, no set-uid program, no tracing",
        "Required: neither Landlock nor seccomp can be asked for without. Let the container permit prctl and capset.",
    ),
    "landlock": Layer(
        "Landlock",
        "no file, no TCP port, no signal outside",
        "Files are kept by seccomp alone. Use Linux 5.13 or later with landlock among its security modules (lsm= at "
        "boot), in a container whose seccomp profile permits it.",
    ),
    "seccomp": Layer(
        "seccomp",
        "all system calls but those of computing are denied",
        "Required unless Landlock has ABI 6 and there is no network; clocks, tracing and processes are then kept by "
        "the other layers alone. Use a kernel with CONFIG_SECCOMP_FILTER on x86-64 or aarch64.",
    ),
}

LANDLOCK_GAPS = {
    4: "This version leaves TCP to the other layers; Linux 6.7 has ABI 4.",
    6: "This version leaves signals and abstract sockets to the other layers; Linux 6.12 has ABI 6.",
}
"""First version of the ABI that is complete → what those before it lack."""

CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
OPTIONAL = {
    "matplotlib": "draws the plots of --report; pip install 'autopoiesis[report]'",
    "xllamacpp": "serves a model on this machine for `make bench-engine`; pip install 'autopoiesis[engines]'",
    "gguf": "writes that model; pip install 'autopoiesis[engines]'",
    "chromium": "opens reports in tests; install it, or name it in AUTOPOIESIS_CHROMIUM",
}
"""What some commands use → for what, and how to get it."""


@dataclass(frozen=True)
class Findings:
    """The keys of `doctor --json`, in order."""

    policies_may_run: bool
    refusal: str | None
    """Why model-written code would not run."""
    platform: str
    python: str
    wall: dict[str, Any] | None
    """Layers that stand; None where none could be tried."""
    compiled_code: str | None
    """Folder of numba's cache; None where every process would compile anew."""
    compiled_functions: int
    sqlite: str
    store_refusal: str | None
    """Why a store cannot be kept; None where it can."""
    optional: dict[str, str | None]
    """Version or path of what is there."""


def add(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "doctor",
        help="say what this machine has of what a run needs",
        **described(
            "Try the wall around policies written by a model, layer by layer, and look for all else that a run uses.",
            "autopoiesis doctor",
            notes="Exits with 0 if such policies may run here, with 1 if they would be refused; docs/wall.md says what "
            "each layer stops.",
        ),
    )
    parser.add_argument("--json", metavar="FILE", help="write the same here as JSON, in one step")
    parser.set_defaults(execute=report, parser=parser)


def report(arguments: argparse.Namespace) -> int:
    """Print what was found, and write it where asked; 0 if policies of a model may run, else 1."""
    if arguments.json is not None:
        check_writable(arguments.json, "--json")
    found = examine()
    if arguments.json is not None:
        write_whole(arguments.json, dumps(asdict(found)))
    emit(render(found))
    return 0 if found.policies_may_run else REFUSED


def examine() -> Findings:
    """Try everything. It takes seconds, and half a minute where nothing has been compiled yet."""
    from autopoiesis.simulate import jit

    wall, refusal = _wall()
    folder = jit.cache_directory(jit.PACKAGE, jit.numba.config.CACHE_DIR)
    return Findings(
        policies_may_run=refusal is None,
        refusal=refusal,
        platform=f"{platform.system()} {platform.release()} {platform.machine()}",
        python=platform.python_version(),
        wall=None if wall is None else asdict(wall),
        compiled_code=None if folder is None else str(folder),
        compiled_functions=0 if folder is None else sum(1 for _ in folder.rglob("*.nbi")),
        sqlite=sqlite3.sqlite_version,
        store_refusal=_store_refusal(),
        optional={name: _chromium() if name == "chromium" else _version(name) for name in OPTIONAL},
    )


def _wall() -> tuple[Wall | None, str | None]:
    """The wall as a policy of a run would get it, and why that would be too little."""
    if sys.platform != "linux":
        return None, f"the wall is made of Linux, and this is {sys.platform}"

    from autopoiesis.policy.host import PolicyHost
    from autopoiesis.policy.host_template import HostTemplate
    from autopoiesis.simulate.hosted import ESTIMATOR

    try:
        # unlocked is allowed so that a wall that does not hold can be looked at too
        with HostTemplate(ESTIMATOR, allow_unlocked=True) as template, PolicyHost(template, HARMLESS) as host:
            wall = host.wall
    except PolicyError as error:
        return None, str(error)
    return wall, None if wall.holds else f"the wall lacks {', '.join(wall.lacks)}"


def _store_refusal() -> str | None:
    from autopoiesis.evolve.store import Store

    try:
        with tempfile.TemporaryDirectory() as folder, Store(Path(folder) / "probe.db"):
            return None
    except (AutopoiesisError, OSError) as error:
        return str(error)


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _chromium() -> str | None:
    named = os.environ.get("AUTOPOIESIS_CHROMIUM")
    return named or next((found for name in CHROMIUM if (found := shutil.which(name))), None)


# --- what is said ---------------------------------------------------------------------------------------------------


def render(found: Findings) -> str:
    """The verdict and a table."""
    from rich.table import Table
    from rich.text import Text

    from autopoiesis.cli.table import drawn

    verdict = "may run here" if found.policies_may_run else f"would be refused here: {found.refusal}"
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold", max_width=18)
    table.add_column(overflow="fold", ratio=1)
    for row in _rows(found):
        table.add_row(*(Text(printable(cell)) for cell in row))
    return drawn(Text(printable(f"Policies written by a model {verdict}.")), table)


def _rows(found: Findings) -> Iterator[tuple[str, str, str]]:
    for name, layer in LAYERS.items():
        stands = None if found.wall is None else found.wall[name]
        if stands is None:
            yield layer.title, "not tried", layer.missing
        elif not stands:
            yield layer.title, "no", layer.missing
        elif name == "landlock":
            gaps = [gap for version, gap in LANDLOCK_GAPS.items() if stands < version]
            yield layer.title, f"yes, ABI {stands}", " ".join((layer.stops, *gaps[:1]))
        else:
            yield layer.title, "yes", layer.stops
    system, _, release = found.platform.partition(" ")
    yield "platform", system, f"{release}, Python {found.python}"
    if found.compiled_code is None:
        yield "compiled code", "not kept", "Every process compiles anew. Name a folder to write in NUMBA_CACHE_DIR."
    else:
        yield "compiled code", f"{found.compiled_functions} functions", found.compiled_code
    yield "SQLite", found.sqlite, found.store_refusal or "a store can be kept"
    for name, use in OPTIONAL.items():
        yield name, found.optional[name] or "no", use
