"""The tables of the page: policies side by side, and a policy window by window."""

from __future__ import annotations

from autopoiesis.control.account import Account
from autopoiesis.control.config import PaperPair, Row
from autopoiesis.report.cast import Cast
from autopoiesis.report.html import Markup, details, joined, table
from autopoiesis.report.numbers import change, clock, dollars, grouped, short
from autopoiesis.report.ranking import WORTHS, delay_per_request_s
from autopoiesis.simulate.scenario import Mode

NONE = "–"


def side_by_side(account: Account, cast: Cast) -> Markup:
    """A row for every policy; of paper mode as well where it was served."""
    drawn = [_operator_table(account, cast)]
    if Mode.ADDITIVE in account.modes:
        drawn.append(_paper_table(account, cast))
    return joined(drawn)


def classes(account: Account, cast: Cast) -> list[str]:
    """How the rows of an account are set off."""
    return [
        "evolving" if row.kind == "evolving" else "best" if row.name in cast.leads[1:] else "" for row in account.rows
    ]


def _operator_table(account: Account, cast: Cast) -> Markup:
    objective = account.setting.scenario.objective
    title, more, value = WORTHS[objective]
    best = next((row for row in account.rows if row.name in cast.leads[1:]), None)
    head = ["policy", "good %", "$ per 1k good"]
    if best is not None:
        head.append("vs best %")
    head += ["TTFT p50 s", "p90", "p99", "TPOT p90 ms", "delay s", "GPU-hours", "lost", "shed", "rejected", "moves"]
    rows = []
    for row in account.rows:
        books = row.operator
        cells = [
            row.name,
            f"{100 * books.goodput:.2f}",
            NONE if books.cost_per_good_usd is None else dollars(1000 * books.cost_per_good_usd),
        ]
        if best is not None:
            cells.append(_signed(change(value(books), value(best.operator))))
        delay = delay_per_request_s(books)
        cells += [
            *(short(seconds) for seconds in (books.ttft_s.p50, books.ttft_s.p90, books.ttft_s.p99)),
            short(1000 * books.tpot_s.p90),
            NONE if delay is None else short(delay),
            short(books.gpu_hours),
            *(grouped(count) for count in (books.lost, books.shed, books.rejected, row.reschedules)),
        ]
        rows.append(cells)
    caption = f"Operator mode: {grouped(account.rows[0].operator.requests)} requests."
    if best is not None:
        direction = "more" if more else "less"
        caption += f" vs best: change of {title} against the best fixed policy, {best.name}; {direction} is better."
    return table(caption, head, rows, classes=classes(account, cast))


def _paper_table(account: Account, cast: Cast) -> Markup:
    def times(pair: PaperPair) -> list[str]:
        return [
            short(seconds)
            for of in (pair.overlapped, pair.additive)
            for seconds in (of.total_s, of.scheduling_s, of.reconfiguration_s, of.serving_s)
        ]

    head = ["policy"] + [
        f"{mode} {part}"
        for mode in ("overlapped", "additive")
        for part in ("total s", "scheduling", "reconfiguration", "serving")
    ]
    rows: list[tuple[Row, PaperPair]] = [(row, row.paper) for row in account.rows if row.paper is not None]
    return table(
        "Paper mode: every window served as one batch; seconds in all and what they went into, under both accountings.",
        head,
        [[row.name, *times(paper)] for row, paper in rows],
        classes=classes(account, cast),
    )


def _signed(percent: float | None) -> str:
    return NONE if percent is None else f"{percent:+.1f}".replace("-", "−")


def by_window(account: Account, name: str) -> Markup:
    """What the charts of a policy are drawn from."""
    course = account.course(name)

    def cell(value: float | None, scale: float = 1.0) -> str:
        return NONE if value is None else short(scale * value)

    rows = [
        (
            clock(course.end_s[i]),
            grouped(course.arrivals[i]),
            grouped(course.completed[i]),
            grouped(course.good[i]),
            grouped(course.backlog[i]),
            cell(course.ttft_p50_s[i]),
            cell(course.ttft_p90_s[i]),
            cell(course.ttft_p99_s[i]),
            cell(course.tpot_p90_s[i], 1000.0),
            cell(course.gpus[i]),
            cell(course.cost_usd[i]),
            cell(course.scheduling_s[i]),
            cell(course.reconfiguration_s[i]),
        )
        for i in range(len(course.end_s))
    ]
    return table(
        f"{name}, by window" if course.together == 1 else f"{name}, by {course.together} windows",
        (
            "until",
            "arrived",
            "completed",
            "good",
            "backlog",
            "TTFT p50 s",
            "p90",
            "p99",
            "TPOT p90 ms",
            "GPUs",
            "$",
            "scheduling s",
            "reconfiguration s",
        ),
        rows,
    )


def events(account: Account, name: str) -> Markup:
    """What befell a policy in operator mode: changes of capacity, repairs, refusals, failures."""
    leg = account.legs[name, Mode.OPERATOR]
    if not leg.events:
        return Markup()
    caption = f"Events under {name}"
    if leg.events_left_out:
        caption += f"; {grouped(leg.events_left_out)} later ones are left out"
    rows = [(clock(event.at_s), event.kind, event.text) for event in leg.events]
    return details(f"Events under {name} ({len(rows)})", table(caption, ("time", "kind", "what"), rows, words=3))
