"""Rows: what a run of a contender took, and how long it takes to import."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import urllib.request
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import msgspec

from autopoiesis.bench.engine_process import running_engine
from autopoiesis.bench.environment import Unavailable
from autopoiesis.bench.evolution import stub_model
from autopoiesis.bench.evolution.contenders import Contender
from autopoiesis.bench.evolution.watched import Watched, watch
from autopoiesis.bench.process import timed

JOBS = 2
LIMIT_S, HANGING_LIMIT_S = 400.0, 150.0
"""Of a run; one with programs that hang has them stopped after three seconds each."""
IMPORTS = 5
IMPORT_LIMIT_S = 60.0
MODEL_START_S = 30.0
MARK = "RESULT "


class Result(msgspec.Struct, frozen=True):
    """What a contender prints after MARK."""

    iterations: int
    run_s: float
    """Of the loop, without imports and preparation."""
    per_s: float
    timeouts: int
    """Programs that were stopped for their time."""
    correct: int
    """Programs with the right score."""
    start_cpu_s: float = 0.0
    """CPU seconds before the loop."""


@dataclass(frozen=True, slots=True)
class Row:
    """One run; None where there is nothing to tell, and `why`."""

    name: str
    framework: str
    hanging: bool
    """Whether every fifth program hangs."""
    iterations: int | None
    run_s: float | None = None
    per_s: float | None = None
    cpu_ms: float | None = None
    """An iteration's CPU time, in all processes, from the beginning of the loop to the end of the last process."""
    main_peak_mb: float | None = None
    tree_peak_mb: float | None = None
    programs: int | None = None
    """That the model has written."""
    timeouts: int | None = None
    correct: int | None = None
    ended: str | None = None
    """`clean`, `code N`, `signal N` or `killed`."""
    left_over: int | None = None
    """Processes."""
    load: float | None = None
    """What else the machine did: its load average over the minute before."""
    why: str = ""


@dataclass(frozen=True, slots=True)
class Import:
    """Seconds, the least of IMPORTS."""

    name: str
    framework: str
    statement: str
    bare_s: float | None = None
    """An interpreter that does nothing, from its start to its end."""
    import_s: float | None = None
    """What the statement adds."""
    why: str = ""


def run(contender: Contender, python: Path, iterations: int, *, hanging: bool = False) -> Row:
    """Run a contender against a model of its own. Raises AutopoiesisError if the model does not start."""
    with tempfile.TemporaryDirectory(prefix="autopoiesis-evolution-", ignore_cleanup_errors=True) as made:
        folder = Path(made)
        program = contender.program.read_text(encoding="utf-8")
        (folder / "program.py").write_text(stub_model.padded(program), encoding="utf-8")
        model = [sys.executable, "-I", stub_model.__file__, "--program", str(contender.program)]
        with running_engine(model, MODEL_START_S) as stub:
            port = stub.address.rpartition(":")[2]
            command = [str(python), *contender.start, f"--iterations={iterations}", f"--jobs={JOBS}", f"--port={port}"]
            load = os.getloadavg()[0]
            watched = watch(
                [*command, "--hang"] if hanging else command,
                folder,
                contender.environ(python, folder),
                HANGING_LIMIT_S if hanging else LIMIT_S,
                is_last_word=lambda said: MARK in said,
            )
            with urllib.request.urlopen(f"{stub.address}/calls") as answer:
                programs = json.load(answer)["calls"]
    return row_of(contender, iterations, watched, programs, load, hanging=hanging)


def row_of(
    contender: Contender, iterations: int, watched: Watched, programs: int, load: float, *, hanging: bool
) -> Row:
    """What there is to tell of a run, with a result or without one."""
    result, why = _result(watched)
    row = Row(
        name=contender.name,
        framework=contender.title,
        hanging=hanging,
        iterations=iterations,
        main_peak_mb=watched.main_peak_mb,
        tree_peak_mb=watched.tree_peak_mb,
        programs=programs,
        ended=_ended(watched.code),
        left_over=watched.left_over,
        load=load,
        why=why,
    )
    if result is None:
        return row
    return replace(
        row,
        run_s=result.run_s,
        per_s=result.per_s,
        cpu_ms=1e3 * (watched.cpu_s - result.start_cpu_s) / iterations,
        timeouts=result.timeouts,
        correct=result.correct,
    )


def _result(watched: Watched) -> tuple[Result | None, str]:
    """The result, or why there is none."""
    lines = [line for line in watched.said.splitlines() if line.startswith(MARK)]
    if not lines:
        words = (watched.complained or watched.said).split("\n")
        last = next((line.strip() for line in reversed(words) if line.strip()), "it said nothing")
        return None, f"no result after {watched.wall_s:.0f} s: {last}"
    try:
        return msgspec.json.decode(lines[-1].removeprefix(MARK), type=Result), ""
    except msgspec.MsgspecError as error:
        return None, f"{lines[-1]}: {error}"


def _ended(code: int | None) -> str:
    if code is None:
        return "killed"
    if code == 0:
        return "clean"
    return f"code {code}" if code > 0 else f"signal {-code}"


def import_time(contender: Contender, python: Path) -> Import:
    """How long its users wait for an import. Raises Unavailable if the import fails."""
    with tempfile.TemporaryDirectory(prefix="autopoiesis-evolution-") as folder:
        start = partial(_start, python, contender.environ(python, Path(folder)), folder)
        start(contender.imports)
        bare_s, import_s = timed(IMPORTS, partial(start, "pass"), partial(start, contender.imports))
    best_s = min(bare_s)
    return Import(contender.name, contender.title, contender.imports, best_s, min(import_s) - best_s)


def _start(python: Path, environ: dict[str, str], folder: str, statement: str) -> None:
    try:
        subprocess.run(
            [python, "-c", statement], env=environ, cwd=folder, check=True, capture_output=True, timeout=IMPORT_LIMIT_S
        )
    except subprocess.SubprocessError as error:
        raise Unavailable(f"{statement!r} failed: {error}") from None
