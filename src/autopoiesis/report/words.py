"""What happened, in plain words, each sentence from the numbers of the run."""

from __future__ import annotations

from collections.abc import Iterator

from autopoiesis.control.account import Account, Course
from autopoiesis.control.config import Row
from autopoiesis.report.cast import Cast
from autopoiesis.report.numbers import change, clock, counted, dollars, grouped, short, span
from autopoiesis.report.ranking import WORTHS, delay_score
from autopoiesis.simulate.outcome import Books
from autopoiesis.simulate.scenario import Mode

SAME = 0.05
"""Per cent; a smaller difference is none in a table of one decimal."""
GOOD = 0.99
"""Share of good answers from which on a load counts as served."""
FIRST = "static"
"""What the evolving system starts under."""


def summary(account: Account, cast: Cast) -> list[str]:
    """Paragraphs: what came, what came of it, and why."""
    rows = {row.name: row for row in account.rows}
    parts = [_what_came(account, rows[cast.first]), _result(account, cast, rows)]
    if cast.first != cast.leads[-1]:
        parts.append(_evolution(account, cast, rows))
    parts += [_moves(account, cast, rows), _troubles(account, cast, rows)]
    if Mode.ADDITIVE in account.modes:
        parts.append(_batches(account, cast))
    # a number stays on the line of its unit
    return [" ".join(part).replace(" %", "\u00a0%") for part in map(list, parts) if part]


def _what_came(account: Account, row: Row) -> Iterator[str]:
    setting = account.setting
    models = " and ".join(load.model for load in setting.scenario.workloads)
    yield (
        f"In {span(setting.duration_s)} of simulated time {counted(row.operator.requests, 'request')} came for "
        f"{models} on {setting.cluster.name}."
    )
    load = setting.scenario.load
    if load > 1:
        yield f"That is {load:g} times the most that any fixed plan tried serves with 99 % good: an overload by design."
    elif load == 1:
        yield "That is the most that any fixed plan tried serves with 99 % good."
    else:
        yield f"That is {100 * load:.3g} % of the most that any fixed plan tried serves with 99 % good."
    yield "The plan at the start was chosen on the first quarter of the load alone."


def _result(account: Account, cast: Cast, rows: dict[str, Row]) -> Iterator[str]:
    objective = account.setting.scenario.objective
    first = rows[cast.first]
    yield f"{_name(cast, first)} {_overall(objective, first.operator)}."
    if len(cast.leads) < 2:
        if objective != "goodput":
            yield f"{100 * first.operator.goodput:.2f} % of the requests were answered within their SLO."
        return
    best = rows[cast.leads[1]]
    _, more, value = WORTHS[objective]
    difference = change(value(first.operator), value(best.operator))
    overall = _overall(objective, best.operator)
    named = f"the best fixed policy, {_with_equals(best, rows, objective)}"
    if difference is None:
        yield f"With {named}, it was otherwise: that one {overall}, and no ratio says how they compare."
    elif abs(difference) < SAME:
        yield f"It did as well as {named}, which {overall}."
    else:
        much = f"{abs(difference):.1f} % {'more' if difference > 0 else 'less'}"
        verdict = "better" if (difference > 0) == more else "worse"
        yield f"That is {much}, and so {verdict}, than {named}, which {overall}."
        if objective == "cost_per_good":
            yield _parts_of_price(first.operator, best.operator)
    below = sorted(row.name for row in rows.values() if _better(value(first.operator), value(row.operator), more))
    fixed = len(rows) - 1
    if len(below) == fixed:
        yield f"It did better than all {fixed} fixed policies."
    elif not below:
        yield "It did better than none of the fixed policies."
    else:
        yield f"It did better than {len(below)} of the {fixed} fixed policies: {', '.join(below)}."


def _with_equals(best: Row, rows: dict[str, Row], objective: str) -> str:
    """The best fixed policy, and how many others came to the very same."""
    value = WORTHS[objective][2]
    equals = sum(row.kind == "baseline" and value(row.operator) == value(best.operator) for row in rows.values()) - 1
    return best.name + (f" (and {counted(equals, 'other')} that came to the same)" if equals else "")


