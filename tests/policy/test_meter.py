from __future__ import annotations

from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autopoiesis.errors import PolicyError
from autopoiesis.plan import Replica, ServingPlan
from autopoiesis.policy.interface import Estimate, Observation, Transition
from autopoiesis.policy.meter import SECONDS_PER, Charge, Meter, MeteredEstimator, SolverMeter

counts = st.integers(min_value=0, max_value=10**9)
charges = st.builds(Charge, counts, counts, counts, counts, counts)
observation = cast(Observation, None)
plan = ServingPlan(())


class Fixed:
    def estimate(self, observation: Observation, plan: ServingPlan) -> Estimate:
        return Estimate(True, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0)

    def transition(self, observation: Observation, plan: ServingPlan) -> Transition:
        return Transition(1.0, 1.0, 1.0)

    def throughput(self, observation: Observation, replica: Replica) -> dict[str, float]:
        return {"chat": 2.0}


@given(charges, charges)
def test_the_seconds_of_two_calls_are_the_seconds_of_their_sum(a: Charge, b: Charge) -> None:
    assert (a + b).seconds == pytest.approx(a.seconds + b.seconds)


@pytest.mark.parametrize("counter", SECONDS_PER)
def test_every_counter_costs_its_constant(counter: str) -> None:
    assert Charge(**{counter: 1000}).seconds == pytest.approx(1000 * SECONDS_PER[counter])


@pytest.mark.parametrize("counter", SECONDS_PER)
def test_a_charge_cannot_be_negative(counter: str) -> None:
    with pytest.raises(PolicyError, match=counter):
        Charge(**{counter: -1})


def test_every_question_to_the_estimator_counts_as_an_evaluation() -> None:
    meter = Meter()
    estimator = MeteredEstimator(Fixed(), meter)
    assert estimator.estimate(observation, plan).feasible
    assert estimator.transition(observation, plan).seconds == 1.0
    assert estimator.throughput(observation, Replica("m", "g")) == {"chat": 2.0}
    assert meter.read() == Charge(evaluations=3)


def test_tools_report_their_solver_through_the_estimator_they_are_given() -> None:
    meter = Meter()
    estimator: object = MeteredEstimator(Fixed(), meter)
    assert isinstance(estimator, SolverMeter)
    estimator.charge_solver(3, 70)
    estimator.charge_solver(1, 5)
    assert meter.read() == Charge(solver_nodes=4, solver_iterations=75)


def test_a_bare_estimator_is_no_solver_meter() -> None:
    assert not isinstance(Fixed(), SolverMeter)


def test_a_solver_cannot_hand_work_back() -> None:
    with pytest.raises(PolicyError, match="-1 nodes"):
        MeteredEstimator(Fixed(), Meter()).charge_solver(-1, 0)
