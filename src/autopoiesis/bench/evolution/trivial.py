"""The evaluator that costs next to nothing: what a policy's planner puts into its memory under `score`.

What is left is what evolution costs by itself: a locked process for each candidate, in which it is parsed, checked and
run; the ways to it and back; and the book-keeping.
"""

from __future__ import annotations

import math

import msgspec

from autopoiesis.bench.evolution.trial import Trial
from autopoiesis.errors import PolicyError
from autopoiesis.plan import Envelope, Replica, ServingPlan
from autopoiesis.policy.admission import admit
from autopoiesis.policy.host import PolicyHost
from autopoiesis.policy.host_template import HostTemplate
from autopoiesis.policy.interface import Estimate, Estimator, Observation, Transition
from autopoiesis.policy.limits import Limits

PLAN = ServingPlan((Replica("m", "g"),))
OBSERVATION = Observation(
    now_s=60.0,
    window_s=60.0,
    objective="goodput",
    window=None,
    recent=(),
    models=("m",),
    slos={},
    pools=(),
    announced=(),
    shapes=PLAN.replicas,
    plan=PLAN,
    replicas=(),
    moving=None,
    past_transitions=(),
    envelope=Envelope(),
    memory={},
)


class NothingKnown:
    """An estimator of a world without measurements."""

    def __init__(self, belief: bytes) -> None:
        pass

    def estimate(self, observation: Observation, plan: ServingPlan) -> Estimate:
        raise PolicyError("nothing is known of this world")

    def transition(self, observation: Observation, plan: ServingPlan) -> Transition:
        raise PolicyError("nothing is known of this world")

    def throughput(self, observation: Observation, replica: Replica) -> dict[str, float]:
        return {}


def nothing_known(belief: bytes) -> Estimator:
    return NothingKnown(belief)


class TrivialEvaluator:
    """Checks a candidate and asks its planner once, both in one locked process that serves nobody else."""

    def __init__(self, limits: Limits | None = None) -> None:
        self._template = HostTemplate(f"{__name__}:nothing_known", limits=limits)

    def evaluate(self, job: bytes, context: bytes | None) -> bytes:
        trial = msgspec.msgpack.decode(job, type=Trial)
        with PolicyHost(self._template, trial.text, trial.deadline_s) as host:
            self.admit(host)
            planned = host.plan(OBSERVATION, b"")
        if planned.value is None:
            raise PolicyError(f"the planner failed: {planned.failure}")
        score = (planned.value.memory or {}).get("score")
        if not isinstance(score, int | float) or not math.isfinite(score):
            raise PolicyError("the planner's memory holds no number under 'score'")
        return msgspec.msgpack.encode(float(score))

    def admit(self, host: PolicyHost) -> None:
        """Raises PolicyError for a candidate that the checker refuses."""
        admit(host, "candidate")

    def close(self) -> None:
        self._template.close()
