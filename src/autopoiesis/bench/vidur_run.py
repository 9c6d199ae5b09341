"""Simulate a trace with Vidur: `VIDUR_PYTHON vidur_run.py JOB.json`, run by the Python in which Vidur is installed.

The package brings no profile of any GPU: it fetches one from a hub at its start. Here nothing is fetched. Its table of
predictions is filled from the coefficients in the job (all dense work of a layer in one operation, attention apart), at
the sizes that its own training would give it. What is measured is how fast it simulates, which does not depend on the
numbers in the table.

Prints one line of JSON: seconds of `Simulator.run` and of everything, the resident memory in MB at its peak
and when the simulation began, and the virtual seconds.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

LAYERS = 32
"""Of Llama-3-8B."""
DENSE = (
    "attn_pre_proj", "attn_post_proj", "mlp_up_proj", "mlp_down_proj", "mlp_act", "attn_rope", "attn_kv_cache_save",
    "input_layernorm", "post_attention_layernorm", "add",
)  # fmt: skip


def predictions(config: Any, step: dict[str, float]) -> dict[str, dict[tuple[int, ...], float]]:
    """Milliseconds of a layer's operations, by the sizes that Vidur looks up."""
    ms = 1e3 / LAYERS
    sizes = range(1, config.prediction_max_tokens_per_request + 1)
    caches = range(0, config.prediction_max_tokens_per_request + 1, config.kv_cache_prediction_granularity)
    table: dict[str, dict[tuple[int, ...], float]] = {name: {(n,): 0.0 for n in sizes} for name in DENSE}
    for n in sizes:
        dense_s = step["fixed_s"] + max(step["weights_s"], step["token_s"] * n) + step["communication_s"] * n
        table["mlp_up_proj"][(n,)] = ms * dense_s
    table["attn_decode"] = {
        (batch, cache): ms * batch * (step["context_s"] * cache + step["sequence_s"])
        for batch in range(1, config.prediction_max_batch_size + 1)
        for cache in caches
    }
    table["attn_prefill"] = {
        (cache, chunk): ms * step["attention_s"] * ((cache + chunk) ** 2 - cache**2)
        for cache in caches
        for chunk in range(32, config.prediction_max_prefill_chunk_size + 1, 32)
    }
    return table


def peak_mb() -> float:
    with open("/proc/self/status", encoding="utf-8") as status:
        line = next(line for line in status if line.startswith("VmHWM:"))
    return int(line.split()[1]) / 1024


def main(job: dict[str, Any]) -> dict[str, float]:
    os.environ["HF_HUB_OFFLINE"] = "1"
    began = time.perf_counter()
    from vidur.config import SimulationConfig
    from vidur.execution_time_predictor import sklearn_execution_time_predictor as predictor
    from vidur.simulator import Simulator
    from vidur.utils.random import set_seeds

    kind = predictor.SklearnExecutionTimePredictor
    kind._load_predictions_from_hf = lambda self: predictions(self._config, job["step"])
    sys.argv = ["vidur", *job["arguments"]]
    config = SimulationConfig.create_from_cli_args()
    set_seeds(config.seed)
    simulator = Simulator(config)
    loaded_mb = peak_mb()
    # what it writes of a simulation is not simulating
    simulator._write_output = lambda: None
    ready = time.perf_counter()
    simulator.run()
    done = time.perf_counter()
    return {
        "simulating_s": done - ready,
        "whole_s": done - began,
        "loaded_mb": loaded_mb,
        "peak_mb": peak_mb(),
        "virtual_s": float(simulator._time),
    }


if __name__ == "__main__":
    with open(sys.argv[1], encoding="utf-8") as file:
        measured = main(json.load(file))
    sys.stdout.write(json.dumps(measured) + "\n")
