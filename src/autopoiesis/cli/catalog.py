"""`autopoiesis cluster`, `model` and `gpu`: what there is to serve with and to serve, with the numbers used for it."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from autopoiesis.cli.output import check_writable, dumps, emit, printable, write_whole
from autopoiesis.cli.parser import Commands, described

if TYPE_CHECKING:
    from autopoiesis.cluster import Cluster, Model, Pool

Fields = dict[str, Any]
"""What is said of one thing: the keys of its JSON, in order."""

NONE = "-"


def add(commands: Commands) -> None:
    """Add the three commands."""
    _add(commands, "cluster", "clusters", "homogeneous-32", list_clusters, show_cluster)
    _add(commands, "model", "models", "llama-3.1-8b", list_models, show_model)
    _add(commands, "gpu", "GPU kinds", "h100", list_gpus, show_gpu)


Command = Callable[[argparse.Namespace], int]


def _add(commands: Commands, noun: str, plural: str, example: str, listed: Command, shown: Command) -> None:
    parser = commands.add_parser(
        noun,
        help=f"list and show {plural}",
        **described(
            f"List and show {plural}: those that ship, and your own.",
            f"autopoiesis {noun} list",
            f"autopoiesis {noun} show {example}",
            notes="Your own are TOML files in $AUTOPOIESIS_DATA or ~/.config/autopoiesis; docs/clusters.md says how to "
            "write them.",
        ),
    )
    actions = parser.add_subparsers(title="commands", metavar="COMMAND", required=True, dest="action")
    listing = actions.add_parser(
        "list", help="one a line", **described(f"List {plural}.", f"autopoiesis {noun} list --json {noun}s.json")
    )
    listing.set_defaults(execute=listed, parser=listing)
    show = actions.add_parser(
        "show", help="its numbers", **described(f"Show one of the {plural}.", f"autopoiesis {noun} show {example}")
    )
    path = " or the path of a .toml file" if noun == "cluster" else ""
    show.add_argument("name", metavar="NAME", help=f"as in the list{path}")
    show.set_defaults(execute=shown, parser=show)
    for action in (listing, show):
        action.add_argument("--json", metavar="FILE", help="write the same here as JSON, in one step")


def list_clusters(arguments: argparse.Namespace) -> int:
    """A row per cluster: its pools in short."""
    from autopoiesis.cluster import catalog

    clusters = [catalog.cluster(name) for name in catalog.cluster_names()]
    rows = [
        [
            cluster.name,
            f"{sum(pool.minimum for pool in cluster.pools)}–{sum(cluster.maximum.values())}"
            if cluster.elastic
            else sum(cluster.maximum.values()),
            f"{sum(pool.maximum * pool.price_per_hour for pool in cluster.pools):.2f}",
            ", ".join(_pool_in_short(pool) for pool in cluster.pools),
        ]
        for cluster in clusters
    ]
    columns = ["cluster", "GPUs", "$/h at most", "pools"]
    return _say(arguments, "Clusters", columns, rows, [cluster_json(cluster) for cluster in clusters])


def show_cluster(arguments: argparse.Namespace) -> int:
    """A column per pool, and what its spot market does."""
    from autopoiesis.cluster import catalog

    cluster = catalog.cluster(arguments.name)
    fields = cluster_json(cluster)
    rows = [[name, *(_cell(pool[name]) for pool in fields["pools"])] for name in fields["pools"][0] if name != "name"]
    columns = ["", *(pool.name for pool in cluster.pools)]
    return _say(arguments, f"Cluster {cluster.name}", columns, rows, fields)


def list_models(arguments: argparse.Namespace) -> int:
    """A row per model."""
    from autopoiesis.cluster import catalog

    models = [model_json(model) for model in catalog.models().values()]
    rows = [
        [
            model["name"],
            f"{model['parameters'] / 1e9:.1f}B",
            f"{model['active_parameters'] / 1e9:.1f}B",
            model["layers"],
            model["context"],
            f"{model['weight_bytes'] / 1e9:.1f} GB",
            f"{model['kv_bytes_per_token'] / 1e3:.0f} kB",
        ]
        for model in models
    ]
    columns = ["model", "parameters", "active", "layers", "context", "weights", "KV per token"]
    return _say(arguments, "Models (bf16)", columns, rows, models)


def show_model(arguments: argparse.Namespace) -> int:
    """A row per field."""
    from autopoiesis.cluster import catalog

    fields = model_json(catalog.model(arguments.name))
    return _say(arguments, f"Model {arguments.name}", ["", arguments.name], _rows(fields), fields)


def list_gpus(arguments: argparse.Namespace) -> int:
    """A row per GPU kind."""
    from autopoiesis.cluster import catalog

    gpus = [asdict(gpu) for gpu in catalog.gpus().values()]
    rows = [
        [
            gpu["name"],
            f"{gpu['flops'] / 1e12:.0f}",
            f"{gpu['memory_bandwidth'] / 1e12:.2f}",
            f"{gpu['memory_bytes'] / 1e9:.0f}",
            f"{gpu['link_bandwidth'] / 1e9:.0f}",
            f"{gpu['network_bandwidth'] / 1e9:.0f}",
            f"{gpu['price_per_hour']:.2f}",
        ]
        for gpu in gpus
    ]
    columns = ["GPU", "bf16 TFLOP/s", "memory TB/s", "GB", "link GB/s", "network GB/s", "$/h"]
    return _say(arguments, "GPU kinds", columns, rows, gpus)


def show_gpu(arguments: argparse.Namespace) -> int:
    """A row per field."""
    from autopoiesis.cluster import catalog

    fields = asdict(catalog.gpu(arguments.name))
    return _say(arguments, f"GPU {arguments.name}", ["", arguments.name], _rows(fields), fields)


def cluster_json(cluster: Cluster) -> Fields:
    """The keys of `cluster show --json`."""
    fields = {name: getattr(cluster, name) for name in cluster.__dataclass_fields__ if name != "gpus"}
    return {**fields, "pools": [_pool_json(pool) for pool in cluster.pools]}


def model_json(model: Model) -> Fields:
    """The keys of `model show --json`: the fields of its file, and what follows from them."""
    return {
        **asdict(model),
        "parameters": model.parameters,
        "active_parameters": model.active_parameters,
        "weight_bytes": 2 * model.parameters,
        "kv_bytes_per_token": 2 * 2 * model.layers * model.kv_heads * model.head_dim,
    }


def _pool_json(pool: Pool) -> Fields:
    from autopoiesis.cluster.spot import SpotHistory

    fields = {name: getattr(pool, name) for name in pool.__dataclass_fields__}
    # a history's rows are in its file; what they amount to is more telling
    if isinstance(pool.spot, SpotHistory):
        fields["spot"] = {"notice_s": pool.spot.notice_s, **asdict(pool.spot.statistics())}
    return {name: asdict(value) if hasattr(value, "__dataclass_fields__") else value for name, value in fields.items()}


def _pool_in_short(pool: Pool) -> str:
    size = f"{pool.minimum}–{pool.maximum}" if pool.elastic else f"{pool.maximum}"
    return f"{size} {pool.gpu}" + (" spot" if pool.spot is not None else "")


def _rows(fields: Fields) -> list[list[Any]]:
    return [[name, _cell(value)] for name, value in fields.items() if name != "name"]


def _cell(value: Any) -> str:
    match value:
        case None:
            return NONE
        case dict():
            return "\n".join(f"{name} {_cell(item)}" for name, item in value.items())
        case float():
            return f"{value:.6g}"
    return str(value)


def _say(arguments: argparse.Namespace, title: str, columns: list[str], rows: Iterable[list[Any]], fields: Any) -> int:
    """A table, and the same as JSON where it is asked for."""
    from rich.table import Table
    from rich.text import Text

    from autopoiesis.cli.table import drawn

    if arguments.json is not None:
        check_writable(arguments.json, "--json")
        write_whole(arguments.json, dumps(fields))
    table = Table(title=Text(title), title_justify="left")
    for position, name in enumerate(columns):
        table.add_column(Text(printable(name)), justify="left" if position == 0 or name == "pools" else "right")
    for row in rows:
        # names are somebody's text, and no markup
        table.add_row(*(Text("\n".join(printable(line) for line in str(cell).split("\n"))) for cell in row))
    emit(drawn(table))
    return 0
