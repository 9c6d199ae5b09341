"""One run of our evolution against an instant model: `python -m autopoiesis.bench.evolution.ours --port PORT`.

All of it is what a run uses: population, prompt, provider, recorded completions, workers with a locked process for each
candidate, and the store. Only the evaluator is trivial. It starts from `program.py` in the working folder and ends with
a line `RESULT {json}`.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from autopoiesis.bench.evolution.drivers.drive import LIMIT_S, is_score
from autopoiesis.bench.evolution.trial import Trial
from autopoiesis.errors import PolicyError, ProviderError
from autopoiesis.evolve.population import HUMAN, Member, Population
from autopoiesis.evolve.prompt import Evidence, ScoredPolicy, build_messages, extract_source, interface_text
from autopoiesis.evolve.providers import CompletionRequest, Provider, provider
from autopoiesis.evolve.providers.recorded import RecordedProvider
from autopoiesis.evolve.retention import trim
from autopoiesis.evolve.store import GateRecord, PolicyRecord, ScoreRecord, Store
from autopoiesis.evolve.workers import Result, Workers
from autopoiesis.policy.source import PolicySource
from autopoiesis.policy.version import INTERFACE

RUN = "bench-evolve"
EVALUATOR = "autopoiesis.bench.evolution.trivial:TrivialEvaluator"
OUT_OF_TIME = ("no answer within", "lines of Python in one call")
"""What is said of a candidate that was stopped: by the clock, or by the lines that a call may run, which are over first
where the machine is quick."""
AHEAD = 2
"""Candidates that each worker is given at a time, so that none waits for a candidate."""
STORE_BYTES = 1 << 30
TRIM_EVERY = 100
"""Iterations after which the store is held to its limit, as at every monitoring point of a run."""


@dataclass
class Search:
    """Propose, evaluate, keep: as many times as asked for, a few candidates at a time."""

    store: Store
    model: Provider
    workers: Workers
    first: PolicySource
    iterations: int
    population: Population = field(default_factory=Population)
    scores: dict[str, float] = field(default_factory=dict)
    """By identity; more is better, 1 is best."""
    timeouts: int = 0
    correct: int = 0
    failed: int = 0
    interface: str = field(default_factory=interface_text)
    incumbent: PolicySource = field(init=False)

    def run(self) -> None:
        """All iterations."""
        waiting: dict[int, tuple[str, tuple[str, ...]]] = {}
        self.incumbent = self.first
        self._learn(self.first.text, HUMAN, (), self._tried(self.first.text))
        self.correct = 0
        asked = 0
        while asked < self.iterations or waiting:
            while asked < self.iterations and len(waiting) <= AHEAD * self.workers.count:
                asked += 1
                proposed = self._proposed(asked)
                if proposed is not None:
                    waiting[self._submit(proposed[0])] = proposed
            for ticket, result in self.workers.finished():
                text, parents = waiting.pop(ticket)
                self._learn(text, self.model.name, parents, result)
                break
            if asked % TRIM_EVERY == 0:
                self.population.cull({self.incumbent.identity})
                trim(self.store, STORE_BYTES, RUN)

    def _proposed(self, number: int) -> tuple[str, tuple[str, ...]] | None:
        """A candidate's text and its parents' identities; None where none came."""
        rng = random.Random(number)
        parents = self.population.parents(self.incumbent, rng)
        shown = [ScoredPolicy(source, (("score", self.scores.get(source.identity)),)) for source in parents]
        request = CompletionRequest(
            request_id=f"{number:06d}",
            messages=build_messages(self.interface, shown, Evidence("goodput", ())),
            temperature=0.8,
            max_tokens=8192,
            parents=parents,
            seed=rng.getrandbits(48),
        )
        try:
            text = extract_source(self.model.complete(request).text)
        except ProviderError:
            self.failed += 1
            return None
        return text, tuple(parent.identity for parent in parents)

    def _submit(self, text: str) -> int:
        return self.workers.submit(msgspec.msgpack.encode(Trial(text, LIMIT_S)))

    def _tried(self, text: str) -> Result:
        return self.workers.result(self._submit(text))

    def _learn(self, text: str, who: str, parents: tuple[str, ...], result: Result) -> None:
        """Keep what came of a candidate; only what its locked process could parse is parsed here."""
        if result.value is None:
            self.timeouts += any(words in (result.failure or "") for words in OUT_OF_TIME)
            self.failed += 1
            return
        score = msgspec.msgpack.decode(result.value, type=float)
        source = PolicySource(f"{who}-{len(self.scores)}", text)
        self.correct += is_score(score, text)
        member = self.population.add(source, who, parents)
        if member is None:
            return
        self.scores[source.identity] = score
        self._put(source, member, score)
        ratio = (2.0 - score) / (2.0 - self.scores[self.first.identity])
        member.compared(ratio, len(self.scores))
        if score > self.scores[self.incumbent.identity]:
            self.incumbent = source

    def _put(self, source: PolicySource, member: Member, score: float) -> None:
        who, parents = member.provider, member.parents
        versions = {"interface": str(INTERFACE)}
        with self.store.transaction():
            self.store.put_policy(PolicyRecord(source.identity, source.name, source.text, who, parents, source.summary))
            self.store.put_gate(GateRecord(RUN, "operator", 0.0, source.identity, "checked", True, {}))
            self.store.put_score(ScoreRecord(source.identity, "one", versions, "operator", "trivial", score))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m autopoiesis.bench.evolution.ours", description=__doc__)
    parser.add_argument("--iterations", type=int, default=200)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--port", type=int, required=True, help="of the model on this machine")
    parser.add_argument("--hang", action="store_true", help="ask for programs of which every fifth never returns")
    asked = parser.parse_args()
    first = PolicySource("program", Path("program.py").read_text("utf-8"))
    model = provider("openai", model="hang" if asked.hang else "full", base_url=f"http://127.0.0.1:{asked.port}/v1")
    with (
        tempfile.TemporaryDirectory(prefix="autopoiesis-bench-") as folder,
        Store(Path(folder) / "evolution.db") as store,
        Workers(EVALUATOR, asked.jobs, deadline_s=60.0, depth=AHEAD) as workers,
    ):
        store.begin_run(RUN)
        search = Search(store, RecordedProvider(store, model, RUN), workers, first, asked.iterations)
        workers.warm()
        start_cpu_s, began = time.process_time(), time.perf_counter()
        search.run()
        run_s = time.perf_counter() - began
    result = {
        "iterations": asked.iterations,
        "run_s": round(run_s, 3),
        "per_s": round(asked.iterations / run_s, 2),
        "timeouts": search.timeouts,
        "correct": search.correct,
        "start_cpu_s": round(start_cpu_s, 3),
    }
    print("RESULT " + json.dumps(result), flush=True)


if __name__ == "__main__":
    try:
        main()
    except PolicyError as error:
        raise SystemExit(f"error: {error}") from error
