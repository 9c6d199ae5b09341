"""Accounts of runs that nobody served: of any size, and with whatever a model may write."""

from __future__ import annotations

import random
from dataclasses import replace

from autopoiesis.cluster import catalog
from autopoiesis.control.account import (
    Account,
    Ancestor,
    Course,
    Gate,
    Happening,
    Leg,
    Lineage,
    Load,
    ReplicaLife,
    Setting,
)
from autopoiesis.control.config import EvolutionConfig, PaperPair, Row, ScenarioConfig, SwapEntry, WorkloadFile
from autopoiesis.plan import Replica, ServingPlan
from autopoiesis.simulate.outcome import Books, PaperTimes, Spread
from autopoiesis.simulate.scenario import Mode
from autopoiesis.workload.classes import default_slo

MODELS = ("llama-3.1-8b", "llama-3.1-70b")
FIXED = ("amortised", "greedy-replan", "milp-replan", "round-robin", "scale-to-load", "static", "threshold")
WINDOW_S = 60.0
HOSTILE = "</pre><script>alert(1)</script><img src=x onerror=alert(2)>&amp;\"'\u202e"
"""What a page must show and never do."""

STATIC, MADE = "5" * 16, "a" * 16
STATIC_TEXT = '"""Never change anything."""\n\ninterface = 1\n\n\ndef should_reschedule(state):\n    return False\n'
MADE_TEXT = STATIC_TEXT.replace("False", "state.now_s > 60").replace("Never change", f"{HOSTILE} Change")


def books(good: int = 900, cost_usd: float = 12.5) -> Books:
    """Of 1000 requests."""
    spread = Spread(0.4, 0.25, 1.1, 2.345)
    return Books(
        requests=1000,
        completed=970,
        lost=5,
        shed=20,
        rejected=5,
        good=good,
        goodput=good / 1000,
        cost_usd=cost_usd,
        cost_per_good_usd=cost_usd / good if good else None,
        delay_s=300.0,
        gpu_hours=8.0,
        ttft_s=spread,
        tpot_s=Spread(0.03, 0.025, 0.0456, 0.08),
        e2e_s=Spread(10.0, 9.0, 20.0, 30.0),
    )


def life(model: str, first: int, count: int, launched_s: float, ended_s: float, started_s: float = 0.0) -> ReplicaLife:
    """On the GPUs of one node; it drains for a tenth of its life if it began later than the run."""
    drains = launched_s + 0.9 * (ended_s - launched_s) if launched_s else None
    gpus = [("h100-0", first + position) for position in range(count)]
    end = "drained" if drains is not None else "end of run"
    return ReplicaLife(model, "h100", count, 1, "mixed", gpus, launched_s, launched_s + started_s, drains, ended_s, end)


