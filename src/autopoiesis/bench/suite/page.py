"""`python -m autopoiesis.bench.suite.page DIR docs`: the tables and pictures of a run on the page of benchmarks.

What stands between two markers in `docs/benchmarks.md` is written anew from `DIR/results.json`, and pictures under
`docs/benchmarks/`; the prose around the markers stays.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from autopoiesis.bench.suite.layout import markdown
from autopoiesis.bench.suite.results import Results, read
from autopoiesis.bench.suite.tables import provenance, tables
from autopoiesis.errors import AutopoiesisError
from autopoiesis.report import check_drawing

PAGE, FOLDER = "benchmarks.md", "benchmarks"
BEGIN, END = "<!-- headroom:begin -->", "<!-- headroom:end -->"
PICTURES = {
    "headroom": "Headroom of every cell, and what the evolving system and the best fixed plan save",
    "policies": "Every policy in every group, relative to the best found",
    "sweeps": "Headroom against what drives it",
}
"""What is to be seen, in the order of the page."""


def section(results: Results, drawn: Sequence[str]) -> str:
    """What stands between the markers; `drawn` names the pictures there are."""
    shown = [f"![{words}]({FOLDER}/{_file(name)})\n" for name, words in PICTURES.items() if name in drawn]
    made = [markdown(table) for table in tables(results)]
    return "\n".join([f"{provenance(results.meta)} `{results.meta.commands}`\n", *shown, *made])


def place(text: str, path: str) -> tuple[str, str]:
    """What comes before and after the generated part, markers included.

    Raises AutopoiesisError unless each marker is there once, in order.
    """
    head, begin, rest = text.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not end or text.count(BEGIN) != 1 or text.count(END) != 1:
        raise AutopoiesisError(f"{path}: wants one line {BEGIN} and below it one line {END}; put them where tables go")
    return head + begin, end + tail


def write_page(results: Results, docs: Path) -> list[Path]:
    """Write the page and its pictures; which files. Raises AutopoiesisError where the page has no place for it."""
    check_drawing("the page")
    from autopoiesis.bench.suite.plots import pictures

    page = docs / PAGE
    try:
        head, tail = place(page.read_text(encoding="utf-8"), str(page))
        drawn = pictures(results)
        folder = docs / FOLDER
        folder.mkdir(exist_ok=True)
        files = []
        for name in PICTURES:
            file = folder / _file(name)
            if name not in drawn:
                file.unlink(missing_ok=True)
                continue
            file.write_text(drawn[name], encoding="utf-8")
            files.append(file)
        page.write_text(f"{head}\n\n{section(results, list(drawn))}\n{tail}", encoding="utf-8")
    except OSError as error:
        raise AutopoiesisError(f"{error.filename}: {error.strerror}; give the folder of the documentation") from error
    return [page, *files]


def _file(name: str) -> str:
    return f"headroom-{name}.svg" if name != "headroom" else "headroom.svg"


def main(words: Sequence[str] | None = None) -> int:
    """0 if the page was written, 2 if results or page could not be read or written."""
    parser = argparse.ArgumentParser(prog="python -m autopoiesis.bench.suite.page", description=__doc__)
    parser.add_argument("results", type=Path, help="the folder that `autopoiesis bench --out` wrote")
    parser.add_argument("docs", type=Path, help="the folder of benchmarks.md")
    arguments = parser.parse_args(words)
    try:
        for file in write_page(read(arguments.results), arguments.docs):
            print(file)
    except AutopoiesisError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
