"""The prediction of a load: the simulator's answer for the very requests that were sent."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from streaming_server import Server, streaming_server

from autopoiesis.bench.load import Endpoint, Fleet, Kind, Result, Settings, figures, predict, send
from autopoiesis.bench.load.outcomes import as_sent
from autopoiesis.bench.load.prediction import predict_load
from autopoiesis.cluster import Hardware, catalog
from autopoiesis.cost import CostModel
from autopoiesis.plan import Replica
from autopoiesis.simulate.layout import SECOND
from autopoiesis.simulate.simulation import Simulation
from autopoiesis.workload import SLO, Requests
from autopoiesis.workload.requests import single_requests

MODEL = "llama-3.1-8b"
REPLICA = Replica(MODEL, "h100", max_sequences=4)
COST = CostModel(Hardware(catalog.gpus(), catalog.models()))
FLEET = Fleet((REPLICA, REPLICA), COST, router="least-outstanding")


def singles(count: int, gap_s: float = 0.0) -> Requests:
    return single_requests(gap_s * np.arange(count, dtype=np.float64), 50 * np.arange(1, count + 1), np.full(count, 20))


def conversation(count: int) -> Requests:
    prompts = 64 * np.arange(1, count + 1)
    prefix = np.concatenate([[0], prompts[:-1] + 3])
    columns = single_requests(np.zeros(count), prompts, np.full(count, 3))
    return replace(
        columns,
        prefix_tokens=prefix,
        previous=np.arange(-1, count - 1),
        think_s=np.where(np.arange(count) > 0, 0.01, 0.0),
    )


def sent(server: Server, requests: Requests, settings: Settings | None = None, kind: Kind = Kind.COMPLETIONS) -> Result:
    with streaming_server(server):
        return send(Endpoint(server.url, "m", kind), requests, settings or Settings())


def simulated(requests: Requests, closed_loop: bool = True) -> Simulation:
    simulation = Simulation(
        requests, (MODEL,), {MODEL: SLO()}, COST, seed=0, router=FLEET.router, closed_loop=closed_loop
    )
    for replica in FLEET.replicas:
        simulation.start(replica, 1.0, 0.0, 0)
    simulation.advance(float("inf"))
    return simulation


def test_a_prediction_is_what_the_simulator_says_when_it_is_asked_directly() -> None:
    requests = singles(12, gap_s=0.01)
    records = simulated(requests).state.requests
    predicted = predict(FLEET, requests, closed_loop=True)
    assert np.array_equal(predicted.ttft_s, records["first"] / SECOND - records["arrival"] / SECOND)
    assert np.array_equal(predicted.e2e_s, records["done"] / SECOND - records["arrival"] / SECOND)
    assert predicted.completed.all()


def test_the_figures_of_a_load_hold_that_prediction() -> None:
    result = sent(Server(), singles(6))
    told = result.predicted(SLO(), FLEET)
    alone = predict(FLEET, result.requests, closed_loop=True)
    assert told == figures(alone, SLO(), alone.completed)


def test_lengths_are_those_that_the_engine_counted() -> None:
    result = sent(Server(), singles(3), kind=Kind.CHAT)
    requests = as_sent(result.requests, result.came)
    assert requests.input_tokens.tolist() == result.came.prompt_tokens.tolist() != [50, 100, 150]


def test_requests_of_a_conversation_share_what_their_prompts_did() -> None:
    result = sent(Server(token_s=0.0), conversation(3))
    assert as_sent(result.requests, result.came).prefix_tokens.tolist() == [0, 64, 128]


def test_a_failed_request_is_predicted_as_planned_and_its_latency_is_compared_with_none() -> None:
    result = sent(Server(faults={1: "status 500"}), singles(3), Settings(concurrency_limit=1))
    assert as_sent(result.requests, result.came).output_tokens.tolist() == [20, 20, 20]
    told = result.predicted(SLO(), FLEET)
    assert (told.requests, told.completed, result.measured(SLO()).completed) == (3, 3, 2)
    served = predict_load(FLEET, result.requests, result.came, closed_loop=True, limited=True)
    assert told.e2e_s.p99 == max(served.e2e_s[[0, 2]])


def test_where_the_client_limits_itself_requests_arrive_as_they_were_sent() -> None:
    result = sent(Server(), singles(5), Settings(concurrency_limit=1))
    served = predict_load(FLEET, result.requests, result.came, closed_loop=True, limited=True)
    assert served.sent_s == pytest.approx(result.came.served.sent_s, abs=1e-3)


def test_the_order_of_sending_may_be_another_than_that_of_the_workload() -> None:
    # row 1, of a conversation, is sent after row 2
    singles_too = single_requests(np.array([0.0, 0.0, 0.05]), np.array([32, 64, 32]), np.full(3, 3))
    requests = replace(singles_too, previous=np.array([-1, 0, -1]), think_s=np.array([0.0, 0.2, 0.0]))
    result = sent(Server(token_s=0.0), requests, Settings(concurrency_limit=2))
    served = predict_load(FLEET, result.requests, result.came, closed_loop=True, limited=True)
    assert served.sent_s[1] > served.sent_s[2]
    assert served.input_tokens.tolist() == [32, 64, 32]


def test_engines_twice_as_fast_answer_in_half_the_time() -> None:
    requests = singles(1)
    once = predict(FLEET, requests, closed_loop=True)
    twice = predict(replace(FLEET, speed=2.0), requests, closed_loop=True)
    assert twice.e2e_s == pytest.approx(once.e2e_s / 2, rel=1e-6)


def test_figures_count_as_good_what_is_within_the_slo() -> None:
    served = predict(FLEET, singles(4), closed_loop=True)
    tight = SLO(ttft_s=float(np.sort(served.ttft_s)[1]), ttft_s_per_input_token=0.0)
    told = figures(served, tight, served.completed)
    assert (told.good, told.goodput) == (2, 0.5)
    assert figures(served, SLO(tpot_s=1e-9), served.completed).good == 0


def test_of_a_load_without_an_answer_the_figures_are_zero() -> None:
    result = sent(Server(faults={0: "status 500"}), singles(1))
    measured = result.measured(SLO())
    assert (measured.requests, measured.completed, measured.goodput, measured.output_tokens_per_s) == (1, 0, 0.0, 0.0)
    assert result.predicted(SLO(), FLEET).completed == 1
