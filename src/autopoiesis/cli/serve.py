"""`autopoiesis serve`: the gateway in front of engines, under the policy in force."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys

from autopoiesis.cli.output import flush
from autopoiesis.cli.parser import Commands, described


def add(commands: Commands) -> None:
    command = commands.add_parser(
        "serve",
        help="serve models through an OpenAI-compatible gateway",
        **described(
            "Serve models through an OpenAI-compatible gateway, which sends each request to one of the engines behind "
            "it as the policy in force says. SIGTERM and Ctrl-C finish what is under way first; a second one does not.",
            "autopoiesis config example minimal > gateway.yaml",
            "autopoiesis config check gateway.yaml",
            "autopoiesis serve --config gateway.yaml",
        ),
    )
    command.add_argument("--config", required=True, metavar="FILE", help="YAML file; `autopoiesis config example`")
    command.set_defaults(execute=execute)


def execute(arguments: argparse.Namespace) -> int:
    from autopoiesis.serve.config_file import read_config

    read_config(arguments.config)
    flush()
    # The process that serves takes the place of this one, which has imported much that it does not need.
    command = [sys.executable, "-P", "-m", "autopoiesis.serve", arguments.config]
    if os.name == "posix":
        os.execv(sys.executable, command)
    return subprocess.run(command, check=False).returncode
