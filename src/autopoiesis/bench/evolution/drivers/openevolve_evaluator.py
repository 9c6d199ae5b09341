"""What OpenEvolve calls, in one of its worker processes."""

from __future__ import annotations

import runpy


def evaluate(program_path: str) -> dict[str, float]:
    return {"combined_score": float(runpy.run_path(program_path)["run"]())}
