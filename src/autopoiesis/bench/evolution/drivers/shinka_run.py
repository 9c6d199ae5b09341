"""ShinkaEvolve: whole programs, no embeddings, no recommendations, each asked for once."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING

from shinka.core import EvolutionConfig, ShinkaEvolveRunner
from shinka.database import DatabaseConfig
from shinka.launch import LocalJobConfig

if TYPE_CHECKING:
    from autopoiesis.bench.evolution.drivers.drive import Job

PROPOSALS = 2
"""Asked for at a time, for each program that is evaluated at a time."""


class Evolution:
    def __init__(self, job: Job) -> None:
        self._results = job.folder / "results"
        evolution = EvolutionConfig(
            task_sys_msg="Improve the program.",
            # the first generation is the program it starts from
            num_generations=job.iterations + 1,
            patch_types=["full"], patch_type_probs=[1.0],
            max_patch_resamples=1, max_patch_attempts=1,
            llm_models=[f"local/{job.model}@{job.url}"],
            llm_dynamic_selection=None, llm_dynamic_selection_kwargs={},
            llm_kwargs={"temperatures": [0.7], "max_tokens": 4096},
            meta_rec_interval=None, embedding_model=None,
            init_program_path=str(job.seed), results_dir=str(self._results),
        )  # fmt: skip
        limit = None if job.limit_s is None else f"00:00:{job.limit_s:02}"
        self._runner = ShinkaEvolveRunner(
            evo_config=evolution,
            job_config=LocalJobConfig(eval_program_path=job.beside("shinka_evaluator.py"), time=limit),
            db_config=DatabaseConfig(),
            max_evaluation_jobs=job.jobs,
            max_proposal_jobs=PROPOSALS * job.jobs,
            max_db_workers=job.jobs,
            verbose=False,
            banner_style="minimal",
        )

    def run(self) -> None:
        self._runner.run()

    def scored(self) -> list[tuple[str, float | None]]:
        # nothing but its time stops a program here
        with sqlite3.connect(self._results / "programs.sqlite") as database:
            rows = database.execute(
                "SELECT code, CASE WHEN correct THEN combined_score END FROM programs WHERE parent_id IS NOT NULL"
            )
            return [(str(code), score) for code, score in rows]


prepare = Evolution