def _parts_of_price(one: Books, other: Books) -> str:
    """A price is a quotient: which part of it made the difference."""
    money, good = change(one.cost_usd, other.cost_usd) or 0.0, change(one.good, other.good) or 0.0

    spent = "as much" if abs(money) < SAME else f"{abs(money):.1f} % {'more' if money > 0 else 'less'}"
    gave = "as many" if abs(good) < SAME else f"{abs(good):.1f} % {'more' if good > 0 else 'fewer'}"
    return (
        f"It spent {spent} on GPUs (${one.cost_usd:.2f} against ${other.cost_usd:.2f}) and gave {gave} good answers "
        f"({grouped(one.good)} against {grouped(other.good)})."
    )


def _evolution(account: Account, cast: Cast, rows: dict[str, Row]) -> Iterator[str]:
    leg = account.legs[cast.first, Mode.OPERATOR]
    lineage = leg.lineage
    tally = lineage.tally if lineage is not None else {}
    made = sum(tally.get("checked", (0, 0)))
    if made:
        replayed, held_out = tally.get("replayed", (0, 0))[0], tally.get("held out", (0, 0))[0]
        yield f"Evolution made {counted(made, 'new program')} that passed the checker."
        yield f"In replays a program beat the incumbent of the time {_times(replayed)}" + (
            f", and {_times(held_out)} also on the windows held out." if replayed else "."
        )
    back = sum("rollback" in swap.evidence for swap in leg.swaps)
    taken = len(leg.swaps) - back
    if not taken:
        why = "no program passed all gates" if made else "evolution proposed no program that passed the checker"
        yield f"No policy took over: {why}, so the evolving system served under {FIRST} from beginning to end."
        return
    provider = ", ".join(sorted({swap.provider for swap in leg.swaps if "rollback" not in swap.evidence}))
    at = clock(leg.swaps[0].t)
    often, when = "Once", f" at {at}"
    if taken > 1:
        often, when = f"{taken} times", f", first at {at} and last at {clock(leg.swaps[-1].t)}"
    yield f"{often} a policy that had passed all gates took over while requests kept flowing{when}, made by {provider}."
    if back:
        yield f"{counted(back, 'policy', 'policies')} that failed while serving {_were(back)} withdrawn."
    if FIRST in rows:
        one, other = (f"{100 * rows[name].operator.goodput:.2f}" for name in (cast.first, FIRST))
        yield f"Had none taken over, {FIRST} would have served: {other} % good instead of {one} %."
    if len(cast.leads) > 1:
        yield from _since(account, cast, leg.swaps[0].t)


def _since(account: Account, cast: Cast, t: float) -> Iterator[str]:
    """The same stretches under the evolving system and the best fixed policy, after the first takeover."""
    shares = []
    for name in cast.leads:
        course = account.course(name)
        rows = [i for i, end_s in enumerate(course.end_s) if end_s > t + 1e-6]
        ended = sum(course.completed[i] + course.lost[i] + course.shed[i] + course.rejected[i] for i in rows)
        if not ended:
            return
        shares.append(100 * sum(course.good[i] for i in rows) / ended)
    own, other = (f"{share:.1f} %" for share in shares)
    yield f"Of what ended after the first takeover, {own} was good, and {other} under {cast.leads[1]}."


def _moves(account: Account, cast: Cast, rows: dict[str, Row]) -> Iterator[str]:
    if not any(rows[name].reschedules for name in cast.leads):
        yield f"{'It' if len(cast.leads) == 1 else f'Neither it nor {cast.leads[1]}'} " + (
            "never changed its deployment." if len(cast.leads) == 1 else "ever changed the deployment."
        )
        return
    said = []
    for name in cast.leads:
        moves = rows[name].reschedules
        spent = sum(seconds or 0.0 for seconds in account.course(name).reconfiguration_s)
        subject = "It" if name == cast.first else name
        if moves:
            said.append(f"{subject} changed its deployment {_times(moves)} and was in transition for {span(spent)}")
        else:
            said.append(f"{subject} kept its deployment from beginning to end")
    yield "; ".join(said) + "."


