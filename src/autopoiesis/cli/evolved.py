"""`autopoiesis policy lineage|scores|export`: where evolved policies come from, and what they were worth."""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from autopoiesis.cli.flags import STORE, check_output
from autopoiesis.cli.output import dumps, emit, printable, write_whole
from autopoiesis.cli.parser import Parser, described
from autopoiesis.cli.references import existing, recorded

if TYPE_CHECKING:
    from rich.table import Table

    from autopoiesis.cli.parser import Commands
    from autopoiesis.evolve.store import PolicyRecord, ScoreRecord, SwapRecord, WindowRecord

EVOLVED = "the identity of a policy in the store (its first 6 digits or more), or NAME of the library"


def add(actions: Commands) -> None:
    """Add the sub-commands to `autopoiesis policy`."""
    lineage = actions.add_parser(
        "lineage",
        help="show from which policies a policy was made",
        **described(
            "Show from which policies a policy was made, and these in turn; without one, for every policy that took "
            "over. A policy that stands further up with its parents is not spelled out again.",
            f"autopoiesis policy lineage --store {STORE}",
            "autopoiesis policy lineage 3f2a77 --store run.db",
        ),
    )
    lineage.add_argument("policy", metavar="ID", nargs="?", help=EVOLVED)
    lineage.set_defaults(execute=print_lineage, parser=lineage)

    scores = actions.add_parser(
        "scores",
        help="show what replays measured",
        **described(
            "Show what every replay measured: a line for each policy, stretch of windows, versions, mode and fidelity. "
            "A score is the value of the objective, and less is better; scores compare within a stretch.",
            f"autopoiesis policy scores --store {STORE}",
            "autopoiesis policy scores --store run.db --json | jq .[0]",
        ),
    )
    scores.add_argument("--json", action="store_true", help="print JSON instead of a table")
    scores.set_defaults(execute=print_scores, parser=scores)

    export = actions.add_parser(
        "export",
        help="write a policy's source with its provenance",
        **described(
            "Print a policy of the store, with its provenance as comments on top. The result has the same identity.",
            "autopoiesis policy export 3f2a77 --store run.db --out mine.py",
        ),
    )
    export.add_argument("policy", metavar="ID", help=EVOLVED)
    export.add_argument("--out", metavar="FILE", help="write it here instead of printing it")
    export.set_defaults(execute=export_policy, parser=export)
    for parser in (lineage, scores, export):
        _add_store(parser)


def _add_store(parser: Parser) -> None:
    parser.add_argument("--store", metavar="PATH", default=STORE, help=f"where evolved policies are (default {STORE})")


def print_lineage(arguments: argparse.Namespace) -> int:
    """A tree from each policy to those it was made from."""
    records, takeovers = _policies(arguments.store)
    if arguments.policy is not None:
        tops = [recorded(arguments.policy, records, arguments.store).id]
    else:
        tops = [record.id for record in sorted(records, key=lambda r: _first(takeovers[r.id])) if takeovers[record.id]]
    if not tops:
        emit(f"no policy took over; autopoiesis policy list --store {arguments.store} names all there are\n")
        return 0
    by_id = {record.id: record for record in records}
    spelled_out: set[str] = set()
    lines = [line for top in tops for line in _tree(top, by_id, takeovers, spelled_out)]
    emit("".join(f"{printable(line)}\n" for line in lines))
    return 0


def _policies(store: str) -> tuple[tuple[PolicyRecord, ...], Mapping[str, list[SwapRecord]]]:
    """All policies, and when each took over."""
    from autopoiesis.evolve.store import Store

    takeovers: defaultdict[str, list[SwapRecord]] = defaultdict(list)
    with Store(existing(store)) as opened:
        for swap in opened.all_swaps():
            takeovers[swap.policy].append(swap)
        return opened.policies(), takeovers


def _first(swaps: Sequence[SwapRecord]) -> tuple[str, float]:
    return min(((swap.run_key, swap.t) for swap in swaps), default=("", 0.0))


