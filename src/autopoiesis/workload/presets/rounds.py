"""Sessions are drawn round by round: first the first call of every session, then the second of those that go on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from autopoiesis.workload.presets.lengths import Integers


def previous_calls(rounds: Sequence[Integers]) -> Integers:
    """(all calls,) where the rounds, laid one after the other, have the call before in the same session; -1 in the
    first. Each round lists the numbers of the sessions that have a call in it."""
    row = np.full(max(int(sessions.max(initial=-1)) for sessions in rounds) + 1, -1, dtype=np.int64)
    previous, above = [], 0
    for sessions in rounds:
        previous.append(row[sessions])
        row[sessions] = above + np.arange(len(sessions))
        above += len(sessions)
    return np.concatenate(previous)
