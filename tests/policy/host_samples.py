"""What the tests of the policy host ask of policies, and how a policy gets out of Python."""

from __future__ import annotations

import msgspec

from autopoiesis.plan import Envelope, Replica, ServingPlan
from autopoiesis.policy.interface import Observation

BELIEF = msgspec.msgpack.encode(0.5)
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
    memory={"seen": [1, 2]},
)
# How code gets out of restricted builtins: any Python class of any module leads to that module's globals.
ESCAPE = """
wrap = [c for c in ().__class__.__base__.__subclasses__() if c.__name__ == "_wrap_close"][0]
os = wrap.__init__.__globals__["sys"].modules["os"]
sys = os.sys
"""
