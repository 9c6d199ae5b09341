"""Preparation: traces read, load scaled so that 1 is what the best fixed plan serves, the static plan chosen."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from control_configs import SMALL, TINY, small_run, write_trace

from autopoiesis.cluster import Storage
from autopoiesis.control.config import ScenarioConfig, WorkloadFile
from autopoiesis.control.plans import serve_fixed
from autopoiesis.control.prepare import Prepared, prepare, read
from autopoiesis.errors import ScenarioError, TraceError
from autopoiesis.evolve.store import Store
from autopoiesis.plan import Replica, ServingPlan
from autopoiesis.workload.normalised_csv import write_requests
from autopoiesis.workload.presets import generate

LARGE = "llama-3.1-70b"


def prepared(config: ScenarioConfig) -> Prepared:
    with Store(":memory:") as store:
        return prepare(read(config, lambda text: None), store, lambda text: None)


def test_a_fixed_plan_serves_full_load_and_not_much_more(tmp_path: Path) -> None:
    config = small_run(tmp_path).scenario
    shares = []
    for load in (0.9, 1.5):
        ready = prepared(replace(config, load=load))
        books = serve_fixed(ready.scenario, ready.plan, ready.scenario.truth)
        assert books is not None
        shares.append(books.goodput)
    assert shares[0] > 0.97
    assert shares[1] < shares[0]


def test_a_plan_for_a_load_that_goes_on_is_not_charged_for_the_last_answers(tmp_path: Path) -> None:
    scenario = prepared(small_run(tmp_path).scenario).scenario
    plan = ServingPlan((Replica(SMALL, "l40s"),) * 2)
    whole, part = (serve_fixed(scenario, plan, scenario.cost, goes_on=goes_on) for goes_on in (False, True))
    assert whole is not None
    assert part is not None
    price = sum(pool.maximum * pool.price_per_hour for pool in scenario.cluster.pools)
    assert part.cost_usd == pytest.approx(price * scenario.duration_s / 3600)
    assert part.good == whole.good


def test_the_static_plan_is_the_one_that_holds_all_day(tmp_path: Path) -> None:
    """One GPU a replica serves more, two a replica answer the last requests of a short part sooner."""
    trace = tmp_path / "chat.csv"
    write_requests(generate("conversation", 0.1, 0), str(trace))
    ready = prepared(ScenarioConfig((WorkloadFile(SMALL, str(trace)),), "demo-8"))
    assert {replica.tensor_parallel for replica in ready.plan.replicas} == {1}
    books = serve_fixed(ready.scenario, ready.plan, ready.scenario.truth)
    assert books is not None
    assert books.goodput > 0.97


def test_load_scales_the_number_of_requests_and_not_the_clock(tmp_path: Path) -> None:
    config = small_run(tmp_path).scenario
    half, whole = prepared(replace(config, load=0.5)), prepared(replace(config, load=1.0))
    assert whole.full_load == half.full_load
    assert whole.factors[SMALL] == pytest.approx(2 * half.factors[SMALL])
    # the copies are Poisson: twice n less another 2n has the variance 4n + 2n
    n = len(half.scenario.requests)
    assert len(whole.scenario.requests) == pytest.approx(2 * n, abs=4 * (6 * n) ** 0.5)
    assert whole.scenario.duration_s == pytest.approx(half.scenario.duration_s, abs=config.window_s)


def test_two_models_take_the_shares_of_the_cluster_that_they_are_given(tmp_path: Path) -> None:
    trace = write_trace(tmp_path / "trace.csv", count=60)
    both = (WorkloadFile(SMALL, trace), WorkloadFile(LARGE, trace))
    even = prepared(ScenarioConfig(both, "homogeneous-32", window_s=20.0, load=0.3))
    tilted = prepared(ScenarioConfig(both, "homogeneous-32", window_s=20.0, load=0.3, shares={SMALL: 0.25}))
    ratio = even.factors[SMALL] / even.factors[LARGE]
    assert ratio > 3  # the same share of GPUs serves far more of the smaller model
    assert tilted.factors[SMALL] / tilted.factors[LARGE] == pytest.approx(ratio / 3, rel=1e-6)


def test_starts_take_what_the_storage_of_the_cluster_file_gives(tmp_path: Path) -> None:
    path = tmp_path / "slow.toml"
    path.write_text("object_store_bandwidth = 2e9\n" + TINY.format(gpus=2) + '[pool.storage]\ndrive = "sata"\n')
    config = replace(small_run(tmp_path).scenario, cluster=str(path))
    start = read(config, lambda text: None).scenario.truth.start
    assert start.object_store_bandwidth == 2e9
    assert start.storage_of("l40s/0") == Storage("sata")


def test_everything_starts_on_capacity_that_the_static_plan_needs(tmp_path: Path) -> None:
    ready = prepared(replace(small_run(tmp_path).scenario, cluster="elastic-a100", load=0.4))
    pool = ready.capacity.pools[0]
    assert pool.pool.minimum <= pool.gpus <= pool.pool.maximum
    assert ready.plan.gpus() <= pool.gpus < ready.plan.gpus() + pool.pool.gpus_per_node or pool.gpus == 4


def test_a_prepared_scenario_is_kept_and_found_again(tmp_path: Path) -> None:
    config = small_run(tmp_path).scenario
    stages: list[str] = []
    with Store(tmp_path / "kept.db") as store:
        first = prepare(read(config, stages.append), store, stages.append)
        known = len(stages)
        again = prepare(read(config, stages.append), store, stages.append)
    assert (again.plan, again.factors, again.full_load) == (first.plan, first.factors, first.full_load)
    assert again.scenario.digest() == first.scenario.digest()
    assert not [text for text in stages[known:] if "finding" in text or "choosing" in text]


def test_an_empty_trace_is_refused_with_its_mend(tmp_path: Path) -> None:
    path = tmp_path / "empty.csv"
    path.write_text("arrival_s,input_tokens,output_tokens\n")
    with pytest.raises(TraceError, match=r"empty\.csv|no request"):
        prepared(ScenarioConfig((WorkloadFile(SMALL, str(path)),), "demo-8"))


def test_a_model_that_fits_on_no_gpu_is_refused(tmp_path: Path) -> None:
    trace = write_trace(tmp_path / "trace.csv", count=20)
    with pytest.raises(ScenarioError, match="fits on no GPU"):
        prepared(ScenarioConfig((WorkloadFile("llama-3.1-405b", trace),), "demo-8"))


def test_unknown_names_are_answered_with_near_ones(tmp_path: Path) -> None:
    trace = write_trace(tmp_path / "trace.csv", count=20)
    with pytest.raises(ScenarioError, match=r"homogeneous-32"):
        prepared(ScenarioConfig((WorkloadFile(SMALL, trace),), "homogenous-32"))
    with pytest.raises(ScenarioError, match=r"llama-3\.1-8b"):
        prepared(ScenarioConfig((WorkloadFile("llama-31-8b", trace),), "demo-8"))


def test_an_slo_that_nothing_meets_is_refused(tmp_path: Path) -> None:
    from autopoiesis.workload import SLO

    config = small_run(tmp_path).scenario
    with pytest.raises(ScenarioError, match="within its SLO"):
        prepared(replace(config, slos={SMALL: SLO(ttft_s=1e-6, ttft_s_per_input_token=0.0, tpot_s=1e-6)}))
