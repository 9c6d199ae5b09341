"""Serve a Llama with random weights with vLLM on a free port of this machine, until the process is ended.

Run by the interpreter of an environment that has vLLM. The first line of output is the server's address. Nothing is
cached between requests unless asked for: every prompt is processed. There is no tokenizer: prompts are token ids, and
what is answered is counted.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

ARCHITECTURE = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 1024,
    "intermediate_size": 2816,
    "num_hidden_layers": 8,
    "num_attention_heads": 16,
    "num_key_value_heads": 4,
    "head_dim": 64,
    "hidden_act": "silu",
    "vocab_size": 2048,
    "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "torch_dtype": "bfloat16",
    "tie_word_embeddings": False,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
"""About 95 million parameters: a step takes many times as long as vLLM's own work around it."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--slots", type=int, required=True, help="sequences that run at once")
    parser.add_argument("--batched-tokens", type=int, required=True, help="token budget of one step")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--port", type=int, default=0, help="a free one unless given")
    parser.add_argument("--cache-prompts", action="store_true", help="keep what has been processed, by 32 tokens")
    arguments = parser.parse_args()
    port = arguments.port
    if port == 0:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
    environment = os.environ | {
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": str(arguments.threads),
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "VLLM_NO_USAGE_STATS": "1",
    }
    with tempfile.TemporaryDirectory() as model:
        Path(model, "config.json").write_text(json.dumps(ARCHITECTURE))
        command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", f"--model={model}"]
        command += ["--served-model-name=random", "--load-format=dummy", "--skip-tokenizer-init", "--dtype=bfloat16"]
        command += ["--host=127.0.0.1", f"--port={port}", "--max-model-len=2048", "--enforce-eager"]
        command += [f"--max-num-seqs={arguments.slots}", f"--max-num-batched-tokens={arguments.batched_tokens}"]
        caching = ["--enable-prefix-caching", "--block-size=32"]
        command += caching if arguments.cache_prompts else ["--no-enable-prefix-caching"]
        command += ["--disable-uvicorn-access-log"]
        # it stays in this process's group, and goes with it
        server = subprocess.Popen(command, env=environment, stdout=sys.stderr)
        try:
            while server.poll() is None:
                if _healthy(port):
                    sys.stdout.write(f"http://127.0.0.1:{port}\n")
                    sys.stdout.flush()
                    break
                time.sleep(0.5)
            return server.wait()
        finally:
            server.terminate()
            server.wait()


def _healthy(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2.0) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


if __name__ == "__main__":
    sys.exit(main())
