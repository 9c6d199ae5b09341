"""What ShinkaEvolve starts for every program.

Its examples go through `shinka.core.run_shinka_eval`; that would import the whole framework for each program.
"""

from __future__ import annotations

import argparse
import json
import runpy
from pathlib import Path

parser = argparse.ArgumentParser()
parser.add_argument("--program_path", required=True)
parser.add_argument("--results_dir", type=Path, required=True)
arguments = parser.parse_args()
score = float(runpy.run_path(arguments.program_path)["run"]())
arguments.results_dir.mkdir(parents=True, exist_ok=True)
metrics = {"combined_score": score, "public": {}, "private": {}}
(arguments.results_dir / "metrics.json").write_text(json.dumps(metrics))
(arguments.results_dir / "correct.json").write_text(json.dumps({"correct": True, "error": None}))
