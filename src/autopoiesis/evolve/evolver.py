"""Evolution beside the serving: propose, check, try, replay, hold out, and offer the better policy.

One `Evolver` accompanies one run. At every monitoring point it is given what is known by then and spends its budget of
metered seconds; what comes of it is ready only when these seconds (and the latency of any completion) have passed,
and can take over at the first monitoring point after that. The gates only ever reject, and leave their evidence.

    proposed → checked → screened → replayed → held out → tried on the live state → active → watched
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

from autopoiesis.errors import AutopoiesisError, PlanError, PolicyError, ProviderError, WallError
from autopoiesis.evolve.evidence import evidence_of
from autopoiesis.evolve.population import HUMAN, Member, Population
from autopoiesis.evolve.prompt import ScoredPolicy, build_messages, extract_source, interface_text
from autopoiesis.evolve.providers.base import CompletionRequest, Message, Provider
from autopoiesis.evolve.replay import FAILED, Fitness, Stretch, stretch_of
from autopoiesis.evolve.replayer import Replayer
from autopoiesis.evolve.store import GateRecord, PolicyRecord, Store, SwapRecord
from autopoiesis.evolve.workers import Workers
from autopoiesis.plan import check_plan
from autopoiesis.policy.admission import refusals_of
from autopoiesis.policy.host import PolicyHost
from autopoiesis.policy.host_template import HostTemplate
from autopoiesis.policy.source import PolicySource
from autopoiesis.simulate.hosted import HostedPolicy
from autopoiesis.simulate.run import Point, Policy, Run
from autopoiesis.simulate.scenario import Mode

MINIMUM_WINDOWS = 6
"""Closed windows before anything is replayed."""
LONGEST_REPLAY = 13
"""Windows that a stretch spans at most, held-out ones included."""
LARGEST_REPLAY = 100_000
"""Requests that a stretch holds at most; fewer windows are replayed where more would come."""
MARGIN = 0.02
"""A challenger must be better by this much over the replayed windows and in the decayed mean of its comparisons …"""
HELD_OUT_MARGIN = 0.005
"""… and by this much on those held out, so that windows which tell nothing let nobody through."""
SAVED_POINTS = 5
"""Points whose budget may be saved up."""
CALM_SHARE = 0.25
"""Part of the budget that is spent while the load does not drift and everything is good."""
DRIFT = 0.15
CALM_GOODPUT = 0.995
CHECK_S = 0.005
COMPILE_S = 0.15
"""Charged for checking one candidate, and for compiling its `route` or `priority` if it has one."""
SCREENED_WINDOWS = 2
"""Windows replayed first …"""
SCREEN_MARGIN = 0.02
"""… and a challenger that is worse than the incumbent on these by more than this goes no further."""
TOLERATED_FAILURES = 3
"""Failed calls after which a policy that took over is withdrawn."""
REMEMBERED_ATTEMPTS = 10
"""Verdicts on earlier proposals that a prompt shows."""
FRUITLESS = 4
"""Proposals of one round after which an unusable one ends the round."""
MAX_TOKENS = 8192
TEMPERATURE = 0.8


@dataclass(slots=True)
class Offer:
    """A challenger that has passed the gates, and since when it is ready."""

    member: Member
    ready_s: float
    evidence: dict[str, Any] = field(default_factory=dict)


class Evolver:
    """Deterministic given its seed, the provider's answers and what it is shown."""

    def __init__(
        self,
        template: HostTemplate,
        provider: Provider,
        store: Store,
        run_key: str,
        mode: Mode,
        first: PolicySource,
        seeds: dict[str, PolicySource],
        *,
        budget: float,
        seed: int,
        deadline_s: float,
        workers: Workers | None = None,
    ) -> None:
        """`budget` is metered seconds of evolution per second of serving; `first` is active at the start.

        `workers` (of `replay:ReplayEvaluator`) replay beside one another; they change nothing but how long it takes.
        """
        self.population = Population()
        self.swaps: list[SwapRecord] = []
        self._template = template
        self._provider = provider
        self._store = store
        self._run_key = run_key
        self._mode = mode
        self._budget = budget
        self._seed = seed
        self._deadline_s = deadline_s
        self._replayer = Replayer(template, store, run_key, deadline_s, workers)
        self._interface = interface_text()
        self._incumbent = first
        self._predecessor: PolicySource | None = None
        self.spent_s = 0.0
        """Metered seconds of evolution so far."""
        self._credit_s = 0.0
        self._last_point_s = 0.0
        self._busy_until_s = 0.0
        self._offer: Offer | None = None
        self._attempts: dict[str, str] = {}
        """By identity of the proposal, or by its number: the last verdict on it."""
        self._requests = 0
        for source in (first, *seeds.values()):
            self._introduce(source, HUMAN, ())

    # --- the monitoring point -------------------------------------------------------------------------------------

    def __call__(self, point: Point) -> Policy | None:
        """Called at every monitoring point; the policy that takes over now, if any."""
        successor = self._take_over(point)
        if point.now_s >= self._busy_until_s:
            self._evolve(point)
        return successor

    def _take_over(self, point: Point) -> Policy | None:
        """Withdraw an incumbent that fails; else swap in a challenger whose time has come."""
        if self._predecessor is not None and point.run.policy.failures >= TOLERATED_FAILURES:
            failed = self.population.members[self._incumbent.identity]
            failed.failure = point.run.policy.last_failure or "failed while it served"
            self._gate(point.now_s, failed.source, "watched", False, {"failures": point.run.policy.failures})
            back = self.population.members[self._predecessor.identity]
            self._offer = None
            return self._swap(point, back, {"rollback": "the policy failed while it served"})
        offer = self._offer
        if offer is None or point.now_s < offer.ready_s:
            return None
        self._offer = None
        return self._swap(point, offer.member, offer.evidence)

    def _swap(self, point: Point, member: Member, evidence: dict[str, Any]) -> Policy | None:
        try:
            policy = HostedPolicy(self._template, member.source, self._deadline_s)
        except PolicyError as error:
            member.failure = str(error)
            return None
        record = SwapRecord(
            run_key=self._run_key,
            mode=self._mode.value,
            t=point.now_s,
            policy=member.source.identity,
            parent=self._incumbent.identity,
            provider=member.provider,
            evidence={"summary": member.source.summary, **evidence},
        )
        self._store.put_swap(record)
        self.swaps.append(record)
        self._gate(point.now_s, member.source, "active", True, evidence)
        self._predecessor, self._incumbent = self._incumbent, member.source
        for other in self.population.members.values():
            # comparisons were with the old incumbent; they say little about the new one
            other.weight *= 0.5
        return policy

    # --- a round of evolution ---------------------------------------------------------------------------------------

    def _evolve(self, point: Point) -> None:
        """Spend the credit: measure the incumbent, then challengers, old and new, until it is used up."""
        period_s = point.now_s - self._last_point_s
        self._last_point_s = point.now_s
        share = CALM_SHARE if self._calm(point) else 1.0
        self._credit_s = min(self._credit_s + self._budget * period_s * share, self._budget * period_s * SAVED_POINTS)
        count = self._replayable(point)
        if count < MINIMUM_WINDOWS or self._credit_s <= 0 or not _stands(point.run):
            return
        held_out_count = max(1, count // 3)
        first = point.index - count
        train = stretch_of(point, first, count - held_out_count)
        held_out = stretch_of(point, point.index - held_out_count, held_out_count)
        short = min(SCREENED_WINDOWS, train.windows)
        screen = stretch_of(point, point.index - held_out_count - short, short)
        stretches = (train, held_out, screen)
        if not all(len(stretch.scenario.requests) for stretch in stretches):
            return
        spent_s = 0.0
        self._replayer.ahead((self._incumbent, stretch) for stretch in stretches)
        incumbent = [self._measure(self._incumbent, stretch) for stretch in stretches]
        spent_s += sum(f.seconds for f in incumbent)
        best: tuple[float, Member, dict[str, Any]] | None = None
        latency_s = 0.0
        rng = random.Random(f"{self._seed} {self._mode.value} {point.index}")
        proposed = 0
        while spent_s < self._credit_s:
            member = self.population.next_to_measure(point.index, self._incumbent.identity)
            if member is None or (proposed == 0 and self._ready_for_new(member)):
                if latency_s > 0:
                    break  # a model is asked once a round, with what the round before has taught
                made, seconds, waited_s = self._propose(point, rng, incumbent[0])
                proposed += 1
                spent_s += seconds
                latency_s += waited_s
                if made is None:
                    if proposed >= FRUITLESS:
                        break
                    continue
                member = made
            after = self.population.measured_after(member, self._incumbent.identity)
            following = [(m.source, screen) for m in after]
            self._replayer.ahead([(member.source, screen), *following, (member.source, train)])
            fitness = self._measure(member.source, screen)
            spent_s += fitness.seconds
            ratio = _ratio(fitness, incumbent[2])
            if fitness.failure is None and ratio > 1 + SCREEN_MARGIN:
                member.compared(ratio, point.index)
                self._gate(point.now_s, member.source, "screened", False, {"screen_ratio": ratio})
                self._learn(member, f"ratio {ratio:.4g} over {screen.windows} windows, screened out", fitness)
                continue
            if fitness.failure is None:
                self._replayer.ahead([(member.source, train), *following, (member.source, held_out)])
                fitness = self._measure(member.source, train)
                spent_s += fitness.seconds
            ratio = _ratio(fitness, incumbent[0])
            member.compared(ratio, point.index)
            if fitness.failure is not None:
                member.failure = fitness.failure
                self._refuse(point, member, "replayed", {"failure": fitness.failure}, fitness.failure)
                continue
            passed = ratio <= 1 - MARGIN and (member.ratio or 0.0) <= 1 - MARGIN
            evidence = {"train_ratio": ratio, "train_score": fitness.score, "train_windows": train.windows}
            self._gate(point.now_s, member.source, "replayed", passed, evidence)
            self._learn(member, f"ratio {ratio:.4g} over {train.windows} windows", fitness)
            if not passed or (best is not None and ratio >= best[0]):
                continue
            held = self._measure(member.source, held_out)
            spent_s += held.seconds
            held_ratio = _ratio(held, incumbent[1])
            passed = held.failure is None and held_ratio <= 1 - HELD_OUT_MARGIN
            evidence |= {"held_out_ratio": held_ratio, "held_out_windows": held_out.windows}
            self._gate(point.now_s, member.source, "held out", passed, evidence)
            self._learn(member, f"ratio {held_ratio:.4g} over {held_out.windows} windows held out", held)
            if passed:
                best = (ratio, member, evidence)
        members = [best[1]] if best is not None else []
        members += [self._offer.member] if self._offer is not None else []
        needed = [self._incumbent, *(m.source for m in members), *([self._predecessor] if self._predecessor else [])]
        self.population.cull({source.identity for source in needed})
        # what was overdrawn is owed: over a run the budget holds, give or take one round
        self._credit_s -= spent_s
        self.spent_s += spent_s
        self._busy_until_s = point.now_s + spent_s + latency_s
        if best is not None:
            _, member, evidence = best
            if self._tried(point, member):
                self._offer = Offer(member, self._busy_until_s, {**evidence, "evolving_s": spent_s + latency_s})

    def _ready_for_new(self, waiting: Member) -> bool:
        """Elites wait for a new proposal in every round; members never measured go first."""
        return waiting.ratio is not None

    def _replayable(self, point: Point) -> int:
        """How many of the last windows a stretch may span."""
        count = total = 0
        for rows in reversed(point.run.book.rows):
            total += len(rows)
            if count == LONGEST_REPLAY or (total > LARGEST_REPLAY and count >= MINIMUM_WINDOWS):
                break
            count += 1
        return count

    def _calm(self, point: Point) -> bool:
        """The load does not drift and what ended was good: little to win by evolving now."""
        windows = point.run.windows[-4:]
        if len(windows) < 4:
            return False
        now, before = windows[-1], windows[:-1]
        rate = sum(w.rate_rps for w in before) / len(before)
        tokens = [sum(e.rate_rps * (e.input_mean + e.output_mean) for e in w.classes) for w in windows]
        usual = sum(tokens[:-1]) / len(before)
        ended = sum(e.completed + e.shed + e.lost for e in now.classes)
        good = sum(e.good for e in now.classes)
        drifts = abs(now.rate_rps - rate) > DRIFT * rate or abs(tokens[-1] - usual) > DRIFT * usual
        calm = not drifts and (self._mode is not Mode.OPERATOR or good >= CALM_GOODPUT * ended)
        return calm and not point.run.scenario.cluster.elastic

    def _measure(self, source: PolicySource, stretch: Stretch) -> Fitness:
        return self._replayer.measure(source, stretch)

    # --- proposing ------------------------------------------------------------------------------------------------

    def _propose(self, point: Point, rng: random.Random, incumbent: Fitness) -> tuple[Member | None, float, float]:
        """A new checked member, if one came; metered seconds; seconds waited for a completion."""
        parents = self.population.parents(self._incumbent, rng)
        self._requests += 1
        request = CompletionRequest(
            request_id=f"{self._mode.value}-{self._requests:06d}",
            messages=self._messages(point, parents, incumbent),
            temperature=TEMPERATURE,
            max_tokens=MAX_TOKENS,
            parents=parents,
            seed=rng.getrandbits(48),
        )
        try:
            completion = self._provider.complete(request)
        except ProviderError:
            # recorded with its reason by whoever keeps completions; the model has nothing to learn from it
            return None, CHECK_S, 0.0
        seconds = CHECK_S + (completion.latency_s if completion.metered else 0.0)
        waited_s = 0.0 if completion.metered else completion.latency_s
        try:
            source = PolicySource(f"{self._provider.name}-{self._requests}", extract_source(completion.text))
            with PolicyHost(self._template, source.text, self._deadline_s) as host:
                refusals = refusals_of(host, source.name)
            if refusals:
                raise PolicyError("; ".join(str(refusal) for refusal in refusals[:3]))
            source.identity  # noqa: B018 — a source without an identity does not parse
        except WallError:
            raise
        except AutopoiesisError as error:
            self._verdict(f"#{self._requests}", f"refused by the checker: {error}")
            return None, seconds, waited_s
        member = self._introduce(source, self._provider.name, tuple(p.identity for p in parents))
        if member is not None:
            self._gate(point.now_s, source, "checked", True, {})
            if source.has("route") or source.has("priority"):
                seconds += COMPILE_S
        return member, seconds, waited_s

    def _messages(self, point: Point, parents: tuple[PolicySource, ...], incumbent: Fitness) -> tuple[Message, ...]:
        """The prompt; none for structural synthesis, which reads programs and not words."""
        if self._provider.name == "structural":
            return ()
        measures: list[tuple[str, float | None]] = [("score", _finite(incumbent.score)), ("ratio", 1.0)]
        if incumbent.goodput is not None:
            measures.append(("fraction good", incumbent.goodput))
        shown = [ScoredPolicy(self._incumbent, tuple(measures))]
        for source in parents:
            if source.identity != self._incumbent.identity:
                shown.append(ScoredPolicy(source, (("ratio", self.population.members[source.identity].ratio),)))
        return build_messages(self._interface, shown, evidence_of(point), tuple(self._attempts.values()))

    def _introduce(self, source: PolicySource, provider: str, parents: tuple[str, ...]) -> Member | None:
        member = self.population.add(source, provider, parents)
        if member is not None:
            self._store.put_policy(
                PolicyRecord(source.identity, source.name, source.text, provider, parents, source.summary)
            )
        return member

    # --- gates ----------------------------------------------------------------------------------------------------

    def _tried(self, point: Point, member: Member) -> bool:
        """Ask the candidate about the live state, without letting it act: it must answer, and its plan must stand."""
        run = point.run
        observation, belief = run.observation(), run.belief.cost.encode()
        policy = HostedPolicy(self._template, member.source, self._deadline_s)
        try:
            asked = policy.trigger(observation, belief)
            failure = asked.failure
            if failure is None:
                planned = policy.plan(observation, belief)
                failure = planned.failure
                if planned.value is not None:
                    capacity = run.loop.capacity
                    for pool, gpus in planned.value.capacity.items():
                        if pool in run.loop.requested:
                            size = capacity.pool(pool).pool
                            whole = max(min(gpus, size.maximum), size.minimum) // size.gpus_per_node
                            capacity = capacity.with_pool(pool, whole * size.gpus_per_node)
                    try:
                        check_plan(
                            planned.value.plan,
                            capacity,
                            run.scenario.envelope,
                            run.scenario.models,
                            run.scenario.shapes,
                            running=run.loop.plan,
                        )
                    except PlanError as error:
                        failure = str(error)
        finally:
            policy.close()
        if failure is not None:
            member.failure = failure
            self._refuse(point, member, "tried", {"failure": failure}, failure)
            return False
        self._gate(point.now_s, member.source, "tried", True, {})
        return True

    def _refuse(self, point: Point, member: Member, gate: str, evidence: dict[str, Any], why: str) -> None:
        self._gate(point.now_s, member.source, gate, False, evidence)
        self._learn(member, f"failed when {gate}: {why}", None)

    def _learn(self, member: Member, verdict: str, fitness: Fitness | None) -> None:
        """Remember what came of a proposal, in words for the next prompt."""
        if member.provider != self._provider.name:
            return
        if fitness is not None and fitness.goodput is not None:
            verdict += f" ({100 * fitness.goodput:.1f} % good, {fitness.reschedules} reschedules)"
        self._verdict(member.source.identity, f"{member.source.summary}: {verdict}")

    def _verdict(self, key: str, text: str) -> None:
        self._attempts[key] = text
        while len(self._attempts) > REMEMBERED_ATTEMPTS:
            del self._attempts[next(iter(self._attempts))]

    def _gate(self, t: float, source: PolicySource, gate: str, passed: bool, evidence: dict[str, Any]) -> None:
        self._store.put_gate(GateRecord(self._run_key, self._mode.value, t, source.identity, gate, passed, evidence))


def _stands(run: Run) -> bool:
    """Whether a replay could start from the plan in force: right after a loss it may not stand until it is repaired."""
    scenario, loop = run.scenario, run.loop
    try:
        check_plan(loop.plan, loop.capacity, scenario.envelope, scenario.models, scenario.shapes, running=loop.plan)
    except PlanError:
        return False
    return True


def _ratio(fitness: Fitness, incumbent: Fitness) -> float:
    """Score relative to the incumbent's on the same stretch; 1 where both failed or both are perfect."""
    if incumbent.score >= FAILED:
        return 0.5 if fitness.score < FAILED else 1.0
    if fitness.score >= FAILED:
        return 10.0
    if incumbent.score <= 0:
        return 1.0 if fitness.score <= 0 else 10.0
    return fitness.score / incumbent.score


def _finite(value: float) -> float | None:
    return value if value < FAILED else None
