"""The policies that were at work: where each came from, what it changed, and on what grounds it took over."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from typing import Any

from autopoiesis.control.account import Ancestor, Gate, Leg, Lineage
from autopoiesis.control.config import SwapEntry
from autopoiesis.report.html import Markup, details, joined, table, tag
from autopoiesis.report.numbers import clock

SHOWN = 40
"""Takeovers shown with a diff; later ones stand in the table only."""
CONTEXT = 3
"""Unchanged lines around a change."""
LONGEST = 400
"""Lines of a diff that are shown."""
GENERATIONS = 12
"""Ancestors of a policy that are shown, the nearest."""
SAYS = {
    "train_ratio": "score over the windows replayed, relative to the incumbent's (less is better)",
    "train_score": "score over the windows replayed",
    "train_windows": "windows replayed",
    "held_out_ratio": "score over the windows held out, relative to the incumbent's",
    "held_out_windows": "windows held out",
    "evolving_s": "seconds that evolving took, before it could take over",
    "rollback": "withdrawn",
    "summary": "what it says of itself",
}
"""Names of evidence in words."""


def takeovers(leg: Leg) -> Markup:
    """All takeovers of an evolving row, one by one."""
    lineage = leg.lineage
    assert lineage is not None
    parts: list[Markup] = [_start(lineage)]
    for number, swap in enumerate(leg.swaps[:SHOWN], 1):
        parts.append(_takeover(number, swap, lineage))
    if len(leg.swaps) > SHOWN:
        parts.append(
            table(
                f"The other {len(leg.swaps) - SHOWN} takeovers",
                ("time", "policy", "in place of", "made by"),
                [
                    (clock(swap.t), _called(lineage, swap.policy), _called(lineage, swap.parent), swap.provider)
                    for swap in leg.swaps[SHOWN:]
                ],
                words=4,
            )
        )
    return joined(parts)


def source(policy: Ancestor) -> Markup:
    """The whole text of a policy."""
    return details(f"Source of {policy.name}", tag("pre", tag("code", policy.source), class_="diff"))


def _start(lineage: Lineage) -> Markup:
    first = lineage.policies[lineage.first]
    return tag(
        "article",
        tag("h3", f"0:00:00  {first.name}"),
        tag("p", "What the evolving system started under. ", first.summary),
        source(first),
        class_="policy first",
    )


def _takeover(number: int, swap: SwapEntry, lineage: Lineage) -> Markup:
    policy = lineage.policies.get(swap.policy)
    name = _called(lineage, swap.policy)
    said = [
        tag("h3", f"{clock(swap.t)}  {name}"),
        tag("p", policy.summary if policy is not None else ""),
        tag(
            "p",
            f"In place of {_called(lineage, swap.parent)}; made by: {swap.provider}; identity ",
            tag("code", swap.policy),
            ".",
            class_="note",
        ),
        _evidence(swap.evidence, name),
        _gates([gate for gate in lineage.gates if gate.policy == swap.policy and gate.t <= swap.t], name),
    ]
    if policy is not None:
        said += [_descent(policy, lineage), _change(policy, swap, lineage), source(policy)]
    return tag("article", *said, class_="policy", id=f"takeover-{swap.mode}-{number}")


def _called(lineage: Lineage, identity: str | None) -> str:
    policy = lineage.policies.get(identity or "")
    return policy.name if policy is not None else identity or "nobody"


def _evidence(evidence: dict[str, Any], name: str) -> Markup:
    rows = [(SAYS.get(key, key), value) for key, value in _flat(evidence, "") if key != "summary"]
    return table(f"Evidence for {name}", ("evidence", "value"), rows)


def _flat(value: Any, name: str) -> Iterator[tuple[str, str]]:
    match value:
        case dict():
            for key, item in value.items():
                yield from _flat(item, f"{name}.{key}" if name else str(key))
        case list() | tuple():
            yield name, ", ".join(text for item in value for _, text in _flat(item, ""))
        case float():
            yield name, f"{value:.3g}"
        case bool() | None:
            yield name, {True: "yes", False: "no", None: "none"}[value]
        case _:
            yield name, str(value)


def _gates(gates: Iterable[Gate], name: str) -> Markup:
    rows = []
    for gate in gates:
        evidence = ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in _flat(gate.evidence, ""))
        rows.append((clock(gate.t), gate.gate, "passed" if gate.passed else "refused", evidence))
    if not rows:
        return Markup()
    return details(
        f"Gates that it went through ({len(rows)})",
        table(f"Gates of {name}", ("time", "gate", "verdict", "evidence"), rows, words=4),
    )


def _descent(policy: Ancestor, lineage: Lineage) -> Markup:
    """Who it was made from, back to those that people wrote."""
    left = [GENERATIONS]
    seen = {policy.identity}

    def branch(identity: str) -> Markup:
        ancestor = lineage.policies.get(identity)
        left[0] -= 1
        if ancestor is None:
            return tag("li", tag("code", identity))
        if identity in seen:
            return tag("li", f"{ancestor.name} (again)")
        seen.add(identity)
        by = "written by people" if ancestor.provider == "human" else f"made by: {ancestor.provider}"
        below = joined(branch(parent) for parent in ancestor.parents if left[0] > 0)
        return tag("li", f"{ancestor.name} ({by})", tag("ul", below) if below else "")

    if not policy.parents:
        return tag(
            "p",
            "Written by people." if policy.provider == "human" else "Made from nothing that was there before.",
            class_="note",
        )
    return details(
        "Made with " + ", ".join(_called(lineage, parent) for parent in policy.parents) + " at hand",
        tag("ul", joined(branch(parent) for parent in policy.parents), class_="tree"),
    )


def _change(policy: Ancestor, swap: SwapEntry, lineage: Lineage) -> Markup:
    """What it changed, against the nearest of its parents and, if that is another, the policy before it."""
    parents = [lineage.policies[parent] for parent in policy.parents if parent in lineage.policies]
    before = lineage.policies.get(swap.parent or "")
    compared = []
    if parents:
        nearest = min(parents, key=lambda parent: (_changed(parent.source, policy.source), parent.identity))
        compared.append((f"Difference from its nearest parent, {nearest.name}", nearest))
        if before is nearest:
            before = None
    if before is not None:
        compared.append((f"Difference from the policy before it, {before.name}", before))
    return joined(_diff(title, other, policy, open=not position) for position, (title, other) in enumerate(compared))


def _changed(one: str, other: str) -> int:
    return sum(line[:1] in "+-" for line in difflib.unified_diff(one.splitlines(), other.splitlines(), n=0))


def _diff(title: str, one: Ancestor, other: Ancestor, open: bool) -> Markup:
    lines = list(
        difflib.unified_diff(
            one.source.splitlines(), other.source.splitlines(), one.name, other.name, n=CONTEXT, lineterm=""
        )
    )
    shown = [_line(line) for line in lines[:LONGEST]]
    if len(lines) > LONGEST:
        shown.append(tag("i", f"… and {len(lines) - LONGEST} more lines"))
    if not lines:
        shown = [tag("i", "no difference")]
    added = sum(line.startswith("+") for line in lines[2:])
    removed = sum(line.startswith("-") for line in lines[2:])
    return tag(
        "details",
        tag("summary", f"{title}: {added} lines added, {removed} removed"),
        tag("pre", joined(shown, "\n"), class_="diff"),
        open=open,
    )


def _line(line: str) -> Markup:
    if line.startswith(("+++", "---", "@@")):
        return tag("i", line)
    return tag("ins", line) if line.startswith("+") else tag("del", line) if line.startswith("-") else tag("span", line)
