"""What a prompt says of the system at a monitoring point: numbers and labels, up to now and nothing later."""

from __future__ import annotations

from collections import Counter

from autopoiesis.evolve.prompt import Evidence, describe_pools
from autopoiesis.simulate.fluid import FluidEstimator
from autopoiesis.simulate.run import Point

SHOWN_WINDOWS = 13
SHOWN_TRANSITIONS = 3


def evidence_of(point: Point) -> Evidence:
    """Objective, windows, pools, the plan in force and what the belief says of it, SLOs, what past moves cost."""
    run = point.run
    observation = run.observation()
    estimate = FluidEstimator(run.belief.cost.encode()).estimate(observation, run.loop.plan)
    counts = sorted(Counter(run.loop.plan.replicas).items())
    engines = ", ".join(
        f"{count}x {replica} (max_sequences {replica.max_sequences}, batched_tokens {replica.batched_tokens}, "
        f"kv_dtype_bytes {replica.kv_dtype_bytes})"
        for replica, count in counts
    )
    notes = [
        f"Plan in force: {engines}.",
        f"By the belief its headroom is {estimate.headroom:.3g}, its goodput {estimate.goodput:.3g}.",
        *(
            f"SLO of {model}: TTFT {slo.ttft_s:g} s + {1000 * slo.ttft_s_per_input_token:g} ms per prompt token, "
            f"TPOT {1000 * slo.tpot_s:g} ms."
            for model, slo in sorted(run.scenario.slos.items())
        ),
        f"A monitoring point comes every {run.scenario.window_s:g} s. Score and ratio come from replaying the last "
        "windows, backlog included, from the plan in force.",
        *(
            f"A past transition took {p.seconds:.0f} s: {p.started} started, {p.stopped} stopped."
            for p in run.past[-SHOWN_TRANSITIONS:]
        ),
    ]
    return Evidence(
        objective=run.scenario.objective,
        windows=tuple(run.windows[-SHOWN_WINDOWS:]),
        pools=describe_pools(observation.pools),
        notes=tuple(notes),
    )
