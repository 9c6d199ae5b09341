"""The process that serves: `python -m autopoiesis.serve FILE`, which is what `autopoiesis serve --config FILE` becomes.

It imports nothing but what serving needs: a command line that also simulates would be half of its memory.
"""

from __future__ import annotations

import asyncio
import signal
import ssl
import sys

from autopoiesis.errors import AutopoiesisError, ConfigError
from autopoiesis.serve.admin import open_admin
from autopoiesis.serve.config import Config
from autopoiesis.serve.config_file import read_config
from autopoiesis.serve.log import Log
from autopoiesis.serve.service import Service
from autopoiesis.serve.worker import run

FAILED = 2


def main() -> int:
    """Serve until a signal says to stop. 0: stopped; 2: something is to be mended, said in one line on stderr."""
    try:
        config = read_config(sys.argv[1])
        run(serve(config, Log(config.log.level, requests=config.log.requests)))
    except AutopoiesisError as error:
        say(f"autopoiesis: error: {error}")
        return FAILED
    except KeyboardInterrupt:  # before or after there was anything to stop
        return 128 + signal.SIGINT
    return 0


async def serve(config: Config, log: Log) -> None:
    """Serve until SIGINT or SIGTERM; then finish what is under way, and at a second signal do not."""
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
    except AutopoiesisError:
        await service.stop()
        raise
    say(f"serving on {_address(config, service.port)}" + ("" if admin is None else f", admin API on {admin.address}"))
    await stop.wait()
    say("stopping: requests under way are finished; once more to end at once")
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, service.stop_at_once)
    await service.stop()
    if admin is not None:
        admin.close()


def say(line: str) -> None:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


def _address(config: Config, port: int) -> str:
    host = f"[{config.listen.host}]" if ":" in config.listen.host else config.listen.host
    return f"{'http' if config.listen.tls is None else 'https'}://{host}:{port}"


if __name__ == "__main__":
    raise SystemExit(main())
