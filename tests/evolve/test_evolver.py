"""Evolution beside a run: gates leave evidence, offers are causal and charged, failures are withdrawn."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from autopoiesis.cluster import Cluster, Hardware, Pool, catalog
from autopoiesis.cost import CostModel
from autopoiesis.errors import EvaluationError, ProviderError
from autopoiesis.evolve.evolver import Evolver
from autopoiesis.evolve.population import HUMAN, LIVING, Population
from autopoiesis.evolve.providers import provider
from autopoiesis.evolve.providers.base import Completion, CompletionRequest, Provider
from autopoiesis.evolve.store import Store
from autopoiesis.evolve.workers import Workers
from autopoiesis.plan import Capacity, Replica, ServingPlan
from autopoiesis.policy.host_template import HostTemplate
from autopoiesis.policy.library import library
from autopoiesis.policy.source import PolicySource
from autopoiesis.simulate.hosted import ESTIMATOR, HostedPolicy
from autopoiesis.simulate.layout import SECOND
from autopoiesis.simulate.run import Outcome, Point, Policy, Run
from autopoiesis.simulate.scenario import Mode, Scenario, draw_hidden
from autopoiesis.workload import SLO, single_requests

HERE = Path(__file__).parent
MODEL = "llama-3.1-8b"
REPLICA = Replica(MODEL, "l40s")

SHEDDING = '''"""Shed what has waited too long for its first token, hold while replicas are full."""
from autopoiesis.policy import HOLD, SHED, Decision, ReplicaView, Request, ServingState

interface = 1


def should_reschedule(state: ServingState) -> bool:
    return False


def plan(state: ServingState) -> Decision:
    return Decision(plan=state.plan)


def route(request: Request, replicas: list[ReplicaView]) -> int:
    if request.waited_s > 0.5 * request.ttft_slo_s:
        return SHED
    best = min(replicas, key=lambda r: r.in_flight)
    if best.in_flight >= 44.0:
        return HOLD
    return best.index
'''

FAILING = SHEDDING.replace("    return False\n", "    return 1 // int(state.now_s * 0) == 0\n")

SPOILED = SHEDDING.replace("    return False\n", "    return 1 // int(max(0.0, 150.0 - state.now_s) * 100) == 7\n")
"""Works at first, fails from 150 s on."""


@pytest.fixture(scope="module")
def template() -> Iterator[HostTemplate]:
    with HostTemplate(ESTIMATOR) as opened:
        yield opened


def scenario(rate_rps: float = 11.5, seconds: float = 240.0) -> Scenario:
    """Two L40S, which one model overloads at about seven requests a second."""
    gpus = {"l40s": catalog.gpus()["l40s"]}
    cluster = Cluster("two", (Pool("l40s", "l40s", 2, 2, 2, 0.44),), gpus)
    rng = np.random.default_rng(3)
    n = int(rate_rps * seconds)
    requests = single_requests(
        np.sort(rng.uniform(0, seconds, n)), rng.integers(200, 1500, n), rng.integers(50, 300, n)
    )
    cost = CostModel(Hardware(gpus, {MODEL: catalog.model(MODEL)}))
    return Scenario(cluster, (MODEL,), requests, {MODEL: SLO()}, cost, draw_hidden(cluster, 1), window_s=15.0)


class Canned:
    """A provider that answers with the given texts in turn, then fails."""

    name = "canned"

    def __init__(self, *texts: str, latency_s: float = 0.0) -> None:
        self.texts = list(texts)
        self.latency_s = latency_s
        self.requests: list[CompletionRequest] = []

    def complete(self, request: CompletionRequest) -> Completion:
        self.requests.append(request)
        if not self.texts:
            raise ProviderError("canned: nothing left")
        return Completion(self.texts.pop(0), None, None, self.latency_s, metered=False)


def serve(
    template: HostTemplate,
    given: Scenario,
    source: Provider,
    store: Store,
    *,
    budget: float = 1.0,
    ended_s: list[float] | None = None,
    workers: Workers | None = None,
) -> tuple[Outcome, Evolver, list[tuple[float, str]]]:
    static = library()["static"]
    evolver = Evolver(
        template,
        source,
        store,
        "run",
        Mode.OPERATOR,
        static,
        {"static": static},
        budget=budget,
        seed=0,
        deadline_s=10.0,
        workers=workers,
    )
    at_work = [HostedPolicy(template, static, 10.0)]
    swaps: list[tuple[float, str]] = []

    def on_point(point: Point) -> Policy | None:
        successor = evolver(point)
        if isinstance(successor, HostedPolicy):
            swaps.append((point.now_s, successor.source.text))
            at_work.append(successor)
            at_work.pop(0).close()
        return successor

    capacity = Capacity.at_maximum(given.cluster)
    run = Run(given, at_work[0], ServingPlan((REPLICA, REPLICA)), capacity, Mode.OPERATOR, on_point=on_point)
    try:
        outcome = run.finish()
        if ended_s is not None:
            ended_s.extend(run.world.simulation.state.requests["done"] / SECOND)
        return outcome, evolver, swaps
    finally:
        for policy in at_work:
            policy.close()


def fenced(text: str) -> str:
    return f"Here it is:\n```python\n{text}```\n"


def test_a_better_policy_takes_over_and_serves_better(template: HostTemplate) -> None:
    with Store(":memory:") as store:
        plain, _, none = serve(template, scenario(), Canned(), store)
        evolved, evolver, swaps = serve(template, scenario(), Canned(fenced(SHEDDING)), store)
        gates = {(gate.gate, gate.passed) for gate in store.gates("run", "operator")}
        scores = store.scores(PolicySource("shedding", SHEDDING).identity)
    assert scores
    assert all(score.mode == "operator" and score.versions["interface"] == "1" for score in scores)
    assert not none
    assert [text for _, text in swaps] == [SHEDDING]
    assert plain.books is not None
    assert evolved.books is not None
    assert evolved.books.good > plain.books.good
    assert {("checked", True), ("replayed", True), ("held out", True), ("tried", True), ("active", True)} <= gates
    record = evolver.swaps[0]
    assert record.provider == "canned"
    assert record.evidence["train_ratio"] < 1


def test_latency_of_a_completion_delays_the_swap(template: HostTemplate) -> None:
    with Store(":memory:") as store:
        _, _, quick = serve(template, scenario(), Canned(fenced(SHEDDING)), store)
    with Store(":memory:") as store:
        _, evolver, slow = serve(template, scenario(), Canned(fenced(SHEDDING), latency_s=40.0), store)
    assert slow[0][0] >= quick[0][0] + 40.0 - 15.0
    assert evolver.swaps[0].evidence["evolving_s"] >= 40.0


def test_a_policy_that_fails_is_never_swapped_in_and_its_failure_is_told_to_the_model(template: HostTemplate) -> None:
    source = Canned(fenced(FAILING), "no code at all", fenced("import os\n" + SHEDDING), fenced(SHEDDING))
    with Store(":memory:") as store:
        _, _, swaps = serve(template, scenario(), source, store)
    assert all(text == SHEDDING for _, text in swaps)
    last = source.requests[-1].messages[-1].content
    assert "ZeroDivisionError" in last
    assert "import os" in last or "`os`" in last


def test_a_proposal_is_parsed_behind_the_wall_before_anybody_else_does(
    template: HostTemplate, monkeypatch: pytest.MonkeyPatch
) -> None:
    hostile = {
        "`open`": "open('f')",
        "chains more than 100": "-" * 50_000 + "1",
        "more than 100 characters": "0x" + "f" * 9_000,
        "lone surrogates": "'\ud800'",
    }
    parsed: list[Any] = []
    parse = ast.parse

    def noted(*arguments: Any, **settings: Any) -> Any:
        parsed.append(arguments[0])
        return parse(*arguments, **settings)

    monkeypatch.setattr(ast, "parse", noted)
    source = Canned(*(fenced(f"{SHEDDING}\nx = {value}\n") for value in hostile.values()), fenced(SHEDDING))
    with Store(":memory:") as store:
        serve(template, scenario(), source, store)
    told = source.requests[len(hostile)].messages[-1].content
    assert all(reason in told for reason in hostile)
    assert any(SHEDDING in text for text in parsed)
    assert not any(value in text for text in parsed for value in hostile.values())


def test_a_policy_that_fails_while_it_serves_gives_way_to_its_predecessor(template: HostTemplate) -> None:
    with Store(":memory:") as store:
        _, evolver, swaps = serve(template, scenario(), Canned(fenced(SPOILED)), store)
        gates = [gate for gate in store.gates("run", "operator") if gate.gate == "watched"]
    assert [text for _, text in swaps][:2] == [SPOILED, library()["static"].text]
    assert "failed while it served" in evolver.swaps[1].evidence["rollback"]
    assert gates
    assert not gates[0].passed


def test_prompts_hold_numbers_and_sources_and_no_request_of_a_user(template: HostTemplate) -> None:
    source = Canned(fenced(SHEDDING))
    with Store(":memory:") as store:
        serve(template, scenario(), source, store)
    text = source.requests[0].messages[-1].content
    assert "cost_per_good" in text
    assert f"{MODEL}/<512" in text
    assert library()["static"].text.strip() in text


def test_without_a_budget_nothing_is_measured(template: HostTemplate) -> None:
    """A run under a starved evolver is the run under the first policy."""
    given = scenario()
    with Store(":memory:") as store:
        starved, evolver, swaps = serve(template, given, provider("structural"), store, budget=0.0)
        assert not swaps
        assert not store.gates("run", "operator")
        assert evolver.spent_s == 0.0
    static = HostedPolicy(template, library()["static"], 10.0)
    capacity = Capacity.at_maximum(given.cluster)
    try:
        alone = Run(given, static, ServingPlan((REPLICA, REPLICA)), capacity, Mode.OPERATOR).finish()
    finally:
        static.close()
    assert starved.books == alone.books


@pytest.mark.parametrize("budget", [0.005, 0.02, 0.1])
def test_a_budget_holds_over_a_run_give_or_take_one_round(template: HostTemplate, budget: float) -> None:
    with Store(":memory:") as store:
        outcome, evolver, _ = serve(template, scenario(), provider("structural"), store, budget=budget)
    assert 0 < evolver.spent_s <= budget * outcome.ended_s + 1.0


def test_evolution_knows_nothing_of_what_comes_later(template: HostTemplate) -> None:
    """Other requests after t, and longer outputs of those unfinished at t, change no gate and no swap up to t."""
    given, t = scenario(), 120.0
    ended_s: list[float] = []
    with Store(":memory:") as store:
        _, first, _ = serve(template, given, provider("structural"), store, budget=0.05, ended_s=ended_s)
        gates = [gate for gate in store.gates("run", "operator") if gate.t <= t]
    requests = given.requests
    later = (requests.arrival_s > t) | (np.array(ended_s) > t)
    output = np.where(later, 2 * requests.output_tokens + 40, requests.output_tokens)
    model_input = np.where(requests.arrival_s > t, 50, requests.input_tokens)
    other = given.with_requests(replace(requests, output_tokens=output, input_tokens=model_input))
    with Store(":memory:") as store:
        _, second, _ = serve(template, other, provider("structural"), store, budget=0.05)
        again = [gate for gate in store.gates("run", "operator") if gate.t <= t]
        everything = store.gates("run", "operator")
    assert len(gates) > 5
    assert gates == again
    assert [swap for swap in first.swaps if swap.t <= t] == [swap for swap in second.swaps if swap.t <= t]
    assert any(gate.t > t for gate in everything)


def test_structural_evolution_repeats_itself(template: HostTemplate) -> None:
    with Store(":memory:") as one, Store(":memory:") as two:
        first, _, swaps = serve(template, scenario(), provider("structural"), one, budget=0.05)
        second, _, again = serve(template, scenario(), provider("structural"), two, budget=0.05)
        assert [p.id for p in one.policies()] == [p.id for p in two.policies()]
        assert one.gates("run", "operator") == two.gates("run", "operator")
    assert swaps == again
    assert first.books == second.books


def test_replaying_in_workers_changes_no_decision_and_no_record(template: HostTemplate) -> None:
    evaluator = "autopoiesis.evolve.replay:ReplayEvaluator"
    with (
        Store(":memory:") as one,
        Store(":memory:") as two,
        Workers(evaluator, 2, deadline_s=300.0) as workers,
    ):
        first, _, swaps = serve(template, scenario(seconds=165.0), provider("structural"), one, budget=0.05)
        second, _, again = serve(
            template, scenario(seconds=165.0), provider("structural"), two, budget=0.05, workers=workers
        )
        assert one.gates("run", "operator") == two.gates("run", "operator")
        assert one.scores() == two.scores()
        assert one.windows() == two.windows()
    assert swaps == again
    assert first.books == second.books


def test_a_replay_whose_workers_die_stops_the_run_and_says_nothing_of_the_policy(template: HostTemplate) -> None:
    with (
        Store(":memory:") as store,
        Workers("replay_evaluators:Deadly", 1, deadline_s=60.0, python_path=(HERE,)) as workers,
    ):
        with pytest.raises(
            EvaluationError, match=r"static failed: the worker died \(signal 9\); what is measured is kept"
        ):
            serve(template, scenario(seconds=120.0), provider("structural"), store, budget=0.02, workers=workers)
        assert not store.scores()
        assert not store.gates("run", "operator")


def test_what_another_run_has_measured_belongs_to_this_one_too(template: HostTemplate) -> None:
    with Store(":memory:") as store:
        store.begin_run("run")
        serve(template, scenario(seconds=120.0), provider("structural"), store, budget=0.02)
        scores = {(score.policy, score.window) for score in store.scores()}
        store.begin_run("another")
        serve(template, scenario(seconds=120.0), provider("structural"), store, budget=0.02)
        store.drop_run("run")
        assert {(score.policy, score.window) for score in store.scores()} == scores
    assert scores


def test_what_was_remembered_is_not_computed_again(template: HostTemplate, monkeypatch: pytest.MonkeyPatch) -> None:
    from autopoiesis.evolve import replayer

    with Store(":memory:") as store:
        first, _, swaps = serve(template, scenario(), provider("structural"), store, budget=0.05)

        def forbidden(*_: object) -> None:
            raise AssertionError("replayed again")

        monkeypatch.setattr(replayer, "replay", forbidden)
        second, _, again = serve(template, scenario(), provider("structural"), store, budget=0.05)
    assert first.books == second.books
    assert swaps == again


def test_a_comparison_ages_and_elites_are_the_best_of_late() -> None:
    population = Population()
    names = ["a", "b"]
    text = library()["static"].text
    members = [
        population.add(PolicySource(name, text + f"\n{name.upper()} = {i}\n"), "human") for i, name in enumerate(names)
    ]
    a, b = members
    assert a is not None
    assert b is not None
    a.compared(0.5, 0)
    b.compared(0.9, 0)
    assert population.elites()[0] is a
    for point in range(1, 8):
        a.compared(1.2, point)
        b.compared(0.9, point)
    assert population.elites()[0] is b
    assert replace(a).ratio == a.ratio


def test_a_long_run_forgets_failures_first_then_the_worst_and_never_a_human_policy() -> None:
    population = Population()
    text = library()["static"].text
    human = population.add(PolicySource("static", text), HUMAN)
    assert human is not None
    sources = [PolicySource(f"p{i}", f"{text}\nN = {i}\n") for i in range(LIVING + LIVING // 4 + 2)]
    for i, source in enumerate(sources):
        member = population.add(source, "structural")
        assert member is not None
        member.compared(1.0 + i / 1000, 0)
    failed, worst = population.members[sources[3].identity], population.members[sources[-1].identity]
    failed.failure = "it failed"
    population.cull({worst.source.identity})
    kept = set(population.members)
    assert human.source.identity in kept
    assert worst.source.identity in kept
    assert failed.source.identity not in kept
    best = [source.identity for i, source in enumerate(sources[: LIVING - 1]) if i != 3]
    assert kept >= set(best)
    assert population.add(sources[3], "structural") is None
