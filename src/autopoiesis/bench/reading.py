"""`python -m autopoiesis.bench.reading`: how long large traces take to read, and in how much memory.

Files of 1.4 million rows are written with the lengths of a chat, one in each of the large formats, and each is read in
a process of its own. Beside it stands a plain read of the same bytes, which no reader can beat.
"""

from __future__ import annotations

import gzip
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
from rich.console import Console

from autopoiesis.bench.figures import Figure, drawn
from autopoiesis.bench.probe import fresh
from autopoiesis.bench.scenes import Lengths

ROWS = 1_400_000
GOAL_S, GOAL_MB = 3.0, 500.0
BEGIN = datetime(2024, 5, 10)


def normalised(arrival_s: float, given: int, wanted: int) -> str:
    return f"{arrival_s:.6f},{given},{wanted}"


def azure_2024(arrival_s: float, given: int, wanted: int) -> str:
    return f"{(BEGIN + timedelta(seconds=arrival_s)).isoformat(' ')}+00:00,{given},{wanted}"


def burstgpt(arrival_s: float, given: int, wanted: int) -> str:
    return f"{int(arrival_s)},ChatGPT,{given},{wanted},{given + wanted},Conversation log"


FORMATS: dict[str, tuple[str, Callable[[float, int, int], str]]] = {
    "normalised": ("arrival_s,input_tokens,output_tokens", normalised),
    "Azure 2024": ("TIMESTAMP,ContextTokens,GeneratedTokens", azure_2024),
    "BurstGPT": ("Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type", burstgpt),
}


def write(path: Path, name: str, rows: int) -> None:
    """A file of that format, gzipped if its name says so."""
    rng = np.random.default_rng(0)
    given, wanted = Lengths().draw(rows, rng)
    arrival_s = np.cumsum(rng.exponential(0.05, rows))
    header, line = FORMATS[name]
    cells = zip(arrival_s.tolist(), given.tolist(), wanted.tolist(), strict=True)
    text = "\n".join([header, *(line(*row) for row in cells), ""]).encode()
    path.write_bytes(gzip.compress(text, 6, mtime=0) if path.suffix == ".gz" else text)


def figures(folder: Path, rows: int = ROWS) -> list[Figure]:
    """Seconds and memory of every format, plain and gzipped."""
    found = []
    for name in FORMATS:
        for suffix in (".csv", ".csv.gz"):
            path = folder / f"{name.replace(' ', '-')}{suffix}"
            write(path, name, rows)
            began = time.perf_counter()
            path.read_bytes()
            plain_s = time.perf_counter() - began
            read = [fresh("read", str(path)) for _ in range(3)]
            what = f"{name}{' gzipped' if suffix.endswith('.gz') else ''}"
            note = f"{rows} rows, {path.stat().st_size / 1e6:.0f} MB; a plain read takes {plain_s:.2f} s"
            seconds, memory = tuple(p.wall_s for p in read), tuple(p.peak_mb for p in read)
            found.append(Figure(what, "s", seconds, GOAL_S, more=False, note=f"{note}; start of Python included"))
            found.append(Figure(f"{what}, peak memory", "MB", memory, GOAL_MB, more=False, note=""))
            path.unlink()
    return found


def main() -> int:
    """Print the table; 1 if a goal is missed."""
    with tempfile.TemporaryDirectory() as folder:
        measured = figures(Path(folder))
    Console(width=None if sys.stdout.isatty() else 140).print(drawn("Reading", measured))
    return int(not all(figure.met for figure in measured))


if __name__ == "__main__":
    sys.exit(main())
