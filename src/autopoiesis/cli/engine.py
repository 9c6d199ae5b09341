"""`autopoiesis engine`: an emulated engine, in the time that the cost model says a GPU would take."""

from __future__ import annotations

import argparse
from collections.abc import Collection

from autopoiesis.cli.output import emit, say
from autopoiesis.cli.parser import Commands, described, number, one_of, whole

NAME_CHARACTERS = 256
FACTOR = number("a factor", above=0, most=1e6)


def add(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "engine",
        help="serve OpenAI's protocol as an engine that needs no GPU",
        **described(
            "Be an engine without a GPU: OpenAI's protocol and vLLM's endpoints and metrics, words drawn from a seed, "
            "every step as long as the cost model says. Prints the address as the first line, then serves until "
            "SIGTERM.",
            "autopoiesis engine --model llama-3.1-8b --gpu h100 --load-s 0 --warm-s 0",
            "autopoiesis engine --model llama-3.1-70b --gpu h100 --tensor-parallel 4 --speed 10 --port 0",
            "curl http://127.0.0.1:8000/v1/completions -H 'content-type: application/json' \\\n"
            '      -d \'{"model": "llama-3.1-8b", "prompt": "Once upon a time", "max_tokens": 8}\'',
            notes="Seconds and rates of the flags are those of the engine that is emulated; with --speed 10 a client "
            "sees them ten times as fast. What is as in vLLM and what is not: docs/engine.md.",
        ),
    )
    what = parser.add_argument_group("what is emulated")
    what.add_argument("--model", metavar="NAME", required=True, type=one_of("model", _models), help="what it serves")
    what.add_argument("--gpu", metavar="NAME", required=True, type=one_of("GPU", _gpus), help="on what")
    what.add_argument(
        "--served-model-name",
        metavar="NAME",
        type=_name,
        action="append",
        default=[],
        help="what clients call the model; repeat for several names (default: as --model)",
    )
    what.add_argument("--tensor-parallel", metavar="N", type=whole("GPUs", 1, 1024), default=1, help="(default 1)")
    what.add_argument("--pipeline-parallel", metavar="N", type=whole("stages", 1, 1024), default=1, help="(default 1)")
    what.add_argument(
        "--kv-bytes",
        metavar="N",
        type=whole("bytes", 1, 2),
        default=2,
        help="of a value in the KV cache (default 2)",
    )
    what.add_argument(
        "--max-num-batched-tokens",
        metavar="N",
        type=whole("tokens", 1, 1 << 20),
        default=8192,
        help="token budget of one step (default 8192)",
    )
    what.add_argument(
        "--max-num-seqs",
        metavar="N",
        type=whole("sequences", 1, 1 << 20),
        default=256,
        help="how many sequences run at once (default 256)",
    )
    what.add_argument(
        "--max-model-len",
        metavar="N",
        type=whole("tokens", 2, 1 << 30),
        help="most tokens of prompt and answer (default: what model and KV cache allow)",
    )
    what.add_argument(
        "--num-gpu-blocks-override",
        metavar="N",
        type=whole("blocks", 1, 1 << 30),
        help="KV blocks of 16 tokens (default: what memory holds beside the weights)",
    )
    what.add_argument("--no-enable-prefix-caching", action="store_true", help="compute every prompt in full")
    what.add_argument(
        "--scheduling-policy",
        metavar="NAME",
        choices=("fcfs", "priority"),
        default="fcfs",
        help="fcfs, or priority: a call's field 'priority' counts, smaller first (default fcfs)",
    )
    what.add_argument(
        "--mean-answer",
        metavar="N",
        type=number("tokens", least=1, most=1e6),
        default=256.0,
        help="mean length of answers that no max_tokens limits (default 256)",
    )
    when = parser.add_argument_group("time")
    when.add_argument(
        "--speed",
        metavar="X",
        type=number("a factor", above=0, most=1e6),
        default=1.0,
        help="how fast its clock runs (default 1)",
    )
    when.add_argument(
        "--slow",
        metavar="X",
        type=number("a factor", above=0, most=1e6),
        default=1.0,
        help="factor on step times (default 1)",
    )
    when.add_argument(
        "--noise",
        metavar="X",
        type=number("a deviation", least=0, most=0.5),
        default=0.0,
        help="relative standard deviation of step times (default 0)",
    )
    when.add_argument(
        "--load-s",
        metavar="S",
        type=number("seconds", least=0, most=86400),
        help="process start and loading of weights (default: what the cost model says)",
    )
    when.add_argument(
        "--warm-s",
        metavar="S",
        type=number("seconds", least=0, most=86400),
        help="graph capture and warm-up (default: what the cost model says)",
    )
    when.add_argument(
        "--shutdown-timeout",
        metavar="S",
        type=number("seconds", least=0, most=86400),
        default=0.0,
        help="after SIGTERM, answer what is there for so long, by your clock (default 0: cut it off)",
    )
    when.add_argument(
        "--keep-alive",
        metavar="S",
        type=number("seconds", above=0, most=86400),
        default=5.0,
        help="close a connection that is idle for so long, by your clock (default 5)",
    )
    where = parser.add_argument_group("process")
    where.add_argument("--host", metavar="HOST", default="127.0.0.1", help="address to listen on (default 127.0.0.1)")
    where.add_argument(
        "--port", metavar="N", type=whole("a port", 0, 65535), default=8000, help="0 for a free one (default 8000)"
    )
    where.add_argument(
        "--seed",
        metavar="N",
        type=whole("a whole number", 0, 2**63 - 1),
        default=0,
        help="of words, of lengths that nobody gives, and of noise (default 0)",
    )
    parser.set_defaults(execute=engine, parser=parser)


def engine(arguments: argparse.Namespace) -> int:
    """Serve until a signal comes."""
    from autopoiesis.serve.emulated.server import EngineConfig, run

    config = EngineConfig(
        model=arguments.model,
        gpu=arguments.gpu,
        served=tuple(arguments.served_model_name),
        tensor_parallel=arguments.tensor_parallel,
        pipeline_parallel=arguments.pipeline_parallel,
        kv_dtype_bytes=arguments.kv_bytes,
        batched_tokens=arguments.max_num_batched_tokens,
        max_sequences=arguments.max_num_seqs,
        context=arguments.max_model_len,
        kv_blocks=arguments.num_gpu_blocks_override,
        caching=not arguments.no_enable_prefix_caching,
        priorities=arguments.scheduling_policy == "priority",
        slow=arguments.slow,
        noise=arguments.noise,
        speed=arguments.speed,
        seed=arguments.seed,
        load_s=arguments.load_s,
        warm_s=arguments.warm_s,
        mean_answer=arguments.mean_answer,
        host=arguments.host,
        port=arguments.port,
        shutdown_timeout_s=arguments.shutdown_timeout,
        keep_alive_s=arguments.keep_alive,
    )
    run(config, _listening)
    return 0


def _listening(address: str, start_s: float) -> None:
    emit(f"{address}\n")
    if start_s > 0:
        say(f"loading: /health answers 200 in {start_s:.1f} s")


def _name(text: str) -> str:
    if not (text.isprintable() and 0 < len(text) <= NAME_CHARACTERS):
        raise argparse.ArgumentTypeError(f"must be 1 to {NAME_CHARACTERS} printable characters")
    return text


def _models() -> Collection[str]:
    from autopoiesis.cluster import catalog

    return catalog.models()


def _gpus() -> Collection[str]:
    from autopoiesis.cluster import catalog

    return catalog.gpus()
