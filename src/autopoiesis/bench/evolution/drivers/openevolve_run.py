"""OpenEvolve: whole programs instead of differences, one stage of evaluation, its own defaults for the rest."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from openevolve import OpenEvolve
from openevolve.config import Config, LLMModelConfig
from openevolve.database import Program

if TYPE_CHECKING:
    from autopoiesis.bench.evolution.drivers.drive import Job


class Evolution:
    def __init__(self, job: Job) -> None:
        self._iterations = job.iterations
        model = LLMModelConfig(
            name=job.model, api_base=job.url, api_key="none", system_message="system_message",
            temperature=0.7, max_tokens=4096, timeout=60, retries=0, retry_delay=0, weight=1.0,
        )  # fmt: skip
        config = Config()
        config.max_iterations = job.iterations
        config.random_seed = 1
        config.log_level = "WARNING"
        config.diff_based_evolution = False
        config.max_code_length = 100_000
        # a checkpoint writes every program anew
        config.checkpoint_interval = 10**9
        config.llm.api_base = job.url
        config.llm.models = config.llm.evaluator_models = [model]
        config.evaluator.cascade_evaluation = False
        config.evaluator.parallel_evaluations = job.jobs
        config.evaluator.max_retries = 0
        if job.limit_s is not None:
            config.evaluator.timeout = job.limit_s
        config.database.log_prompts = False
        evaluator = job.beside("openevolve_evaluator.py")
        self._evolution = OpenEvolve(str(job.seed), evaluator, config=config, output_dir=str(job.folder))
        self._scored: list[tuple[str, float | None]] = []
        self._record()

    def run(self) -> None:
        asyncio.run(self._evolution.run(iterations=self._iterations))

    def scored(self) -> list[tuple[str, float | None]]:
        return self._scored

    def _record(self) -> None:
        """Note what enters the database: it forgets a program that another displaces."""
        database = self._evolution.database
        add = database.add

        def recording(program: Program, *rest: Any, **named: Any) -> Any:
            if program.parent_id:
                late = program.metrics.get("timeout")
                self._scored.append((program.code, None if late else program.metrics.get("combined_score", 0.0)))
            return add(program, *rest, **named)

        database.add = recording


prepare = Evolution
