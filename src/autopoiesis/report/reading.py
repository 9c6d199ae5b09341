"""What the words of the page mean, and with which settings it came about."""

from __future__ import annotations

from pathlib import PurePath

from autopoiesis import __version__
from autopoiesis.control.account import Account
from autopoiesis.evolve.versions import fingerprint
from autopoiesis.report.charts import WIDE_RANGE
from autopoiesis.report.html import Markup, joined, table, tag
from autopoiesis.report.numbers import short

OBJECTIVES = {"cost_per_good": "money per good answer", "goodput": "share of good answers", "delay": "delay"}
GATES = {
    "checked": "the grammar and the imports that are allowed",
    "screened": "not worse than the incumbent over two windows (only refusals are noted)",
    "replayed": "2 % better than the incumbent over the older windows, in a simulation of what is believed",
    "held out": "better also on the newest windows, which chose nobody",
    "tried": "answers on the live state with a plan that stands",
    "active": "took over at a monitoring point",
    "watched": "withdrawn after three failed calls",
}
"""In the order in which a policy comes to them."""


def reading(account: Account) -> Markup:
    """Terms, then settings."""
    terms = [
        ("Good", f"answered within the SLO. {_promises(account)}."),
        ("Load", "1 is the largest load that the best fixed plan serves with 99 % good."),
        (
            "Latencies",
            "TTFT is the time from arrival at the gateway to the first token, TPOT the mean time per token after it. "
            "Percentiles are by nearest rank, of the requests completed in the window; one without any leaves a gap. "
            f"An axis whose values span more than a factor of {WIDE_RANGE:g} is logarithmic.",
        ),
        (
            "Scheduling, reconfiguration",
            "every instant counts once: as reconfiguration while a transition is under way, else as scheduling while "
            "the policy computes, else as serving.",
        ),
        (
            "Best fixed policy",
            f"by the objective, {OBJECTIVES[account.setting.scenario.objective]}, over the whole run. Which one that "
            "is, nobody knows beforehand.",
        ),
        (
            "Simulated",
            "all this happened in virtual time, in a world whose GPUs differ from their data sheets by factors that no "
            "policy sees.",
        ),
    ]
    if account.setting.evolution is not None:
        gates = "; ".join(f"{gate}: {means}" for gate, means in GATES.items())
        terms.append(("Gates", f"what a new policy has to pass, and what became of it. {gates}."))
    entries = (tag("div", tag("dt", tag("b", term)), tag("dd", means)) for term, means in terms)
    return joined((tag("dl", *entries, class_="terms"), _settings(account)))


def _promises(account: Account) -> str:
    return "; ".join(
        f"{model}: first token within {slo.ttft_s:g} s + {1000 * slo.ttft_s_per_input_token:g} ms per prompt token, "
        f"then {1000 * slo.tpot_s:g} ms per token"
        for model, slo in sorted(account.setting.slos.items())
    )


def _settings(account: Account) -> Markup:
    setting, scenario, evolution = account.setting, account.setting.scenario, account.setting.evolution
    workloads = (
        f"{load.model}: {'generated' if load.path is None else PurePath(load.path).name}, "
        f"resampled {short(setting.factors[load.model])} times"
        for load in scenario.workloads
    )
    pools = (
        f"{pool.name}: {pool.minimum} to {pool.maximum} {pool.gpu} at ${pool.price_per_hour:g} an hour"
        + (", spot" if pool.spot else "")
        for pool in setting.cluster.pools
    )
    rows = [
        ("workloads", "; ".join(workloads)),
        ("cluster", "; ".join(pools)),
        ("load", f"{scenario.load:g}"),
        ("window", f"{scenario.window_s:g} s"),
        ("objective", OBJECTIVES[scenario.objective]),
        ("built-in router", scenario.router),
        ("first plan", str(setting.plan)),
        ("seed", str(scenario.seed)),
    ]
    if evolution is not None:
        asked = f", {evolution.model_name}" if evolution.model_name else ""
        rows.append(("provider", evolution.provider + asked))
        rows.append(("budget", f"{evolution.budget:g} CPU-seconds of evolution per second of serving"))
    rows.append(("version", f"autopoiesis {__version__}, sources and libraries {fingerprint()}"))
    return table("Settings", ("setting", "value"), rows, words=2)
