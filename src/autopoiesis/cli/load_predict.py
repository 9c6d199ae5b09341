"""The flags that say what is thought to be behind an endpoint, for a prediction by the simulator."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, NamedTuple

from autopoiesis.cli.parser import Parser, number, one_of
from autopoiesis.errors import ScenarioError

if TYPE_CHECKING:
    from autopoiesis.bench.load import Fleet

OPTIONS = {
    "replicas": (1, 1024),
    "tp": (1, 1024),
    "pp": (1, 1024),
    "batched-tokens": (1, 1 << 20),
    "max-sequences": (1, 1 << 20),
    "kv-dtype-bytes": (1, 2),
}
"""Of a replica, with the least and the most of each."""


class Replicas(NamedTuple):
    """Equal engines: `MODEL:GPU[,OPTION=N...]`."""

    model: str
    gpu: str
    options: dict[str, int]


def add_prediction(parser: Parser) -> None:
    """The flags of `fleet`."""
    what = parser.add_argument_group("prediction", "what the simulator is to serve the same requests with")
    what.add_argument(
        "--predict",
        metavar="MODEL:GPU[,OPTION=N...]",
        type=_replicas,
        action="append",
        default=[],
        help=f"the engines behind the endpoint; options: {', '.join(OPTIONS)}; repeat for unlike ones (default: no "
        "prediction)",
    )
    what.add_argument(
        "--engine",
        metavar="NAME",
        default="vllm",
        help="whose measured step times count: vllm, or an engine of the file of --coefficients (default vllm)",
    )
    what.add_argument(
        "--coefficients",
        metavar="FILE",
        help="TOML file of step times that autopoiesis calibrate --out wrote (default: those of the package)",
    )
    what.add_argument(
        "--router",
        metavar="NAME",
        type=one_of("router", _routers),
        default="balanced",
        help="who places requests on several replicas, as in autopoiesis simulate (default balanced)",
    )
    what.add_argument(
        "--speed",
        metavar="X",
        type=number("a factor", above=0, most=1e6),
        default=1.0,
        help="the engines are X times as fast as their step times say, as with autopoiesis engine --speed X (default "
        "1)",
    )


def fleet(arguments: argparse.Namespace) -> Fleet | None:
    """The engines that the flags name; None where they name none. Raises ScenarioError for names nobody knows."""
    if not arguments.predict:
        return None
    from autopoiesis.bench.load import Fleet
    from autopoiesis.cluster import Hardware, catalog
    from autopoiesis.control.files import read_coefficients
    from autopoiesis.cost import CostModel
    from autopoiesis.cost.fitted import Fitted, shipped
    from autopoiesis.plan import Replica

    if len({given.model for given in arguments.predict}) > 1:
        raise ScenarioError(
            "--predict: the replicas behind an endpoint must be of one model; give the one that is asked"
        )
    replicas: list[Replica] = []
    for model, gpu, options in arguments.predict:
        catalog.model(model), catalog.gpu(gpu)
        replica = Replica(
            model,
            gpu,
            tensor_parallel=options.get("tp", 1),
            pipeline_parallel=options.get("pp", 1),
        ).with_options(
            batched_tokens=options.get("batched-tokens"),
            max_sequences=options.get("max-sequences"),
            kv_dtype_bytes=options.get("kv-dtype-bytes"),
        )
        replicas += [replica] * options.get("replicas", 1)
    given = Fitted() if arguments.coefficients is None else read_coefficients(arguments.coefficients)
    fitted = given.over(shipped())
    cost = CostModel(
        Hardware(catalog.gpus(), catalog.models()),
        measured=fitted.measured,
        efficiencies=fitted.efficiencies,
        engine=arguments.engine,
    )
    return Fleet(tuple(replicas), cost, arguments.router, arguments.speed)


def _replicas(text: str) -> Replicas:
    shape, *pairs = text.split(",")
    model, colon, gpu = shape.partition(":")
    if not (model and colon and gpu):
        raise argparse.ArgumentTypeError(f"must have the form MODEL:GPU[,OPTION=N...], got {text!r}")
    options = {}
    for pair in pairs:
        name, _, value = pair.partition("=")
        if name not in OPTIONS:
            raise argparse.ArgumentTypeError(f"unknown option {name!r}; there are: {', '.join(OPTIONS)}")
        least, most = OPTIONS[name]
        if not (value.isdecimal() and len(value) < 10 and least <= int(value) <= most):
            raise argparse.ArgumentTypeError(f"{name} must be a whole number from {least} to {most}, got {value!r}")
        options[name] = int(value)
    return Replicas(model, gpu, options)


def _routers() -> tuple[str, ...]:
    from autopoiesis.simulate.routers import ROUTERS

    return tuple(ROUTERS)
