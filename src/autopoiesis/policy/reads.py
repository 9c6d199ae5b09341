"""Which fields of a replica a policy's `route` reads: what nobody reads need not be computed for it."""

from __future__ import annotations

import ast

from autopoiesis.policy.fields import REPLICA_FIELDS
from autopoiesis.policy.grammar import function_of
from autopoiesis.policy.nodes import walk
from autopoiesis.policy.refusal import Refusal, refused
from autopoiesis.policy.source import parse_policy


def replica_fields_read(text: str) -> frozenset[str]:
    """Those of REPLICA_FIELDS that the `route` of a policy module reads; none if it has no `route`.

    The text has passed the grammar, in which a field is read by its name alone. Raises PolicyError if it does not
    parse.
    """
    tree = parse_policy(text)
    if isinstance(tree, Refusal):
        raise refused("the policy module", [tree])
    route = function_of(tree, "route")
    if route is None:
        return frozenset()
    return frozenset(node.attr for node in walk(route) if isinstance(node, ast.Attribute)).intersection(REPLICA_FIELDS)
