"""What planners build with.

Every function takes the `ServingState` it shall plan for. Planners plan for the load that `expected(state)` makes of
its windows; give them the answer of `expected` with other parameters to plan for another one. `wanted` is GPUs by
pool, for planning with capacity that is yet to be asked for (`Decision.capacity`). Nothing here is random and nothing
depends on time, so equal states give equal plans.
"""

from autopoiesis.policy.tools.capacity import (
    capacity_for,
    fits,
    gpus,
    granted,
    hold,
    minimum_replicas,
    reach,
    target,
)
from autopoiesis.policy.tools.flow import assign
from autopoiesis.policy.tools.greedy import greedy
from autopoiesis.policy.tools.load import demand, expected
from autopoiesis.policy.tools.local_search import local_search, moves
from autopoiesis.policy.tools.milp import milp
from autopoiesis.policy.tools.score import score
from autopoiesis.policy.tools.shapes import capacity, multiples, rate, rates, shapes
from autopoiesis.policy.tools.units import choices, in_turns, rationed, served, sized, units

__all__ = [
    "assign",
    "capacity",
    "capacity_for",
    "choices",
    "demand",
    "expected",
    "fits",
    "gpus",
    "granted",
    "greedy",
    "hold",
    "in_turns",
    "local_search",
    "milp",
    "minimum_replicas",
    "moves",
    "multiples",
    "rate",
    "rates",
    "rationed",
    "reach",
    "score",
    "served",
    "shapes",
    "sized",
    "target",
    "units",
]
