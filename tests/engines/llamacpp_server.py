"""Serve a GGUF file with llama.cpp's server on a port of this machine, until the process is ended.

The first line of output is the server's address. Nothing is cached between requests unless asked for: every prompt is
processed.
"""

from __future__ import annotations

import argparse
import signal
import sys

import xllamacpp


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", help="GGUF file")
    parser.add_argument("--slots", type=int, required=True, help="sequences that run at once")
    parser.add_argument("--batched-tokens", type=int, required=True, help="token budget of one step")
    parser.add_argument("--context", type=int, default=16_384, help="KV cache of all slots together, in tokens")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--port", type=int, default=0, help="a free one unless given")
    parser.add_argument("--cache-prompts", action="store_true", help="a slot keeps what it has processed")
    arguments = parser.parse_args()
    params = xllamacpp.CommonParams()
    params.model.path = arguments.model
    params.model_alias = {"random"}
    params.hostnames = ["127.0.0.1"]
    params.port = arguments.port
    params.n_parallel = arguments.slots
    params.n_ctx = arguments.context
    params.kv_unified = True
    # a step is one forward pass
    params.n_batch = params.n_ubatch = arguments.batched_tokens
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = arguments.threads
    params.n_threads_http = 64
    params.cache_prompt = arguments.cache_prompts
    params.cache_idle_slots = False
    params.cache_ram_mib = 0
    params.n_ctx_checkpoints = 0
    params.slot_prompt_similarity = 0.1 if arguments.cache_prompts else 0.0
    params.fit_params = False
    params.endpoint_metrics = params.endpoint_slots = True
    params.ui = False
    params.verbosity = 1
    server = xllamacpp.Server(params)
    sys.stdout.write(f"{server.listening_address}\n")
    sys.stdout.flush()
    signal.pause()


if __name__ == "__main__":
    main()
