"""Requests served by engines in virtual time: the kernel's memory, and the operations on it.

A `Simulation` knows nothing of plans in force, capacity or policies; it has slots in which replicas serve or drain,
and requests that arrive, are routed and end. What changes the set of replicas lives in `world`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from autopoiesis.cost import MIGRATION_PAUSE_S, CostModel, StepTimes
from autopoiesis.cost.model import KV_TRANSFER_BANDWIDTH
from autopoiesis.plan import Replica, Role, ServingPlan
from autopoiesis.simulate import layout
from autopoiesis.simulate.engine import evict, evict_waiting, sample_telemetry
from autopoiesis.simulate.kernel import advance
from autopoiesis.simulate.layout import ABSENT, DRAINING, NEVER, SECOND, SERVING, State
from autopoiesis.workload import SLO, Requests, class_labels
from autopoiesis.workload.classes import BUCKETS, bucket_of

ROLES = {Role.MIXED: layout.MIXED, Role.PREFILL: layout.PREFILL, Role.DECODE: layout.DECODE}
HEAP_ROOM = 1024
"""Most sequences of one replica."""
REFERENCE_BATCH, REFERENCE_CONTEXT = 32, 1024
"""The decode step by which the speeds of replicas are compared."""


class Routing(NamedTuple):
    """The compiled functions of a policy, as numba takes them; `None` where the policy has none."""

    route: Any = None
    priority: Any = None


def to_ps(seconds: float) -> int:
    return round(seconds * SECOND)


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
    ) -> None:
        self.models = models
        self.labels = class_labels(models)
        self.cost = cost
        n = len(requests)
        rows = np.zeros(n, dtype=layout.REQUEST)
        rows["arrival"] = np.round(requests.arrival_s * SECOND).astype(np.int64)
        rows["think"] = np.round(requests.think_s * SECOND).astype(np.int64)
        for name in ("first", "done", "held_since"):
            rows[name] = -1
        rows["slot"] = -1
        rows["next"] = -1
        rows["model"] = requests.model
        rows["request_class"] = requests.model * len(BUCKETS) + bucket_of(requests.input_tokens)
        rows["input"] = requests.input_tokens
        rows["output"] = requests.output_tokens
        rows["prefix"] = requests.prefix_tokens
        rows["previous"] = requests.previous
        rows["session"] = session_roots(requests.previous)
        following = np.flatnonzero(requests.previous >= 0)
        if closed_loop:
            rows["next"][requests.previous[following]] = following
            rows["arrival"][following] = NEVER
        scalars = np.zeros(layout.SCALARS, dtype=np.int64)
        scalars[layout.UNFINISHED] = n
        scalars[layout.NEXT_OFFER] = NEVER
        scalars[layout.SEED] = seed
        scalars[layout.EXACT] = int(exact)
        order = np.flatnonzero(rows["arrival"] != NEVER).astype(np.int64)
        scalars[layout.ORDER_END] = len(order)
        m = len(models)
        room = n + 4 * HEAP_ROOM
        self.state = State(
            requests=rows,
            links=np.full((2 * n, 2), -1, dtype=np.int32),
            replicas=np.zeros(slots, dtype=layout.REPLICA),
            heap_key=np.zeros((slots, HEAP_ROOM), dtype=np.int64),
            heap_row=np.zeros((slots, HEAP_ROOM), dtype=np.int64),
            prefills=np.zeros((slots, HEAP_ROOM), dtype=np.int64),
            candidates=np.zeros((2 * m, slots), dtype=np.int64),
            candidate_count=np.zeros(2 * m, dtype=np.int64),
            shares=np.full((len(self.labels), slots), -1.0),
            telemetry=np.zeros((slots, 4)),
            slos=np.array([[s.ttft_s, s.ttft_s_per_input_token, s.tpot_s] for s in (slos[x] for x in models)]),
            context=np.array([cost.hardware.models[x].context for x in models], dtype=np.int64),
            order=order,
            pending_time=np.zeros(room, dtype=np.int64),
            pending_row=np.zeros(room, dtype=np.int64),
            held=np.full(2 * m, -1, dtype=np.int64),
            changed=np.zeros(m, dtype=np.int64),
            arrived=np.zeros(n, dtype=np.int32),
            finished=np.zeros(n, dtype=np.int32),
            scalars=scalars,
            request_view=np.zeros(11),
            replica_view=np.zeros((slots, 11)),
            view_slot=np.zeros(slots, dtype=np.int64),
        )
        self.state.replicas["ends"] = NEVER
        self.state.replicas["queue"] = -1
        self.gpu_kinds: dict[str, int] = {name: i for i, name in enumerate(sorted(cost.hardware.gpus))}
        self.slots: dict[int, Replica] = {}
        self._step_s: dict[int, float] = {}
        self._route: Any = no_route()
        self._priority: Any = no_priority()

    # --- time ---------------------------------------------------------------------------------------------------

    @property
    def now_s(self) -> float:
        return float(self.state.scalars[layout.NOW]) / SECOND

    def advance(self, until_s: float) -> int:
        """Serve until then, or until a draining replica is empty (`layout.DRAINED`) or, if asked, nothing is left."""
        until = NEVER - 1 if until_s == float("inf") else to_ps(until_s)
        while True:
            answer = int(advance(self.state, until, self._route, self._priority))
            if answer != layout.GROW:
                return answer
            self.state = self.state._replace(
                pending_time=np.concatenate([self.state.pending_time, np.zeros_like(self.state.pending_time)]),
                pending_row=np.concatenate([self.state.pending_row, np.zeros_like(self.state.pending_row)]),
            )

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

    def start(self, replica: Replica, slow: float, noise: float, seed: int) -> int:
        """A replica begins to serve; its slot. `slow` multiplies its step times, `noise` is their deviation."""
        slot = next((i for i in range(len(self.state.replicas)) if i not in self.slots), None)
        if slot is None:
            self._more_slots()
            return self.start(replica, slow, noise, seed)
        steps = self.cost.steps(
            replica.model, replica.gpu, replica.tensor_parallel, replica.pipeline_parallel, replica.kv_dtype_bytes
        )
        record = self.state.replicas[slot]
        generation = int(record["generation"]) + 1
        record_values: dict[str, Any] = dict.fromkeys(layout.REPLICA.names or (), 0)
        record_values |= integer_times(steps, slow)
        record_values |= {
            "generation": generation,
            "kv_tokens": steps.kv_tokens,
            "kv_ps_per_token": to_ps(steps.kv_bytes_per_token / KV_TRANSFER_BANDWIDTH),
            "batched_tokens": replica.batched_tokens,
            "max_sequences": min(replica.max_sequences, HEAP_ROOM),
            "noise": round(noise * (1 << layout.NOISE_BITS)),
            "seed": seed,
            "speed": 1.0,
            "model": self.models.index(replica.model),
            "gpu_kind": self.gpu_kinds[replica.gpu],
            "role": ROLES[replica.role],
            "phase": SERVING,
            "ends": NEVER,
            "queue": -1,
        }
        self.state.replicas[slot] = tuple(record_values[name] for name in layout.REPLICA.names or ())
        self.state.telemetry[slot] = (0.0, 0.0, 0.0, self.now_s)
        self.slots[slot] = replica
        self._step_s[slot] = steps.step_s(0, 0, REFERENCE_BATCH, REFERENCE_BATCH * REFERENCE_CONTEXT)
        self.state.scalars[layout.SLOTS] = max(int(self.state.scalars[layout.SLOTS]), slot + 1)
        self._refresh()
        return slot

    def drain(self, slot: int) -> bool:
        """No new request; what waits there goes elsewhere. Whether the replica is empty already."""
        self.state.replicas[slot]["phase"] = DRAINING
        self._refresh()
        evict_waiting(self.state, slot, self.state.scalars[layout.NOW])
        return self.in_flight(slot) == 0

    def undrain(self, slot: int) -> None:
        """The replica takes new requests again."""
        self.state.replicas[slot]["phase"] = SERVING
        self._refresh()

    def stop(self, slot: int, *, transfer: bool = False) -> int:
        """The replica is gone. How many of its requests are continued elsewhere, by KV transfer or recomputed."""
        self.state.replicas[slot]["phase"] = ABSENT
        del self.slots[slot]
        self._refresh()
        return int(evict(self.state, slot, self.state.scalars[layout.NOW], transfer, to_ps(MIGRATION_PAUSE_S)))

    def in_flight(self, slot: int) -> int:
        return int(self.state.replicas[slot]["in_flight"])

    def _refresh(self) -> None:
        """The candidates of each model and phase, and speeds relative to the model's fastest replica."""
        state = self.state
        phase = state.replicas["phase"]
        state.candidate_count[:] = 0
        for slot in sorted(self.slots):
            record = state.replicas[slot]
            if phase[slot] != SERVING:
                continue
            for step, other in ((0, layout.DECODE), (1, layout.PREFILL)):
                if record["role"] != other:
                    group = 2 * int(record["model"]) + step
                    state.candidates[group, state.candidate_count[group]] = slot
                    state.candidate_count[group] += 1
        for model in self.models:
            mine = [slot for slot, replica in self.slots.items() if replica.model == model]
            fastest = min((self._step_s[slot] for slot in mine), default=1.0)
            for slot in mine:
                state.replicas[slot]["speed"] = fastest / self._step_s[slot]
        state.changed[:] = 1

    def _more_slots(self) -> None:
        state = self.state
        more = {
            name: np.concatenate([getattr(state, name), np.zeros_like(getattr(state, name))])
            for name in ("replicas", "heap_key", "heap_row", "prefills", "telemetry", "replica_view", "view_slot")
        }
        more |= {
            name: np.concatenate([getattr(state, name), np.zeros_like(getattr(state, name))], axis=1)
            for name in ("candidates", "shares")
        }
        half = len(state.replicas)
        more["replicas"]["ends"][half:] = NEVER
        more["replicas"]["queue"][half:] = -1
        more["shares"][:, half:] = -1.0
        self.state = state._replace(**more)

    # --- routing ------------------------------------------------------------------------------------------------

    def set_routing(self, routing: Routing) -> None:
        """Place requests by these functions from now on; without them, by the built-in balancer."""
        self._route = no_route() if routing.route is None else routing.route
        self._priority = no_priority() if routing.priority is None else routing.priority
        self.state.scalars[layout.USE_ROUTE] = int(routing.route is not None)
        self.state.scalars[layout.USE_PRIORITY] = int(routing.priority is not None)

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
        now = self.state.scalars[layout.NOW]
        samples = {}
        for slot in self.slots:
            out = np.zeros(4)
            sample_telemetry(self.state, slot, now, out)
            out[3] = self.now_s
            samples[slot] = out
        return samples


