"""Requests served by engines in virtual time: the kernel's memory, and the operations on it.

A `Simulation` knows nothing of plans in force, capacity or policies; it has slots in which replicas serve or drain,
and requests that arrive, are routed and end. What changes the set of replicas lives in `world`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from autopoiesis.cost import MIGRATION_PAUSE_S, CostModel
from autopoiesis.errors import PlanError
from autopoiesis.plan import Replica, ServingPlan
from autopoiesis.policy.native import CompiledPriority, CompiledRoute
from autopoiesis.simulate import layout
from autopoiesis.simulate.chains import build_chains
from autopoiesis.simulate.engine import sample_telemetry
from autopoiesis.simulate.eviction import evict, evict_waiting
from autopoiesis.simulate.kernel import advance
from autopoiesis.simulate.layout import ABSENT, DRAINING, FLEET, SECOND, SERVING
from autopoiesis.simulate.records import (
    empty_state,
    replica_record,
    request_records,
    to_ps,
    with_links,
    with_more_slots,
    with_nodes,
)
from autopoiesis.simulate.routers import ROUTERS
from autopoiesis.workload import SLO, Requests, class_labels

REFERENCE_BATCH, REFERENCE_CONTEXT = 32, 1024
"""The decode step by which the speeds of replicas are compared."""


class Routing(NamedTuple):
    """The compiled functions of a policy; `None` where the policy has none."""

    route: CompiledRoute | None = None
    priority: CompiledPriority | None = None


class Simulation:
    """n requests over slots of replicas; time is seconds outside and picoseconds inside."""

    def __init__(
        self,
        requests: Requests,
        models: tuple[str, ...],
        slos: dict[str, SLO],
        cost: CostModel,
        *,
        seed: int,
        slots: int = 64,
        exact: bool = False,
        closed_loop: bool = True,
        believed: CostModel | None = None,
        router: str = "balanced",
    ) -> None:
        """Engines take the times of `cost`; the speeds that `route` is shown are those of `believed`, if it is given,
        because the gateway knows no better. `slots` is room for replicas at first, more is made when needed. `exact`
        takes every step by itself, which changes nothing but the time it takes. In a `closed_loop` a later call of a
        session follows the end of the call before it; otherwise it arrives as recorded. `router`, one of
        `routers.ROUTERS`, places what no policy does. Raises TraceError for times or sessions that cannot be served.
        """
        self.requests = requests
        self.models = models
        self.labels = class_labels(models)
        self.cost = cost
        self._believed = cost if believed is None else believed
        rows = request_records(requests, closed_loop)
        self.state = empty_state(rows, *build_chains(rows, requests), models, slos, cost, slots)
        self.state.scalars[layout.ROUTER] = ROUTERS[router]
        self.state.scalars[layout.SEED] = seed
        self.state.scalars[layout.EXACT] = int(exact)
        self.gpu_kinds: dict[str, int] = {name: i for i, name in enumerate(sorted(cost.hardware.gpus))}
        self.slots: dict[int, Replica] = {}
        self._step_s: dict[int, float] = {}
        self._links: dict[int, int] = {}
        """Positions in the kernel's links, by the caller's number or, of a slot's own link, by −1 − slot."""
        self._node_room: dict[int, int] = {}
        self._routing = Routing()
        self._fleet_changed = False

    # --- time ---------------------------------------------------------------------------------------------------

    @property
    def now_s(self) -> float:
        return float(self.state.scalars[layout.NOW]) / SECOND

    def advance(self, until_s: float) -> int:
        """Serve until then and say `layout.REACHED`, or until a draining replica is empty (`DRAINED`) or, where
        `STOP_EMPTY` is set, nothing is left (`EMPTY`). Until infinity the time stays at the last event."""
        if self._fleet_changed:
            self._know_fleet()
        until = layout.FOREVER if until_s == float("inf") else to_ps(until_s)
        return int(advance(self.state, until))

    @property
    def unfinished(self) -> int:
        return int(self.state.scalars[layout.UNFINISHED])

    @property
    def drained_slot(self) -> int:
        return int(self.state.scalars[layout.OUT_SLOT])

    @property
    def route_faults(self) -> int:
        return int(self.state.scalars[layout.FAULTS])

    # --- replicas -----------------------------------------------------------------------------------------------

    def start(self, replica: Replica, slow: float, noise: float, seed: int, link: int | None = None) -> int:
        """A replica begins to serve; its slot. `slow` multiplies its step times, `noise` is their deviation. KV caches
        leave it over the given link, which other replicas of its node share; without one, over a link of its own."""
        slot = next((i for i in range(len(self.state.replicas)) if i not in self.slots), len(self.state.replicas))
        if slot == len(self.state.replicas):
            self.state = with_more_slots(self.state)
        steps, believed = (
            cost.steps(
                replica.model, replica.gpu, replica.tensor_parallel, replica.pipeline_parallel, replica.kv_dtype_bytes
            )
            for cost in (self.cost, self._believed)
        )
        if steps.kv_tokens < layout.BLOCK_TOKENS:
            raise PlanError(f"replica {replica}: the weights do not fit; use more or larger GPUs")
        if link is None:
            link = -1 - slot
        if link not in self._links:
            self._links[link] = len(self._links)
            self.state = with_links(self.state, len(self._links))
        # a node of the prefix cache has a block at least; and what nothing asks for lies between what something does
        room = min(steps.kv_tokens // layout.BLOCK_TOKENS, 2 * len(self.state.segments) + 2)
        self._node_room[slot] = room if len(self.state.segments) else 0
        self.state = with_nodes(self.state, sum(self._node_room.values()))
        state = self.state
        state.replicas[slot] = replica_record(
            replica,
            steps,
            slow=slow,
            noise=noise,
            seed=seed,
            model=self.models.index(replica.model),
            gpu_kind=self.gpu_kinds[replica.gpu],
            link=self._links[link],
            generation=int(state.replicas[slot]["generation"]) + 1,
        )
        state.ends[slot] = layout.NEVER
        state.telemetry[slot] = (0.0, 0.0, 0.0, self.now_s)
        self.slots[slot] = replica
        self._step_s[slot] = believed.step_s(0, 0, REFERENCE_BATCH, REFERENCE_BATCH * REFERENCE_CONTEXT)
        state.scalars[layout.SLOTS] = max(int(state.scalars[layout.SLOTS]), slot + 1)
        self._fleet_changed = True
        return slot

    def drain(self, slot: int) -> bool:
        """No new request; what waits there goes elsewhere. Whether the replica is empty already."""
        self.state.replicas[slot]["phase"] = DRAINING
        self._fleet_changed = True
        evict_waiting(self.state, slot, self.state.scalars[layout.NOW], True, 0)
        return self.in_flight(slot) == 0

    def undrain(self, slot: int) -> None:
        """The replica takes new requests again."""
        self.state.replicas[slot]["phase"] = SERVING
        self._fleet_changed = True

    def stop(self, slot: int, *, transfer: bool = False) -> int:
        """The replica is gone. How many of its requests are continued elsewhere, by KV transfer or recomputed."""
        self.state.replicas[slot]["phase"] = ABSENT
        del self.slots[slot], self._step_s[slot]
        # whoever comes into the slot next must not inherit its shares
        self.state.shares[:, slot] = np.minimum(self.state.shares[:, slot], 0.0)
        self._fleet_changed = True
        moved = int(evict(self.state, slot, self.state.scalars[layout.NOW], transfer, to_ps(MIGRATION_PAUSE_S)))
        self._node_room[slot] = 0
        return moved

    def in_flight(self, slot: int) -> int:
        return int(self.state.replicas[slot]["in_flight"])

    def _know_fleet(self) -> None:
        """The candidates of each model and phase, and speeds relative to the model's fastest replica."""
        self._fleet_changed = False
        state = self.state
        slots = np.array(sorted(self.slots), dtype=np.int64)
        step_s = np.array([self._step_s[slot] for slot in slots.tolist()])
        fleet = state.replicas[slots]
        for model in range(len(self.models)):
            mine = fleet["model"] == model
            state.replicas["speed"][slots[mine]] = step_s[mine].min(initial=np.inf) / step_s[mine]
            for step, other in ((0, layout.DECODE), (1, layout.PREFILL)):
                group = 2 * model + step
                able = slots[mine & (fleet["phase"] == SERVING) & (fleet["role"] != other)]
                state.candidates[group, : len(able)] = able
                state.candidate_count[group] = len(able)
        state.changed[:] = FLEET

    # --- routing ------------------------------------------------------------------------------------------------

    def set_routing(self, routing: Routing) -> None:
        """Place requests by these functions from now on; without them, by the built-in router.

        What is held is offered to the new `route` at once. Requests keep the priority they got on arrival.
        """
        # kept, since the kernel calls them by address
        self._routing = routing
        self.state.scalars[layout.ROUTE] = 0 if routing.route is None else routing.route.address
        self.state.scalars[layout.PRIORITY] = 0 if routing.priority is None else routing.priority.address
        self.state.changed[:] |= layout.ENDED

    def set_shares(self, plan: ServingPlan, slot_of: dict[int, int]) -> None:
        """The plan's shares; `slot_of` maps positions in the plan to slots."""
        self.state.shares[:] = -1.0
        for entry in plan.shares:
            row = self.state.shares[self.labels.index(entry.request_class)]
            row[:] = 0.0
            for position, slot in slot_of.items():
                row[slot] = entry.fractions[position]
            if row.sum() <= 0:
                row[:] = -1.0

    # --- what can be seen ---------------------------------------------------------------------------------------

    def sample(self) -> dict[int, NDArray[np.float64]]:
        """Running, waiting, KV use and the time of the sample, of every replica now."""
        slots = np.array(list(self.slots), dtype=np.int64)
        samples = np.full((len(slots), 4), self.now_s)
        sample_telemetry(self.state, slots, self.state.scalars[layout.NOW], samples)
        return dict(zip(slots.tolist(), samples, strict=True))
