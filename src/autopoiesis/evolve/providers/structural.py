"""Structural synthesis as a provider: it answers the way a model would, in a fenced block."""

from __future__ import annotations

import ast
import random

from autopoiesis.errors import PolicyError, ProviderError
from autopoiesis.evolve.providers.base import Completion, CompletionRequest
from autopoiesis.evolve.structural import synthesise

SECONDS_PER_NODE = 7e-6
"""Calibrated: CPU time of a synthesis divided by the syntax nodes of its parents and its result."""


class StructuralProvider:
    """Recombines the request's parents with the request's seed; needs no model, key or network."""

    name = "structural"

    def complete(self, request: CompletionRequest) -> Completion:
        try:
            text = synthesise(request.parents, random.Random(request.seed))
        except PolicyError as error:
            raise ProviderError(f"structural synthesis failed: {error}") from error
        sources = [text, *(parent.text for parent in request.parents)]
        nodes = sum(1 for source in sources for _ in ast.walk(ast.parse(source)))
        return Completion(f"```python\n{text}```\n", 0, 0, nodes * SECONDS_PER_NODE, metered=True)
