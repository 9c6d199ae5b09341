"""Human policies, in the same interface as those that models write: baselines to beat, and seeds to start from.

They are read as text and never imported, so that they go through the same gates as any other policy.
"""

from __future__ import annotations

from importlib.resources import files

from autopoiesis.errors import PolicyError, unknown_name
from autopoiesis.policy.source import PolicySource

STARTERS = ("amortised", "greedy-replan", "milp-replan", "round-robin", "scale-to-load", "static", "threshold")
"""One of each idea: what a run is compared with and evolution starts from. The benchmark measures all of them."""


def library() -> dict[str, PolicySource]:
    """Every human policy by name: the file's, with dashes, such as `milp-replan`."""
    entries = sorted(files(__name__).iterdir(), key=lambda entry: entry.name)
    names = [entry.name for entry in entries if entry.name.endswith(".py") and entry.name != "__init__.py"]
    policies = {}
    for file_name in names:
        name = file_name.removesuffix(".py").replace("_", "-")
        policies[name] = PolicySource(name, (files(__name__) / file_name).read_text(encoding="utf-8"))
    return policies


def starters() -> dict[str, PolicySource]:
    """The policies of `STARTERS` by name."""
    return {name: policy(name) for name in STARTERS}


def policy(name: str) -> PolicySource:
    """One human policy by name; a PolicyError names those there are."""
    policies = library()
    if name not in policies:
        raise PolicyError(unknown_name("policy", name, policies))
    return policies[name]