def integer_times(steps: StepTimes, slow: float) -> dict[str, int]:
    """A replica's coefficients as integers of picoseconds."""
    return {
        "fixed": to_ps(slow * steps.fixed_s),
        "prefill_fixed": to_ps(slow * steps.prefill_fixed_s),
        "weights": to_ps(slow * steps.weights_s),
        "token": to_ps(slow * steps.token_s),
        "communication": to_ps(slow * steps.communication_s),
        "attention": to_ps(slow * steps.attention_s),
        "context": to_ps(slow * steps.context_s),
        "sequence": to_ps(slow * steps.sequence_s),
    }


def session_roots(previous: NDArray[np.int64]) -> NDArray[np.int64]:
    """The first row of each row's session, -1 for a single request."""
    n = len(previous)
    root = np.arange(n)
    parent = np.where(previous >= 0, previous, root)
    while True:
        above = parent[parent]
        if np.array_equal(above, parent):
            break
        parent = above
    single = np.ones(n, dtype=bool)
    single[previous >= 0] = False
    single[previous[previous >= 0]] = False
    return np.where(single, -1, parent)


def no_route() -> Any:
    """A function of `route`'s type that is never called."""
    return _placeholders()[0]


def no_priority() -> Any:
    return _placeholders()[1]


_cache: list[Any] = []


def _placeholders() -> list[Any]:
    """Compiled once per process: the kernel is typed by function pointers and always gets one of each."""
    if not _cache:
        import numba
        from numba import types

        pointer = types.CPointer(types.float64)
        _cache.append(numba.cfunc(types.int64(pointer, pointer, types.int64), cache=True)(_hold))
        _cache.append(numba.cfunc(types.float64(pointer), cache=True)(_zero))
    return _cache


def _hold(request: Any, replicas: Any, n: int) -> int:
    return -3


def _zero(request: Any) -> float:
    return 0.0
