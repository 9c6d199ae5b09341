"""Replays remembered, and begun ahead of the question where other processes can take them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import msgspec

from autopoiesis.errors import EvaluationError
from autopoiesis.evolve.replay import FAILED, Fitness, ReplayJob, Stretch, packed, replay
from autopoiesis.evolve.store import ScoreRecord, Store, WindowRecord
from autopoiesis.evolve.versions import fingerprint
from autopoiesis.evolve.workers import Context, Workers
from autopoiesis.policy.host_template import HostTemplate
from autopoiesis.policy.source import PolicySource
from autopoiesis.policy.version import INTERFACE


class Replayer:
    """Measures policies over stretches; every measurement that was asked for is kept in the store.

    With `workers` replays are computed beside one another, and `ahead` begins on those that will probably be asked for.
    Neither changes what `measure` answers or what the store holds.
    """

    def __init__(
        self,
        template: HostTemplate,
        store: Store,
        run_key: str,
        deadline_s: float,
        workers: Workers | None = None,
    ) -> None:
        """`deadline_s` is that of every call of a policy."""
        self._template = template
        self._store = store
        self._run_key = run_key
        self._deadline_s = deadline_s
        self._workers = workers
        self._digests: dict[int, tuple[Stretch, str]] = {}
        self._contexts: dict[str, Context] = {}
        self._begun: dict[str, int] = {}
        """Tickets of replays that nobody has asked for yet, by key."""

    def ahead(self, wanted: Iterable[tuple[PolicySource, Stretch]]) -> None:
        """Begin to replay these, as many as there are workers; those begun before and not asked for are dropped."""
        if self._workers is None:
            return
        keyed = {self._key(source, stretch): (source, stretch) for source, stretch in wanted}
        for key in [key for key in self._begun if key not in keyed]:
            self._workers.drop(self._begun.pop(key))
        for key, (source, stretch) in keyed.items():
            if len(self._begun) >= self._workers.count:
                break
            if key not in self._begun and not self._store.knows(key):
                self._begun[key] = self._submit(self._workers, source, stretch)

    def measure(self, source: PolicySource, stretch: Stretch) -> Fitness:
        """The policy's fitness over the stretch; every policy starts it without memory.

        Raises EvaluationError where workers cannot be had or do not live to answer.
        """
        key = self._key(source, stretch)
        known = self._store.recall(key)
        if known is not None:
            fitness = msgspec.msgpack.decode(known, type=Fitness)
        else:
            fitness = self._replayed(key, source, stretch)
        # what another run has measured is this one's, too
        self._keep(key, source, stretch, fitness)
        return fitness

    def _replayed(self, key: str, source: PolicySource, stretch: Stretch) -> Fitness:
        ticket = self._begun.pop(key, None)
        if self._workers is None or (ticket is None and self._workers.idle == 0):
            # Workers may all be at replays that nobody wants any more; this process only waits.
            return replay(self._template, self._deadline_s, source, stretch)
        result = self._workers.result(self._submit(self._workers, source, stretch) if ticket is None else ticket)
        if result.value is None:
            # Every call of a policy has a deadline and a wall of its own, so this is no word about the policy.
            raise EvaluationError(
                f"evaluation: a replay of policy {source.name} failed: {result.failure}; what is measured is kept: run "
                "the same again, with fewer --jobs if memory was short"
            )
        return msgspec.msgpack.decode(result.value, type=Fitness)

    def _submit(self, workers: Workers, source: PolicySource, stretch: Stretch) -> int:
        digest = self._digest(stretch)
        if digest not in self._contexts:
            self._contexts = dict(list(self._contexts.items())[-3:])
            self._contexts[digest] = Context(digest, packed(stretch))
        job = ReplayJob(source.name, source.text, self._deadline_s)
        return workers.submit(msgspec.msgpack.encode(job), self._contexts[digest])

    def _keep(self, key: str, source: PolicySource, stretch: Stretch, fitness: Fitness) -> None:
        window = WindowRecord(
            run_key=self._run_key,
            id=self._digest(stretch)[:16],
            mode=stretch.mode.value,
            start_s=stretch.first_window * stretch.scenario.window_s,
            end_s=(stretch.first_window + stretch.windows) * stretch.scenario.window_s,
            requests=len(stretch.scenario.requests),
        )
        score = ScoreRecord(
            policy=source.identity,
            window=window.id,
            versions={"interface": str(INTERFACE), "package": fingerprint()},
            mode=stretch.mode.value,
            fidelity="event",
            value=fitness.score if fitness.score < FAILED else None,
        )
        with self._store.transaction():
            self._store.put_window(window)
            self._store.put_score(score)
            self._store.remember(key, msgspec.msgpack.encode(fitness))

    def _digest(self, stretch: Stretch) -> str:
        """Of the stretch's content, worked out once for each."""
        kept = self._digests.get(id(stretch))
        if kept is None or kept[0] is not stretch:
            self._digests = dict(list(self._digests.items())[-3:])
            kept = self._digests[id(stretch)] = (stretch, stretch.digest())
        return kept[1]

    def _key(self, source: PolicySource, stretch: Stretch) -> str:
        parts = repr((source.identity, self._digest(stretch), INTERFACE, fingerprint()))
        return "fitness:" + hashlib.sha256(parts.encode()).hexdigest()
