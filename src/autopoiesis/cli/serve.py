"""`autopoiesis serve`: the gateway in front of engines, under the policy in force."""

from __future__ import annotations

import argparse
import asyncio
import signal
import ssl
from typing import TYPE_CHECKING

from autopoiesis.cli.output import say
from autopoiesis.cli.parser import Commands, described
from autopoiesis.errors import ConfigError

if TYPE_CHECKING:
    from autopoiesis.serve.config import Config
    from autopoiesis.serve.log import Log


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
    from autopoiesis.serve.log import Log
    from autopoiesis.serve.worker import run

    config = read_config(arguments.config)
    run(_serve(config, Log(config.log.level, requests=config.log.requests)))
    return 0


async def _serve(config: Config, log: Log) -> None:
    from autopoiesis.serve.admin import open_admin
    from autopoiesis.serve.service import Service

    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    log.adopt("autopoiesis.serve")
    service = Service(config, log)
    try:
        await service.start()
        admin = None if config.admin is None else await open_admin(service, config.admin)
    except (OSError, ssl.SSLError) as error:
        await service.stop()
        raise ConfigError(f"the gateway cannot listen: {error}; see `listen` and `admin`") from error
    say(f"serving on {_address(config, service.port)}" + ("" if admin is None else f", admin API on {admin.address}"))
    await stop.wait()
    say("stopping: requests under way are finished; once more to end at once")
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, service.stop_at_once)
    await service.stop()
    if admin is not None:
        admin.close()


def _address(config: Config, port: int) -> str:
    host = f"[{config.listen.host}]" if ":" in config.listen.host else config.listen.host
    return f"{'http' if config.listen.tls is None else 'https'}://{host}:{port}"