def _tree(
    top: str, records: Mapping[str, PolicyRecord], takeovers: Mapping[str, list[SwapRecord]], spelled_out: set[str]
) -> Iterator[str]:
    # a stack, not recursion: a long run makes long lines of descent
    waiting = [(top, "", "")]
    while waiting:
        id, before, below = waiting.pop()
        parents = records[id].parents if id in records else ()
        known = id in spelled_out
        spelled_out.add(id)
        above = " (see above)" if known and parents else ""
        yield f"{before}{_line(id, records.get(id), takeovers.get(id, ()))}{above}"
        if known:
            continue
        # a policy may be made of the same parent twice
        unique = list(dict.fromkeys(parents))
        for position, parent in reversed(list(enumerate(unique))):
            last = position == len(unique) - 1
            waiting.append((parent, below + ("└─ " if last else "├─ "), below + ("   " if last else "│  ")))


def _line(id: str, record: PolicyRecord | None, swaps: Sequence[SwapRecord]) -> str:
    if record is None:
        return f"{id}  (no longer in the store)"
    line = f"{id}  ({record.provider}) {record.name if record.provider == 'human' else record.summary or record.name}"
    return line + "".join(f"; took over at {_place(swap)}" for swap in swaps)


def _place(swap: SwapRecord) -> str:
    from autopoiesis.report.numbers import clock

    return f"{clock(swap.t)} ({swap.mode} mode, run {swap.run_key[:8]})"


def print_scores(arguments: argparse.Namespace) -> int:
    """A row per score; `null` or a dash where the objective was undefined or the policy failed."""
    from autopoiesis.cli.table import drawn
    from autopoiesis.evolve.store import Store

    with Store(existing(arguments.store)) as store:
        scores = store.scores()
        windows = {window.id: window for window in store.windows()}
    if arguments.json:
        emit(dumps([_score_json(score, windows.get(score.window)) for score in scores]))
    elif scores:
        emit(drawn(_score_table(scores, windows)))
    else:
        emit("no scores: nothing has been replayed in the runs that are kept\n")
    return 0


def _score_json(score: ScoreRecord, window: WindowRecord | None) -> dict[str, Any]:
    """Also the format of `--json`; times are null where the stretch is known by its digest alone."""
    return {
        "policy": score.policy,
        "window": score.window,
        "start_s": None if window is None else window.start_s,
        "end_s": None if window is None else window.end_s,
        "requests": None if window is None else window.requests,
        "versions": score.versions,
        "mode": score.mode,
        "fidelity": score.fidelity,
        "value": score.value,
    }


def _score_table(scores: Sequence[ScoreRecord], windows: Mapping[str, WindowRecord]) -> Table:
    from rich.text import Text

    from autopoiesis.cli.table import NONE, plain_table
    from autopoiesis.report.numbers import clock

    table = plain_table("Scores", "value of the objective; less is better, within one window")
    for name in ("policy", "window", "time"):
        table.add_column(name, no_wrap=True)
    table.add_column("versions", overflow="fold")
    for name in ("mode", "fidelity"):
        table.add_column(name)
    table.add_column("value", justify="right", no_wrap=True)
    for score in scores:
        window = windows.get(score.window)
        cells = (
            score.policy,
            score.window[:8],
            NONE if window is None else f"{clock(window.start_s)}-{clock(window.end_s)}",
            ", ".join(f"{name} {version[:8]}" for name, version in sorted(score.versions.items())),
            score.mode,
            score.fidelity,
            NONE if score.value is None else f"{score.value:.5g}",
        )
        table.add_row(*(Text(printable(cell)) for cell in cells))
    return table


def export_policy(arguments: argparse.Namespace) -> int:
    """The source under its provenance; printed, or written in one step."""
    if arguments.out is not None:
        check_output("--out", arguments.out, {"--store": [arguments.store]})
    records, takeovers = _policies(arguments.store)
    record = recorded(arguments.policy, records, arguments.store)
    text = _provenance(record, takeovers.get(record.id, ())) + record.source
    if arguments.out is None:
        emit(text)
    else:
        write_whole(arguments.out, text, "--out")
    return 0


def _provenance(record: PolicyRecord, swaps: Sequence[SwapRecord]) -> str:
    from autopoiesis.cli.table import evidence_summary

    facts = [
        f"Policy {record.id} ({record.name}), made by: {record.provider}",
        f"Parents: {', '.join(record.parents) or 'none'}",
    ]
    facts += [f"Took over at {_place(swap)}: {evidence_summary(swap.evidence)}" for swap in swaps]
    return "".join(f"# {printable(fact)}\n" for fact in facts)
