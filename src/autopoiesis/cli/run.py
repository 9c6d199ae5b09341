"""`autopoiesis run`: the evolving system beside every fixed policy, on the same workload."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from autopoiesis.cli.flags import FORMATS, add_output, add_scenario, add_store, scenario_config
from autopoiesis.cli.jobs import add_jobs
from autopoiesis.cli.output import dumps, emit, report_json, write_whole
from autopoiesis.cli.parser import Commands, described, number, whole
from autopoiesis.errors import ScenarioError, unknown_name

if TYPE_CHECKING:
    from autopoiesis.control.config import EvolutionConfig

DEFAULT_LIMIT_MIB = 1024
MIB = 1 << 20
DEFAULT_PROVIDER = "structural"
GOES_ON = "; the next run with the same arguments and store goes on from here"


def add(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "run",
        help="serve a workload while the policy evolves, beside the fixed policies",
        **described(
            "Serve a workload on a simulated cluster while the policy evolves, and the same under every fixed policy. "
            "A run that was interrupted goes on from its store.",
            "autopoiesis run --cluster homogeneous-32 --load 0.9 --seed 0 --json out.json \\\n"
            "      --workload llama-3.1-8b=a.csv.gz --workload llama-3.1-70b=b.csv.gz",
            "autopoiesis run --cluster demo-8 --workload llama-3.1-8b=a.csv.gz \\\n"
            "      --provider openai --model-name NAME --record answers.jsonl",
            "autopoiesis run --cluster demo-8 --workload llama-3.1-8b=a.csv.gz --replay answers.jsonl",
            notes=FORMATS,
        ),
    )
    add_scenario(parser)
    evolution = parser.add_argument_group("who writes policies")
    evolution.add_argument(
        "--provider",
        metavar="NAME",
        help="structural: changes programs by itself, needs no model; command: a program that reads a prompt and "
        "writes a completion; openai: an OpenAI-compatible endpoint (default structural)",
    )
    evolution.add_argument(
        "--provider-command", metavar="COMMAND", help="the program of --provider command, with its arguments"
    )
    evolution.add_argument(
        "--model-name",
        metavar="NAME",
        help="the model that --provider openai asks for (default: the variable OPENAI_MODEL; OPENAI_BASE_URL and "
        "OPENAI_API_KEY say where and as whom)",
    )
    evolution.add_argument(
        "--budget",
        metavar="X",
        type=number("CPU-seconds of evolution per second of serving", least=0, most=1000),
        default=0.02,
        help="CPU-seconds of evolution per second of serving (default 0.02)",
    )
    tape = evolution.add_mutually_exclusive_group()
    tape.add_argument(
        "--record",
        metavar="FILE.jsonl",
        help="write every completion here as it arrives; a file that has some already is continued, and what it has "
        "is not asked again",
    )
    tape.add_argument(
        "--replay",
        metavar="FILE.jsonl",
        help="answer from such a file, with no provider and no network: the same run again",
    )
    add_jobs(evolution)
    add_output(parser)
    add_store(parser, "what evolved and what was measured, to go on from")
    parser.add_argument(
        "--store-limit",
        metavar="MIB",
        type=whole("MiB", 1, 1 << 30),
        default=DEFAULT_LIMIT_MIB,
        help="size from which on the store forgets other runs, those used longest ago first; nothing goes that this "
        f"run needs to go on (default {DEFAULT_LIMIT_MIB})",
    )
    parser.set_defaults(execute=run_all, parser=parser, after_interrupt=GOES_ON)


def run_all(arguments: argparse.Namespace) -> int:
    """Run, write the page and the JSON, print the tables."""
    _check_evolution(arguments)
    scenario = scenario_config(arguments)

    from autopoiesis.cli.pages import page_writer
    from autopoiesis.cli.table import render
    from autopoiesis.cli.watch import watching
    from autopoiesis.control.config import RunConfig
    from autopoiesis.control.run import run
    from autopoiesis.evolve.worker_messages import Priority
    from autopoiesis.policy.library import starters

    config = RunConfig(
        scenario,
        _evolution(arguments),
        arguments.paper,
        arguments.store,
        arguments.store_limit * MIB,
        arguments.record,
        arguments.replay,
        arguments.jobs,
        Priority(arguments.priority),
    )
    with watching(arguments, background=starters()) as watch:
        report = run(config, watch, page_writer(arguments.report))
    if arguments.json is not None:
        write_whole(arguments.json, dumps(report_json(report)))
    emit(render(report, scenario.objective))
    return 0


def _check_evolution(arguments: argparse.Namespace) -> None:
    from autopoiesis.evolve.providers import PROVIDERS, provider

    if arguments.replay is not None:
        _check_replay(arguments)
        return
    if arguments.provider is None:
        arguments.provider = DEFAULT_PROVIDER
    if arguments.provider not in PROVIDERS:
        raise ScenarioError(f"--provider: {unknown_name('provider', arguments.provider, PROVIDERS)}")
    for flag, value, owner in (
        ("--provider-command", arguments.provider_command, "command"),
        ("--model-name", arguments.model_name, "openai"),
    ):
        if arguments.provider != owner and value is not None:
            raise ScenarioError(f"{flag} belongs to --provider {owner}; add that, or leave {flag} out")
    if arguments.provider == "command" and arguments.provider_command is None:
        raise ScenarioError("--provider command needs --provider-command, the program that answers prompts")
    # Says what is wrong with a setting before traces are read.
    provider(arguments.provider, command=arguments.provider_command, model=arguments.model_name)


def _check_replay(arguments: argparse.Namespace) -> None:
    from autopoiesis.evolve.providers.transcript import read_transcript

    for flag in ("--provider", "--provider-command", "--model-name"):
        if getattr(arguments, flag[2:].replace("-", "_")) is not None:
            raise ScenarioError(f"{flag} says whom to ask, and --replay asks nobody; leave one of them out")
    arguments.provider = read_transcript(arguments.replay).header.provider


def _evolution(arguments: argparse.Namespace) -> EvolutionConfig:
    from autopoiesis.control.config import EvolutionConfig

    return EvolutionConfig(
        provider=arguments.provider,
        provider_command=arguments.provider_command,
        model_name=arguments.model_name,
        budget=arguments.budget,
    )
