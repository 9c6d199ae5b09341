"""What a store does without once it has grown beyond its limit, and in which order.

Runs go whole, those that have finished before those that have not and those used longest ago before the others. Then
the current run's prompts lose their words, oldest first: a resumed run is held to their digests, and reads no prompt.
Nothing else of the current run goes, so that a run which is larger than the limit by itself stays so, and goes on.

Kept whatever the limit: who ever took over (swaps, these policies and their ancestors), human policies, prepared
scenarios (some hundred bytes each), and what belongs to no run, as the measurements of `autopoiesis bench`.
"""

from __future__ import annotations

from autopoiesis.evolve.store import Store

LIMIT_BYTES = 1 << 30
"""Of a store unless told otherwise."""
TARGET = 0.9
"""Part of the limit that a trimmed store may use, so that trimming is seldom."""
PROMPTS = 64
"""Prompts that are dropped at a time."""


def trim(store: Store, limit_bytes: int, current: str) -> bool:
    """Bring the store below its limit as far as may be; whether anything was dropped. `current` is the run's key."""
    if store.used_bytes() <= limit_bytes:
        return False
    target = TARGET * limit_bytes
    others = [run for run in store.runs() if run.key != current]
    store.drop_ownerless_scores()
    dropped = False
    for run in sorted(others, key=lambda run: (not run.finished, run.used, run.key)):
        if store.used_bytes() <= target:
            break
        store.drop_run(run.key)
        dropped = True
    if dropped:
        store.drop_policies(_ancestry(store))
    while store.used_bytes() > target and store.drop_prompts(PROMPTS):
        dropped = True
    if dropped:
        store.shrink()
    return dropped


def _ancestry(store: Store) -> set[str]:
    """Everybody who took over or gave way, and everybody they were made from."""
    parents = {record.id: record.parents for record in store.policies()}
    wanted = {id for swap in store.all_swaps() for id in (swap.policy, swap.parent) if id is not None}
    found: set[str] = set()
    while wanted:
        found |= wanted
        wanted = {parent for id in wanted for parent in parents.get(id, ())} - found
    return found
