"""`autopoiesis config`: a gateway's configuration checked, shown by example, and the keys that go into it."""

from __future__ import annotations

import argparse
import hashlib
import secrets
import sys
from importlib.resources import files
from typing import TYPE_CHECKING

from autopoiesis.cli.output import emit, printable
from autopoiesis.cli.parser import Commands, described
from autopoiesis.errors import ConfigError, unknown_name

if TYPE_CHECKING:
    from autopoiesis.serve.config import Config

EXAMPLES = {
    "minimal": "one model, two engines, nothing else",
    "vllm": "vLLM, with an alias and a policy of your own",
    "sglang": "SGLang, with prefix affinity",
    "llamacpp": "llama.cpp servers, which take few requests at once",
    "emulated": "engines that need no GPU, for a try",
    "production": "everything: TLS, keys, workers, limits, each with its default",
}
KEY_BYTES = 32


def add(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "config",
        help="check a gateway's configuration, show examples, make keys",
        **described(
            "Check the configuration of a gateway, show an example of one, or make an API key.",
            "autopoiesis config example minimal > gateway.yaml",
            "autopoiesis config check gateway.yaml",
            "autopoiesis config key team-a",
            notes="docs/gateway.md has every field.",
        ),
    )
    actions = parser.add_subparsers(title="commands", metavar="COMMAND", required=True, dest="action")
    checking = actions.add_parser(
        "check",
        help="say what would be served, or what is wrong",
        **described("Read a configuration as `serve` would.", "autopoiesis config check gateway.yaml"),
    )
    checking.add_argument("file", metavar="FILE", help="YAML file")
    checking.set_defaults(execute=check, parser=checking)
    showing = actions.add_parser(
        "example",
        help="print an example, with comments",
        **described(
            "Print an example to start from: " + "; ".join(f"{name}: {what}" for name, what in EXAMPLES.items()) + ".",
            "autopoiesis config example production",
        ),
    )
    showing.add_argument("name", metavar="NAME", nargs="?", default="minimal", help="`minimal` unless given")
    showing.set_defaults(execute=example, parser=showing)
    making = actions.add_parser(
        "key",
        help="make an API key",
        **described(
            "Make an API key. It is printed once, with the lines for the configuration, which holds its hash alone.",
            "autopoiesis config key team-a",
        ),
    )
    making.add_argument("name", metavar="NAME", help="whose key it is, in metrics and logs")
    making.set_defaults(execute=key, parser=making)


def check(arguments: argparse.Namespace) -> int:
    """Print what would be served. Raises ConfigError with all that is wrong."""
    from autopoiesis.serve.config_file import read_config

    rows = summary(read_config(arguments.file))
    emit("".join(f"{printable(f'{kind:<8} {what}')}\n" for kind, what in rows))
    return 0


def summary(config: Config) -> list[tuple[str, str]]:
    """What a configuration comes to, in two columns."""
    from autopoiesis.serve.config import identity

    listen, admin, policy = config.listen, config.admin, config.policy
    scheme = "http" if listen.tls is None else "https"
    workers = "one process" if listen.workers == 1 else f"{listen.workers} processes"
    rows = [("listen", f"{scheme}://{_address(listen.host, listen.port)}, {workers}")]
    if admin is not None:
        guard = "without a token, for this machine only" if admin.token_sha256 is None else "with a token"
        rows.append(("admin", f"http://{_address(admin.host, admin.port)}, {guard}"))
    for model in config.models:
        also = f", also {', '.join(model.aliases)}" if model.aliases else ""
        rows.append(("model", model.name + also))
        mine = [replica for replica in config.replicas if replica.model in (model.name, None)]
        for replica in mine:
            named = f"{identity(replica)} at " if replica.id is not None else ""
            gpu = f", {replica.gpu}" if replica.gpu is not None else ""
            rows.append(("replica", f"{named}{replica.url}, {replica.engine}{gpu}"))
        if not mine:
            rows.append(("replica", "none yet; add some by the admin API"))
    rows.append(("policy", policy.router if policy.file is None else f"{policy.file}, else {policy.router}"))
    rows += [("key", key.name) for key in config.keys] or [("key", "none; whoever reaches the port may use it")]
    return rows


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def example(arguments: argparse.Namespace) -> int:
    """Print an example. Raises ConfigError for a name that there is none of."""
    if arguments.name not in EXAMPLES:
        raise ConfigError(unknown_name("example", arguments.name, EXAMPLES))
    emit((files("autopoiesis.serve") / "examples" / f"{arguments.name}.yaml").read_text(encoding="utf-8"))
    return 0


def key(arguments: argparse.Namespace) -> int:
    """Print a new key on stdout, and what goes into the configuration on stderr."""
    from autopoiesis.serve.config import KeyConfig

    made = f"sk-ap-{secrets.token_urlsafe(KEY_BYTES)}"
    hashed = hashlib.sha256(made.encode()).hexdigest()
    try:
        KeyConfig(name=arguments.name, sha256=hashed)
    except ValueError as error:
        raise ConfigError(f"{arguments.name}: {error}") from None
    emit(made + "\n")
    sys.stderr.write(f'# for the configuration:\nkeys:\n  - name: "{arguments.name}"\n    sha256: {hashed}\n')
    return 0
