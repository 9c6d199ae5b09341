"""The errors a user can meet, as one small tree.

Every message names the file, line or field at fault and the way to mend it. The command line prints the
message alone and exits with code 2; a traceback is therefore always a defect of ours.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class AutopoiesisError(Exception):
    """Anything a user can mend; the message says where and how."""


class TraceError(AutopoiesisError):
    """A workload or capacity file cannot be read."""


class ScenarioError(AutopoiesisError):
    """A cluster, model, SLO, envelope or command-line value cannot be used."""


class ConfigError(AutopoiesisError):
    """A gateway's configuration cannot be used; one line for each thing to mend."""


class ReplicaError(AutopoiesisError):
    """A replica does not answer, or what it answers cannot be used."""


class PlanError(AutopoiesisError):
    """A serving plan cannot be carried out on the cluster, or breaks the operator's envelope."""


class PolicyError(AutopoiesisError):
    """A policy's source is refused, or the policy failed while it ran."""


class WallError(PolicyError):
    """No process can be had in which a policy could be locked: the system's fault, and no policy's."""


class ProviderError(AutopoiesisError):
    """A provider of completions failed; the run goes on without this completion."""


class StoreError(AutopoiesisError):
    """The store cannot be opened, read or written."""


class EvaluationError(AutopoiesisError):
    """The processes that evaluate candidates cannot be started or used."""


def unknown_name(kind: str, name: str, known: Iterable[str]) -> str:
    """A sentence for a name nobody knows, with the near matches or, failing these, all the names there are."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    if near:
        return f"unknown {kind} {name!r}; did you mean {' or '.join(near)}?"
    return f"unknown {kind} {name!r}; there are: {', '.join(names)}"
