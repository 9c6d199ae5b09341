"""GEPA: search of a single text, evaluated in its own process without a time limit."""

from __future__ import annotations

import http.client
import json
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from gepa.optimize_anything import EngineConfig, GEPAConfig, ReflectionConfig, optimize_anything

if TYPE_CHECKING:
    from autopoiesis.bench.evolution.drivers.drive import Job


class Evolution:
    def __init__(self, job: Job) -> None:
        self._seed = job.seed.read_text(encoding="utf-8")
        self._model = job.model
        address = urlsplit(job.url)
        assert address.hostname is not None
        self._path = f"{address.path}/chat/completions"
        self._connection = http.client.HTTPConnection(address.hostname, address.port)
        self._scores: dict[str, float | None] = {}
        self._config = GEPAConfig(
            engine=EngineConfig(max_candidate_proposals=job.iterations, max_workers=job.jobs, seed=1, run_dir=None),
            reflection=ReflectionConfig(reflection_lm=self._complete),
        )

    def run(self) -> None:
        optimize_anything(self._seed, evaluator=self._evaluate, objective="Improve the program.", config=self._config)

    def scored(self) -> list[tuple[str, float | None]]:
        return [(text, score) for text, score in self._scores.items() if text.strip() != self._seed.strip()]

    def _complete(self, prompt: str | list[dict[str, Any]]) -> str:
        messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
        body = json.dumps({"model": self._model, "messages": messages})
        self._connection.request("POST", self._path, body, {"Content-Type": "application/json"})
        answer = json.loads(self._connection.getresponse().read())
        return str(answer["choices"][0]["message"]["content"])

    def _evaluate(self, candidate: str) -> tuple[float, dict[str, str]]:
        names: dict[str, Any] = {}
        exec(compile(candidate, "candidate", "exec"), names)
        score = self._scores[candidate] = float(names["run"]())
        return score, {"feedback": "try another constant"}


prepare = Evolution
