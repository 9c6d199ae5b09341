"""Policies synthesised without a model, by recombining their parents' programs.

The default on a machine with neither key nor network, and the yardstick for one that has them: what a language model
proposes should beat what shuffling working parts and turning their knobs finds.
"""

from __future__ import annotations

import ast
import math
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from autopoiesis.errors import PolicyError
from autopoiesis.evolve.crossover import (
    Item,
    Module,
    fresh_name,
    graft,
    identifiers,
    parse_module,
    reachable,
    renamed_entry,
    render,
    wrap,
)
from autopoiesis.evolve.routers import ROUTERS

if TYPE_CHECKING:
    from autopoiesis.policy.source import PolicySource

MAX_SOURCE_CHARS = 24_000
"""Offspring longer than this is thrown away: crossing would otherwise only ever grow programs."""
ATTEMPTS = 30
_ROUTING = frozenset({"route", "priority"})
_CONSTANT = re.compile(r"_?[A-Z][A-Z0-9_]*")
_LABEL = r"[\w.()+ -]{1,48}?"
_DOC = re.compile(rf"({_LABEL}) trigger, ({_LABEL}) plan(?:, ({_LABEL}) route)?(?:, [A-Z_].*)?")


@dataclass(frozen=True, slots=True)
class Strain:
    """A program and where its parts come from, in the words its docstring will use."""

    module: Module
    trigger: str
    planner: str
    router: str


Operator = Callable[[Strain, Sequence[Strain], random.Random], Strain | None]
"""Host and donors to offspring, or None where the operator has nothing to work on."""


def synthesise(parents: Sequence[PolicySource], rng: random.Random) -> str:
    """A new policy's source from its parents' (the first one is favoured as host).

    Always parses and defines the required functions; differs from every parent. Raises PolicyError for a parent
    that does not parse, or when nothing new was found.
    """
    if not parents:
        raise PolicyError("structural synthesis needs at least one parent policy")
    strains = [_strain(parent) for parent in parents]
    known = {_content(strain.module) for strain in strains}
    for _ in range(ATTEMPTS):
        position = 0 if rng.random() < 0.5 else rng.randrange(len(strains))
        donors = [strain for i, strain in enumerate(strains) if i != position]
        child = _offspring(strains[position], donors, rng)
        if child is None or _content(child.module) in known:
            continue
        text = render(child.module, _doc(child))
        if len(text) <= MAX_SOURCE_CHARS:
            return text
    raise PolicyError(f"no new policy found in {ATTEMPTS} attempts; give more or shorter parents")


def _offspring(host: Strain, donors: Sequence[Strain], rng: random.Random) -> Strain | None:
    operators = dict(OPERATORS)
    while operators:
        operator = rng.choices(list(operators), weights=list(operators.values()))[0]
        del operators[operator]
        child = operator(host, donors, rng)
        if child is not None:
            turned = perturb(child, donors, rng) if operator is not perturb and rng.random() < 0.5 else None
            return turned or child
    return None


def perturb(host: Strain, donors: Sequence[Strain], rng: random.Random) -> Strain | None:
    """Turn one to three of the numeric constants by a log-normal factor."""
    positions = [i for i, item in enumerate(host.module.items) if _constant(item) is not None]
    if not positions:
        return None
    items = list(host.module.items)
    sigma = rng.choice((0.1, 0.3, 0.7))
    for position in rng.sample(positions, min(len(positions), rng.choice((1, 1, 1, 2, 2, 3)))):
        constant = _constant(items[position])
        assert constant is not None
        value = perturbed(constant[1], math.exp(rng.gauss(0.0, sigma)), rng.random() < 0.5)
        items[position] = replace(items[position], text=f"{constant[0]} = {value!r}", uses=frozenset())
    return replace(host, module=replace(host.module, items=tuple(items)))


def perturbed(value: float, factor: float, near_one: bool) -> float:
    """`value` times `factor` within its kind: integers stay integers of at least 1, fractions stay in (0, 1).

    `near_one`: what lies between 1 and 2 is taken for a ratio, and the factor turns its excess over 1.
    """
    if value < 0:
        return -perturbed(-value, factor, near_one)
    if isinstance(value, int):
        moved = max(1, round(value * factor))
        return moved if moved != value else max(1, value + (1 if factor > 1 else -1))
    if value < 1:
        odds = value / (1 - value) * factor
        return min(max(_rounded(odds / (1 + odds)), 1e-6), 0.999999)
    if near_one and 1 < value < 2:
        return round(1 + (value - 1) * factor, 4)
    return _rounded(value * factor)


