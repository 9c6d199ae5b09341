"""What the tests of the policy host ask of policies, and how a policy gets out of Python."""

from __future__ import annotations

from dataclasses import replace

import msgspec

from autopoiesis.bench.evolution import trivial

BELIEF = msgspec.msgpack.encode(0.5)
PLAN = trivial.PLAN
OBSERVATION = replace(trivial.OBSERVATION, memory={"seen": [1, 2]})
# How code gets out of restricted builtins: any Python class of any module leads to that module's globals.
ESCAPE = """
wrap = [c for c in ().__class__.__base__.__subclasses__() if c.__name__ == "_wrap_close"][0]
os = wrap.__init__.__globals__["sys"].modules["os"]
sys = os.sys
"""
