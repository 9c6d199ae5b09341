"""What the event simulator says of the requests that a load sent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from autopoiesis.bench.load.outcomes import Outcomes, Served, as_sent
from autopoiesis.cost import CostModel
from autopoiesis.plan import Replica
from autopoiesis.simulate.layout import SECOND
from autopoiesis.simulate.simulation import Simulation
from autopoiesis.workload import SLO, Requests, Status
from autopoiesis.workload.requests import in_order_of_arrival


@dataclass(frozen=True, slots=True)
class Fleet:
    """The engines that are thought to be behind an endpoint, of one model."""

    replicas: tuple[Replica, ...]
    cost: CostModel
    router: str = "balanced"
    speed: float = 1.0
    """How many times as fast as the cost model's all of them are."""

    def sped_up(self) -> CostModel:
        """The cost model at that speed."""
        slow = {gpu: self.cost.slow.get(gpu, 1.0) / self.speed for gpu in self.cost.hardware.gpus}
        return self.cost.with_slow(slow)


def predict(fleet: Fleet, requests: Requests, *, closed_loop: bool, seed: int = 0) -> Served:
    """How the fleet serves the requests of one model. Raises PlanError for a replica that its weights do not fit, and
    TraceError for times or sessions that cannot be served."""
    model = fleet.replicas[0].model
    simulation = Simulation(
        requests,
        (model,),
        {model: SLO()},
        fleet.sped_up(),
        seed=seed,
        slots=len(fleet.replicas),
        closed_loop=closed_loop,
        router=fleet.router,
    )
    for replica in fleet.replicas:
        simulation.start(replica, 1.0, 0.0, 0)
    simulation.advance(float("inf"))
    records = simulation.state.requests
    completed = records["status"] == Status.COMPLETED
    done_s = records["done"] / SECOND
    return Served(
        sent_s=records["arrival"] / SECOND,
        first_s=np.where(records["first"] >= 0, records["first"] / SECOND, np.nan),
        last_s=np.where(completed, done_s, np.nan),
        end_s=done_s,
        input_tokens=requests.input_tokens,
        output_tokens=requests.output_tokens,
        completed=completed,
    )


def predict_load(fleet: Fleet, requests: Requests, came: Outcomes, *, closed_loop: bool, limited: bool) -> Served:
    """The prediction for the very requests of a load, in the order of its outcomes.

    Where the client `limited` how many were under way, its own waiting is no matter of the engine's: requests arrive
    when they were sent.
    """
    sent = as_sent(requests, came)
    if not limited:
        return predict(fleet, sent, closed_loop=closed_loop)
    at_s = np.maximum(came.served.sent_s, 0.0)
    columns = {name: getattr(sent, name) for name in Requests.COLUMNS} | {"arrival_s": at_s}
    predicted = predict(fleet, in_order_of_arrival({**columns, "block_ids": sent.block_ids}), closed_loop=False)
    place = np.argsort(np.argsort(at_s, kind="stable"), kind="stable")
    return taken(predicted, place)


def taken(served: Served, order: Sequence[int] | np.typing.NDArray[np.int64]) -> Served:
    """The requests in another order."""
    return replace(served, **{name: getattr(served, name)[order] for name in Served.__slots__})
