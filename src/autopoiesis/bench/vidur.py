"""Vidur from the package index on the same kind of requests, in an environment of its own.

Vidur (Agrawal et al., MLSys 2024) is the simulator that others compare with. `vidur_run` is the program that runs it.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import asdict
from pathlib import Path

from autopoiesis.bench import vidur_run
from autopoiesis.bench.environment import call, default_folder, environment
from autopoiesis.bench.scenes import COST, LONGEST, MODEL, REPLICAS
from autopoiesis.workload import Requests

VERSION = "0.0.26"
MODEL_THERE = "meta-llama/Llama-3-8B"
RUN_S = 900
PREDICTOR = "random_forrest_execution_time_predictor_config"
"""The only one that this version can be used with; its spelling."""


def default_venv() -> Path:
    return default_folder() / f"vidur-{VERSION}"


def install(venv: Path) -> Path:
    """The Python of an environment with Vidur, made where there is none. Raises Unavailable."""
    return environment(venv, f"vidur=={VERSION}", "vidur")


def simulate(python: Path, requests: Requests) -> dict[str, float]:
    """What `vidur_run` measures, on as many replicas as ours and with our step times. Raises Unavailable."""
    with tempfile.TemporaryDirectory(prefix="autopoiesis-vidur-") as folder:
        trace, job = Path(folder) / "trace.csv", Path(folder) / "job.json"
        rows = zip(requests.arrival_s.tolist(), requests.input_tokens, requests.output_tokens, strict=True)
        lines = [f"day,{arrival_s:.6f},{given},{wanted}\n" for arrival_s, given, wanted in rows]
        trace.write_text("Date,Time,PromptTokenCount,CompletionTokenCount\n" + "".join(lines))
        step = asdict(COST.steps(MODEL, "h100", 1, 1, 2))
        job.write_text(json.dumps({"step": step, "arguments": _arguments(trace, Path(folder))}))
        printed = call([str(python), "-I", vidur_run.__file__, str(job)], RUN_S, folder)
    measured: dict[str, float] = json.loads(printed.splitlines()[-1])
    return measured


def _arguments(trace: Path, folder: Path) -> list[str]:
    """Eight replicas, least outstanding requests, Sarathi's chunked prefill, nothing written that need not be."""
    settings = {
        "log_level": "error",
        "cluster_config_num_replicas": REPLICAS,
        "replica_config_model_name": MODEL_THERE,
        "replica_config_device": "h100",
        "replica_config_network_device": "h100_dgx",
        "replica_config_num_pipeline_stages": 1,
        "replica_config_tensor_parallel_size": 1,
        "global_scheduler_config_type": "lor",
        "replica_scheduler_config_type": "sarathi",
        "sarathi_scheduler_config_batch_size_cap": 256,
        "sarathi_scheduler_config_chunk_size": 2048,
        "request_generator_config_type": "trace_replay",
        "trace_request_generator_config_trace_file": trace,
        "trace_request_generator_config_date": "day",
        "trace_request_generator_config_prefill_scale_factor": 1,
        "trace_request_generator_config_decode_scale_factor": 1,
        "trace_request_generator_config_time_scale_factor": 1,
        "trace_request_generator_config_max_tokens": LONGEST,
        "execution_time_predictor_config_type": "random_forrest",
        f"{PREDICTOR}_prediction_max_tokens_per_request": 2 * LONGEST,
        f"{PREDICTOR}_prediction_max_batch_size": 256,
        f"{PREDICTOR}_cache_dir": folder / "cache",
        "metrics_config_output_dir": folder / "out",
    }
    words = [word for name, value in settings.items() for word in (f"--{name}", str(value))]
    return [*words, "--no-metrics_config_enable_chrome_trace", "--no-metrics_config_store_plots"]