def course(seed: int = 0, windows: int = 12, policy: str = STATIC) -> Course:
    """Traffic that goes up and down; the first window completes nothing."""
    rng = random.Random(seed)
    arrivals = [rng.randrange(200, 400) for _ in range(windows)]
    completed = [0, *(rng.randrange(150, 300) for _ in range(windows - 1))]
    good = [rng.randrange(count + 1) for count in completed]
    latencies = [[None, *(rng.uniform(0.1, 20) for _ in range(windows - 1))] for _ in range(4)]
    end_s = windows * WINDOW_S
    half = [count // 2 for count in arrivals]
    load = Load(half, [800 * count for count in half], [count // 2 for count in completed], [99 * c for c in completed])
    none = [0] * windows
    return Course(
        together=1,
        end_s=[WINDOW_S * (window + 1) for window in range(windows)],
        arrivals=arrivals,
        completed=completed,
        good=good,
        lost=none,
        shed=none,
        rejected=none,
        backlog=[rng.randrange(50) for _ in range(windows)],
        ttft_p50_s=latencies[0],
        ttft_p90_s=latencies[1],
        ttft_p99_s=latencies[2],
        tpot_p90_s=latencies[3],
        gpus=[8.0] * windows,
        cost_usd=[0.4] * windows,
        scheduling_s=[rng.uniform(0, 3) for _ in range(windows)],
        reconfiguration_s=[rng.uniform(0, 30) for _ in range(windows)],
        reschedules=[int(window % 3 == 2) for window in range(windows)],
        policy=[policy] * windows,
        loads=dict.fromkeys(MODELS, load),
        replicas=[
            life(MODELS[1], 0, 4, 0.0, end_s),
            life(MODELS[0], 4, 4, 0.0, end_s / 2),
            *(life(MODELS[0], 4 + gpu, 1, end_s / 2, end_s, started_s=end_s / 10) for gpu in range(4)),
        ],
        replicas_left_out=0,
    )


def lineage(took_over: bool = True, text: str = MADE_TEXT) -> Lineage:
    """Static, and a policy made from it that took over after five minutes."""
    policies = {STATIC: Ancestor(STATIC, "static", "human", [], "Never change anything.", STATIC_TEXT)}
    if not took_over:
        return Lineage(STATIC, policies, [], {"checked": (3, 0), "replayed": (0, 3)})
    policies[MADE] = Ancestor(MADE, "command-3", "command", [STATIC], f"{HOSTILE} Change", text)
    gates = [Gate(240.0, MADE, "replayed", True, {"train_ratio": 0.9, "note": HOSTILE})]
    return Lineage(
        STATIC, policies, gates, {"checked": (3, 0), "replayed": (2, 3), "held out": (1, 1), "active": (1, 0)}
    )


SWAP = SwapEntry(
    300.0, "operator", MADE, STATIC, "command", {"summary": HOSTILE, "train_ratio": 0.9, "windows": [1, 2]}
)


def account(
    *,
    windows: int = 12,
    paper: bool = False,
    swaps: tuple[SwapEntry, ...] = (SWAP,),
    load: float = 1.2,
    objective: str = "cost_per_good",
    good: int = 950,
    text: str = MADE_TEXT,
) -> Account:
    """The evolving system, with so many good answers of a thousand, and seven fixed policies with 900 and less."""
    modes = tuple(Mode) if paper else (Mode.OPERATOR,)
    times = PaperTimes(3000.0, 10.0, 20.0, 2970.0)
    pair = PaperPair(times, replace(times, total_s=6000.0)) if paper else None
    rows = [Row("evolving", "evolving", books(good), pair, 4)]
    rows += [Row(name, "baseline", books(900 - 10 * position), pair, position) for position, name in enumerate(FIXED)]
    legs = {}
    for mode in modes:
        for position, row in enumerate(rows):
            own = [swap for swap in swaps if row.kind == "evolving" and swap.mode == mode.value]
            legs[row.name, mode] = Leg(
                row.operator if mode is Mode.OPERATOR else None,
                None if mode is Mode.OPERATOR else times,
                row.reschedules,
                own,
                [Happening(61.0, "capacity", f"h100 has 8 GPUs {HOSTILE}")],
                0,
                course(position, windows, MADE if own else STATIC),
                lineage(bool(own), text) if row.kind == "evolving" else None,
            )
    scenario = ScenarioConfig(
        tuple(WorkloadFile(model, f"/secret/{model}.csv") for model in MODELS),
        "demo-8",
        load=load,
        window_s=WINDOW_S,
        objective=objective,
        seed=7,
    )
    setting = Setting(
        scenario,
        EvolutionConfig("command", HOSTILE, HOSTILE),
        catalog.cluster("demo-8"),
        {model: default_slo(catalog.model(model).parameters) for model in MODELS},
        dict.fromkeys(MODELS, 1.5),
        ServingPlan((Replica(MODELS[0], "h100"),)),
        1000,
        windows * WINDOW_S,
    )
    return Account(setting, tuple(rows), swaps, legs)


def alone(windows: int = 12) -> Account:
    """One policy by itself."""
    whole = account(windows=windows, swaps=())
    leg = whole.legs["static", Mode.OPERATOR]
    leg.lineage = lineage(took_over=False)
    rows = tuple(row for row in whole.rows if row.name == "static")
    return Account(replace(whole.setting, evolution=None), rows, (), {("static", Mode.OPERATOR): leg})
