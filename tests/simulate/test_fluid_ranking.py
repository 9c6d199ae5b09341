"""The fluid model orders random plans as the event kernel does, and the comparison itself is honest."""

from __future__ import annotations

import math

import numpy as np
import pytest

from autopoiesis.bench.random_plans import random_plans
from autopoiesis.bench.rank_scenes import SCENES, Scene, alone
from autopoiesis.bench.ranking import Ranked, rank_plans, spearman, without_ties
from autopoiesis.errors import ScenarioError
from autopoiesis.plan import Capacity, Role, ServingPlan, check_plan

SECONDS, PLANS, SEED = 120.0, 60, 11


@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.name)
def test_fluid_and_event_models_rank_random_plans_alike(scene: Scene) -> None:
    scenario = scene.make(SECONDS, SEED)
    ranking = rank_plans(scenario, random_plans(scenario, np.random.default_rng(SEED), PLANS))
    assert len(ranking.kept) >= PLANS // 3
    assert ranking.correlation >= 0.9


@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.name)
def test_random_plans_are_valid_and_different(scene: Scene) -> None:
    scenario = scene.make(SECONDS, SEED)
    plans = random_plans(scenario, np.random.default_rng(SEED), 100)
    assert len(set(plans)) == 100
    for plan in plans:
        check_plan(plan, Capacity.at_maximum(scenario.cluster), scenario.envelope, scenario.models, scenario.shapes)
    assert any(plan.shares for plan in plans)
    assert any(replica.role is Role.PREFILL for plan in plans for replica in plan.replicas)
    assert len({len(plan.replicas) for plan in plans}) >= 4


def test_a_cluster_too_small_for_so_many_plans_says_so() -> None:
    scenario = alone(1, 1.0)(60.0, 0)
    with pytest.raises(ScenarioError, match="fewer than 500 different plans"):
        random_plans(scenario, np.random.default_rng(0), 500)


def ranked(price: float, good: float, event: float = 1.0, fluid: float = 1.0) -> Ranked:
    return Ranked(ServingPlan(()), price, good, event, good, fluid, fluid)


def test_of_saturated_plans_of_one_price_the_first_stays() -> None:
    plans = [
        ranked(1.0, 0.995),
        ranked(1.0, 0.5),
        ranked(1.0, 1.0),
        ranked(2.0, 1.0),
        ranked(1.0, 0.0),
        ranked(1.0, 0.01),
    ]
    assert without_ties(plans) == (plans[0], plans[1], plans[3], plans[4])


def test_equal_values_share_their_ranks() -> None:
    assert spearman([1, 2, 3, 4], [10, 20, 30, 40]) == pytest.approx(1.0)
    assert spearman([1, 2, 3, math.inf], [9, 5, 2, 1]) == pytest.approx(-1.0)
    # ranks 1, 2½, 2½, 4 and 1, 2, 3, 4
    assert spearman([1, 2, 2, 3], [1, 2, 3, 4]) == pytest.approx(4.5 / math.sqrt(4.5 * 5.0))
    assert math.isnan(spearman([1, 1], [1, 2]))
