"""A row for every request of a run."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from autopoiesis.simulate.layout import LOST_KV, LOST_UNSERVED, NOT_LOST, SECOND
from autopoiesis.simulate.lives import finisher
from autopoiesis.simulate.run import Run
from autopoiesis.simulate.tables.columns import Count, Flag, Index, Seconds, Table, Text
from autopoiesis.simulate.views import good_rows, latencies
from autopoiesis.workload.status import Status

REASONS = {NOT_LOST: "", LOST_KV: "kv", LOST_UNSERVED: "unserved"}
"""Why a request was lost: no KV cache could hold it, or no replica could take it in time."""


@dataclass(frozen=True)
class RequestTable(Table):
    """k requests in the order of the workload."""

    id: Index
    """Row in the workload."""
    model: Text
    request_class: Text
    session: Index
    """Id of the session's first call, none for a single request."""
    arrival_s: Seconds
    first_token_s: Seconds
    end_s: Seconds
    input_tokens: Count
    output_tokens: Count
    """Wanted."""
    generated_tokens: Count
    prefix_tokens: Count
    """Prompt tokens shared with the session's previous call, cached or not."""
    cached_tokens: Count
    """Prompt tokens found cached where it was prefilled first."""
    preemptions: Count
    moves: Count
    """Times it was taken off a replica to be continued elsewhere."""
    status: Text
    reason: Text
    """Why it was lost: an entry of `REASONS`."""
    ttft_s: Seconds
    tpot_s: Seconds
    """None with one output token or none, or if not completed."""
    e2e_s: Seconds
    """None if not completed."""
    delay_s: Seconds
    """Beyond its time alone on the fastest replica; none if not completed."""
    met_slo: Flag
    replica: Index
    """Id of the replica that finished it or where it was lost, none if it ended at the gateway."""


def request_table(run: Run, rows: NDArray[np.int64] | slice = slice(None)) -> RequestTable:
    """The requests of a finished run; of a large one, part by part if memory matters."""
    simulation = run.world.simulation
    picked = np.arange(len(run.scenario.requests))[rows]
    requests = simulation.state.requests[picked]
    completed = requests["status"] == Status.COMPLETED
    ttft_s, tpot_s = latencies(simulation, picked)
    e2e_s = np.where(completed, (requests["done"] - requests["arrival"]) / SECOND, np.nan)
    return RequestTable(
        id=picked,
        model=np.array(simulation.models)[requests["model"]],
        request_class=np.array(simulation.labels)[requests["request_class"]],
        session=requests["session"].astype(np.int64),
        arrival_s=requests["arrival"] / SECOND,
        first_token_s=np.where(requests["first"] >= 0, requests["first"] / SECOND, np.nan),
        end_s=requests["done"] / SECOND,
        input_tokens=requests["input"].astype(np.int64),
        output_tokens=requests["output"].astype(np.int64),
        generated_tokens=requests["generated"].astype(np.int64),
        prefix_tokens=requests["prefix"].astype(np.int64),
        cached_tokens=requests["cached"].astype(np.int64),
        preemptions=requests["preemptions"].astype(np.int64),
        moves=requests["moves"].astype(np.int64),
        status=np.array([status.name.lower() for status in Status])[requests["status"]],
        reason=np.array([REASONS[reason] for reason in sorted(REASONS)])[requests["reason"]],
        ttft_s=ttft_s,
        tpot_s=np.where(completed, tpot_s, np.nan),
        e2e_s=e2e_s,
        delay_s=np.maximum(e2e_s - run.scenario.unloaded_s[picked], 0.0),
        met_slo=good_rows(simulation, picked),
        replica=finisher(run.world.fleet.lives.of, requests["slot"], requests["done"]),
    )