def _rounded(value: float) -> float:
    return float(f"{value:.3g}")


def take_trigger(host: Strain, donors: Sequence[Strain], rng: random.Random) -> Strain | None:
    if not donors:
        return None
    donor = rng.choice(donors)
    return replace(
        host, module=graft(host.module, donor.module, frozenset({"should_reschedule"})), trigger=donor.trigger
    )


def take_planner(host: Strain, donors: Sequence[Strain], rng: random.Random) -> Strain | None:
    """The planner writes the memory, so what it would keep of a predecessor's comes with it."""
    if not donors:
        return None
    donor = rng.choice(donors)
    return replace(host, module=graft(host.module, donor.module, frozenset({"plan", "adopt"})), planner=donor.planner)


def take_router(host: Strain, donors: Sequence[Strain], rng: random.Random) -> Strain | None:
    routed = [donor for donor in donors if donor.module.entries & _ROUTING]
    if not routed:
        return None
    donor = rng.choice(routed)
    return replace(host, module=graft(host.module, donor.module, _ROUTING), router=donor.router)


def known_router(host: Strain, donors: Sequence[Strain], rng: random.Random) -> Strain | None:
    """A router from the known ideas, whoever the parents are."""
    name = rng.choice([name for name in ROUTERS if name != host.router])
    donor = parse_module(ROUTERS[name], name, frozenset({"route"}))
    grafted = replace(host, module=graft(host.module, donor, _ROUTING), router=name)
    return perturb(grafted, donors, rng) if rng.random() < 0.5 else grafted


def drop_router(host: Strain, donors: Sequence[Strain], rng: random.Random) -> Strain | None:
    if not host.module.entries & _ROUTING:
        return None
    return replace(host, module=graft(host.module, Module("", ()), _ROUTING), router="")


def combine_triggers(host: Strain, donors: Sequence[Strain], rng: random.Random) -> Strain | None:
    """Reschedule when both triggers say so, or when either does; a trigger combined too often is left alone."""
    simple = [donor for donor in donors if "combined" not in donor.trigger]
    if not simple or "combined" in host.trigger:
        return None
    donor = rng.choice(simple)
    word = rng.choice(("and", "or"))
    words = identifiers((*host.module.items, *donor.module.items))
    first = fresh_name(f"{_word(host.trigger)}_trigger", words)
    second = fresh_name(f"{_word(donor.trigger)}_trigger", words | {first})
    beside = reachable(renamed_entry(donor.module, "should_reschedule", second), [second], host.module.entries)
    wrapper = _COMBINED.format(first=first, second=second, word=word)
    module = wrap(host.module, "should_reschedule", first, wrapper, beside)
    return replace(host, module=module, trigger=_joined(f"({host.trigger} {word} {donor.trigger})"))


def guard_gain(host: Strain, donors: Sequence[Strain], rng: random.Random) -> Strain | None:
    """Keep the plan when the new one is not better by a factor, in what the belief expects of both."""
    if _mentions(host, "MINIMUM_GAIN"):
        return None
    inner = fresh_name("unguarded_plan", identifiers(host.module.items))
    gained = rng.choice(_GAINS)
    wrapper = _GAIN_GUARD.format(inner=inner, gained=gained, gain=round(rng.uniform(1.01, 1.3), 3))
    return replace(host, module=wrap(host.module, "plan", inner, wrapper), planner=_joined(f"guarded {host.planner}"))


def guard_cool_down(host: Strain, donors: Sequence[Strain], rng: random.Random) -> Strain | None:
    """Leave the deployment alone for some windows after a transition."""
    if _mentions(host, "COOL_DOWN_WINDOWS"):
        return None
    inner = fresh_name(f"{_word(host.trigger)}_trigger", identifiers(host.module.items))
    wrapper = _COOL_DOWN.format(inner=inner, windows=rng.randint(1, 8))
    module = wrap(host.module, "should_reschedule", inner, wrapper)
    return replace(host, module=module, trigger=_joined(f"cooled {host.trigger}"))


def guard_floor(host: Strain, donors: Sequence[Strain], rng: random.Random) -> Strain | None:
    """Reschedule also whenever the plan in force has too little headroom left."""
    if _mentions(host, "HEADROOM_FLOOR"):
        return None
    inner = fresh_name(f"{_word(host.trigger)}_trigger", identifiers(host.module.items))
    wrapper = _FLOOR.format(inner=inner, floor=_rounded(rng.uniform(0.8, 1.4)))
    module = wrap(host.module, "should_reschedule", inner, wrapper)
    return replace(host, module=module, trigger=_joined(f"floored {host.trigger}"))


