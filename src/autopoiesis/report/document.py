"""The page: its sections in order, and the words between the plots."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib.resources import files

from autopoiesis import __version__
from autopoiesis.control.account import Account
from autopoiesis.control.config import Row
from autopoiesis.report import charts, lineage, tables, timeline
from autopoiesis.report.cast import Cast, cast_of
from autopoiesis.report.html import Markup, details, joined, table, tag
from autopoiesis.report.numbers import dollars, grouped, short, span
from autopoiesis.report.reading import GATES, reading
from autopoiesis.report.tables import NONE
from autopoiesis.report.words import summary
from autopoiesis.simulate.outcome import Books
from autopoiesis.simulate.scenario import Mode

POLICY = "default-src 'none'; style-src 'unsafe-inline'"
"""Of the browser: whatever a model wrote, the page runs no script and loads nothing."""


def written(account: Account) -> str:
    """The page as text. Equal accounts give equal text."""
    cast = cast_of(account)
    sections = list(_sections(account, cast))
    title = _title(account)
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=POLICY),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="generator", content=f"autopoiesis {__version__}"),
        tag("title", title),
        Markup("<style>" + (files("autopoiesis.report") / "style.css").read_text(encoding="utf-8") + "</style>"),
    )
    links = joined(tag("a", name, href=f"#{id}") for id, name, _ in sections)
    body = tag(
        "body",
        tag(
            "header", tag("h1", title), _lead(account), _facts(account, cast), tag("nav", links, aria_label="Sections")
        ),
        tag("main", *(tag("section", tag("h2", name), content, id=id) for id, name, content in sections)),
        _footer(account),
    )
    return f"<!doctype html>\n{tag('html', head, body, lang='en')}\n"


def _title(account: Account) -> str:
    scenario = account.setting.scenario
    models = " and ".join(load.model for load in scenario.workloads)
    return f"{models} on {account.setting.cluster.name} at load {scenario.load:g}"


def _lead(account: Account) -> Markup:
    setting = account.setting
    kinds = ", ".join(
        f"{pool.maximum if not pool.elastic else f'{pool.minimum} to {pool.maximum}'} {pool.gpu} GPUs"
        + (" (spot)" if pool.spot else "")
        for pool in setting.cluster.pools
    )
    if setting.evolution is None:
        how = f"One policy, {account.rows[0].name}, served it all."
    else:
        how = (
            "The same load was served by a policy that evolves while it serves, and by "
            f"{len(account.rows) - 1} fixed policies."
        )
    return tag("p", f"{span(setting.duration_s)} of simulated serving on {kinds}. {how}", class_="lead")


def _facts(account: Account, cast: Cast) -> Markup:
    """The handful of numbers that somebody in a hurry reads, and what the best fixed policy has there."""
    rows = {row.name: row for row in account.rows}
    facts = [
        (name, of(rows[cast.first]), ", ".join(f"{other}: {of(rows[other])}" for other in cast.leads[1:]))
        for name, of in FACTS.items()
    ]
    if account.setting.evolution is not None:
        taken = sum("rollback" not in swap.evidence for swap in account.legs[cast.first, Mode.OPERATOR].swaps)
        facts.append(("Policies that took over", grouped(taken), f"made by: {account.setting.evolution.provider}"))
    entries = (tag("div", tag("dt", name), tag("dd", value, tag("small", beside))) for name, value, beside in facts)
    return tag("dl", *entries, class_="facts")


def _price(books: Books) -> str:
    return NONE if books.cost_per_good_usd is None else f"${dollars(1000 * books.cost_per_good_usd)}"


FACTS: dict[str, Callable[[Row], str]] = {
    "Good answers": lambda row: f"{100 * row.operator.goodput:.1f} %",
    "A thousand good answers": lambda row: _price(row.operator),
    "Time to first token, p90": lambda row: f"{short(row.operator.ttft_s.p90)} s",
    "Deployment changed": lambda row: f"{grouped(row.reschedules)}×",
}


def _sections(account: Account, cast: Cast) -> Iterator[tuple[str, str, Markup]]:
    """Id, heading and content of each."""
    yield "summary", "What happened", tag("div", *(tag("p", part) for part in summary(account, cast)), class_="summary")
    yield "table", "In numbers" if len(cast.names) == 1 else "Policies side by side", tables.side_by_side(account, cast)
    yield "load", "What came", _figures(charts.load_charts(account.course(cast.first)), _load_note(cast), "four")
    money = _figures(charts.money_charts(account, cast), _money_note(account))
    yield (
        "money",
        "Capacity and money",
        joined((cast.legend(), money, *(tables.events(account, name) for name in cast.leads))),
    )
    yield "plans", "Which GPUs served what", _plans(account, cast)
    yield "time", "Scheduling, reconfiguration, serving", joined(_phases(account, cast))
    yield "service", "Latency and good answers", joined(_service(account, cast))
    if account.setting.evolution is not None:
        yield "lineage", "The policies at work", joined(_lineage(account, cast))
    elif (line := account.legs[cast.first, Mode.OPERATOR].lineage) is not None:
        policy = line.policies[line.first]
        yield "lineage", "The policy at work", joined((tag("p", policy.summary), lineage.source(policy)))
    yield "reading", "How to read this", reading(account)


def _figures(drawn: Markup, note: str = "", kind: str = "") -> Markup:
    return joined((tag("p", note, class_="note") if note else "", tag("div", drawn, class_=f"figures {kind}".strip())))


def _load_note(cast: Cast) -> str:
    if len(cast.names) == 1:
        return "The next call of a session waits for the one before it."
    return (
        f"As it arrived under {cast.first}. The next call of a session waits for the one before it, so arrivals differ "
        "a little between policies."
    )


def _money_note(account: Account) -> str:
    if account.setting.cluster.elastic:
        return "The cluster is elastic: GPUs are paid from grant to release, so a policy decides what is spent."
    return (
        "The cluster is fixed: all its GPUs are paid until the last request has ended. So a good answer is the "
        "cheaper, the more of them there are and the sooner a backlog is done with."
    )


def _plans(account: Account, cast: Cast) -> Markup:
    parts = [
        timeline.legend(account),
        _figures(
            timeline.timelines(account, cast, cast.leads),
            "A row for every GPU, a bar for what a replica did on it.",
            "wide",
        ),
    ]
    if cast.others:
        parts.append(
            details("The other fixed policies", _figures(timeline.timelines(account, cast, cast.others), kind="wide"))
        )
    return joined(parts)


PHASES = (
    (charts.SCHEDULING, "", "scheduling: the policy computes"),
    (charts.RECONFIGURATION, timeline.RISING, "reconfiguration: a transition is under way"),
    ("var(--rule)", "", "serving, and neither of these"),
)


def _phases(account: Account, cast: Cast) -> Iterator[Markup]:
    def entry(colour: str, hatch: str, name: str) -> Markup:
        box = tag("rect", width="30", height="12", fill=colour)
        lines = tag("path", d=hatch, stroke="var(--ink)") if hatch else ""
        return tag("li", tag("svg", box, lines, viewBox="0 0 30 12", aria_hidden="true"), name)

    yield tag("ul", *(entry(*phase) for phase in PHASES), class_="legend")
    for mode in account.modes:
        title, note = MODES[mode]
        yield tag("h3", title)
        rows = {name: charts.phases(account.course(name, mode)).totals_s for name in (row.name for row in account.rows)}
        yield table(
            f"{title}: seconds in all, and what they went into",
            ("policy", "total", "scheduling", "reconfiguration", "serving"),
            [(name, *map(short, seconds)) for name, seconds in rows.items()],
            classes=tables.classes(account, cast),
        )
        drawn = charts.phase_charts(account, cast, mode)
        if drawn:
            yield _figures(drawn, f"{note} Per cent of every window.", "small")
        else:
            yield tag("p", f"No policy spent {charts.VISIBLE:g} % of any window computing or moving.", class_="note")


MODES = {
    Mode.OPERATOR: ("Operator mode", "Requests come and are served all the while."),
    Mode.OVERLAPPED: (
        "Paper mode, overlapped",
        "Windows are batches. The old plan serves while the policy computes, unchanged replicas during a transition.",
    ),
    Mode.ADDITIVE: (
        "Paper mode, additive",
        "Windows are batches. Nothing serves while the policy computes or the cluster moves.",
    ),
}
"""What each is called, and how time is laid out in it."""


def _service(account: Account, cast: Cast) -> Iterator[Markup]:
    yield cast.legend()
    yield _figures(charts.service_charts(account, cast))
    yield details("The numbers behind the charts", *(tables.by_window(account, name) for name in cast.leads))


def _lineage(account: Account, cast: Cast) -> Iterator[Markup]:
    for mode in account.modes:
        leg = account.legs[cast.first, mode]
        if len(account.modes) > 1:
            yield tag("h3", MODES[mode][0])
        tally = leg.lineage.tally if leg.lineage is not None else {}
        if tally:
            yield table(
                "What went through the gates: verdicts, a policy may come more than once",
                ("gate", "passed", "refused"),
                [(gate, grouped(tally[gate][0]), grouped(tally[gate][1])) for gate in GATES if gate in tally],
            )
        if not leg.swaps:
            yield tag("p", "No policy took over.")
        yield lineage.takeovers(leg) if mode is Mode.OPERATOR or leg.swaps else Markup()


def _footer(account: Account) -> Markup:
    return tag(
        "footer",
        f"autopoiesis {__version__}, seed {account.setting.scenario.seed}. The same arguments give the same page.",
    )