def _troubles(account: Account, cast: Cast, rows: dict[str, Row]) -> Iterator[str]:
    books, course = rows[cast.first].operator, account.course(cast.first)
    fates = [(books.lost, "lost"), (books.shed, "shed"), (books.rejected, "rejected for their length")]
    if any(count for count, _ in fates):
        said = (f"{grouped(count)} {_were(count)} {fate}" for count, fate in fates if count)
        yield f"Of its requests {', '.join(said)}."
    else:
        yield "Every request was completed: none was lost, shed or rejected."
    if course.backlog and max(course.backlog) > 0:
        peak = max(range(len(course.backlog)), key=course.backlog.__getitem__)
        most = counted(course.backlog[peak], "request")
        yield f"The backlog at the end of a window was largest at {clock(course.end_s[peak])}: {most}."
    short_of = _short_windows(course)
    if short_of:
        yield f"In {short_of} of {len(course.end_s)} {_stretches(course)} fewer than 99 % of what ended was good."
    leg = account.legs[cast.first, Mode.OPERATOR]
    for kind, one, many in (
        ("capacity", "change of capacity or notice of one", "changes of capacity or notices of them"),
        ("repair", "repair by built-in code", "repairs by built-in code"),
        ("refusal", "plan refused", "plans refused"),
        ("failure", "kind of failure of a policy", "kinds of failures of policies"),
    ):
        count = sum(event.kind == kind for event in leg.events)
        if count:
            yield f"There {_were(count)} {counted(count, one, many)}" + (" or more." if leg.events_left_out else ".")


def _batches(account: Account, cast: Cast) -> Iterator[str]:
    for mode in (Mode.OVERLAPPED, Mode.ADDITIVE):
        times = {
            name: leg.paper.total_s for (name, of), leg in account.legs.items() if of is mode and leg.paper is not None
        }
        own = times.pop(cast.first)
        if not times:
            yield f"Served as batches it took {short(own)} s ({mode.value})."
            continue
        best = min(times, key=lambda name: (times[name], name))
        difference = change(own, times[best])
        compared = "the same as"
        if difference is not None and abs(difference) >= SAME:
            compared = f"{abs(difference):.1f} % {'more' if difference > 0 else 'less'} than"
        yield (
            f"Served as batches ({mode.value}) it took {short(own)} s, {compared} the best fixed policy there, {best} "
            f"({short(times[best])} s)."
        )


def _times(count: int) -> str:
    return "never" if count == 0 else "once" if count == 1 else f"{grouped(count)} times"


def _were(count: int) -> str:
    return "was" if count == 1 else "were"


def _short_windows(course: Course) -> int:
    ended = [sum(row) for row in zip(course.completed, course.lost, course.shed, course.rejected, strict=True)]
    return sum(good < GOOD * count for good, count in zip(course.good, ended, strict=True))


def _stretches(course: Course) -> str:
    return "windows" if course.together == 1 else f"stretches of {course.together} windows"


def _name(cast: Cast, row: Row) -> str:
    return "The evolving system" if row.kind == "evolving" else row.name


def _overall(objective: str, books: Books) -> str:
    """What a row came to, by the objective."""
    if objective == "goodput":
        return f"answered {100 * books.goodput:.2f} % of the requests within their SLO"
    if objective == "delay":
        return f"had a mean delay of {short(delay_score(books))} s, requests not completed counted as 600 s"
    if books.cost_per_good_usd is None:
        return f"paid ${books.cost_usd:.2f} and gave no good answer"
    return f"paid ${dollars(1000 * books.cost_per_good_usd)} for a thousand good answers"


def _better(one: float | None, other: float | None, more: bool) -> bool:
    """Whether one is better than the other in a table of one decimal; a value is better than none."""
    if one is None or other is None:
        return one is not None
    difference = change(one, other)
    if difference is None:
        return (one > other) if more else (one < other)
    return (difference if more else -difference) >= SAME