OPERATORS: dict[Operator, float] = {
    perturb: 4.0,
    take_trigger: 2.0,
    take_planner: 2.0,
    take_router: 1.0,
    known_router: 3.0,
    drop_router: 0.5,
    combine_triggers: 1.5,
    guard_gain: 1.0,
    guard_cool_down: 1.0,
    guard_floor: 0.5,
}
"""How often each is tried first."""

_COMBINED = """\
from autopoiesis.policy import ServingState
def should_reschedule(state: ServingState) -> bool:
    return {first}(state) {word} {second}(state)
"""

_COOL_DOWN = """\
from autopoiesis.policy import ServingState
COOL_DOWN_WINDOWS = {windows}
def should_reschedule(state: ServingState) -> bool:
    ended_s = max((past.ended_s for past in state.past_transitions), default=-1e18)
    if state.now_s - ended_s < COOL_DOWN_WINDOWS * state.window_s and not state.announced:
        return False
    return {inner}(state)
"""

_FLOOR = """\
from autopoiesis.policy import ServingState
HEADROOM_FLOOR = {floor}
def should_reschedule(state: ServingState) -> bool:
    if {inner}(state):
        return True
    settled = state.window is not None and state.moving is None
    return settled and state.estimate(state.plan).headroom < HEADROOM_FLOOR
"""

_GAINS = (
    "after.headroom >= before.headroom * MINIMUM_GAIN",
    "after.cost_per_good_usd * MINIMUM_GAIN <= before.cost_per_good_usd",
    "after.delay_s * MINIMUM_GAIN <= before.delay_s",
    "after.goodput >= before.goodput * MINIMUM_GAIN or after.cost_per_good_usd * MINIMUM_GAIN <= "
    "before.cost_per_good_usd",
)

_GAIN_GUARD = """\
from autopoiesis.policy import Decision, ServingState, tools
MINIMUM_GAIN = {gain}
def plan(state: ServingState) -> Decision:
    decision = {inner}(state)
    present = tools.target(state)
    if state.announced or decision.plan.same_replicas(present):
        return decision
    load = tools.expected(state)
    requested = {{pool.name: pool.requested for pool in state.pools}}
    before = tools.granted(load, requested).estimate(present)
    after = tools.granted(load, requested | decision.capacity).estimate(decision.plan)
    if not before.feasible or {gained}:
        return decision
    return Decision(present, memory=decision.memory)
"""


def _strain(parent: PolicySource) -> Strain:
    whole = parse_module(parent.text, parent.name)
    module = replace(whole, items=reachable(whole, sorted(whole.entries)))
    lineage = _DOC.fullmatch(module.doc.split("\n")[0])
    name = re.sub(r"[^\w.+-]+", "-", parent.name)[:32] or "unnamed"
    router = name if module.entries & _ROUTING else ""
    if lineage is None:
        return Strain(module, name, name, router)
    return Strain(module, lineage[1], lineage[2], router and (lineage[3] or name))


def _content(module: Module) -> frozenset[str]:
    return frozenset(item.text for item in module.items)


def _constant(item: Item) -> tuple[str, float] | None:
    """Name and value of a numeric constant other than 0, else None."""
    match ast.parse(item.text).body[0]:
        case (
            ast.Assign(targets=[ast.Name(id=name)], value=node)
            | ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as node)
        ) if _CONSTANT.fullmatch(name):
            try:
                value = ast.literal_eval(node)
            except ValueError:
                return None
            numeric = type(value) in (int, float) and value != 0 and math.isfinite(value)
            return (name, value) if numeric else None
    return None


def _mentions(host: Strain, constant: str) -> bool:
    return any(name.startswith(constant) for item in host.module.items for name in item.binds)


def _word(label: str) -> str:
    """A label as part of an identifier."""
    word = re.sub(r"\W+", "_", label).strip("_").lower()
    return word if word.isidentifier() and len(word) <= 24 else "combined"


def _joined(label: str) -> str:
    return label if len(label) <= 48 else "combined"


def _doc(strain: Strain) -> str:
    parts = [f"{strain.trigger} trigger", f"{strain.planner} plan"]
    if strain.router:
        parts.append(f"{strain.router} route")
    constants = (_constant(item) for item in strain.module.items)
    parts += [f"{constant[0]}={constant[1]!r}" for constant in constants if constant is not None]
    while len(", ".join(parts)) > 110:
        parts.pop()
    return ", ".join(parts)
