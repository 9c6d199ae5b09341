"""How the gateway's balancer divides a flow of requests: to whoever has fewest in flight for its weight.

A request goes to the replica with the least (in flight + 1) / weight, where the weight is the plan's share of its class
or, where the plan gives none, the replica's speed. Many requests therefore level this quotient like water poured into
vessels. While a step of time passes requests also leave, so a replica that answers fast takes more than its vessel
holds: at r requests/s it has b + r·f in flight at the end, b of those it has now and f ≤ the step the seconds that a
newcomer stays within it.
"""

from __future__ import annotations

from autopoiesis.simulate.fluid_replica import COUNT, Array
from autopoiesis.simulate.jit import compiled

WHOLE = 1.0
"""Requests by which the count in flight, a whole number that jumps, strays from its mean."""


@compiled
def pour(rate: float, weights: Array, staying: Array, stay_s: Array, counts: Array, rates: Array, order: Array) -> bool:
    """Fill (g,) `rates`, requests/s of one replica of each group; False if none has a weight above 0.

    `staying` of one replica are still in flight at the end, `stay_s` is f; `counts` are replicas, `order` is scratch.
    """
    size = 0
    rates[:] = 0.0
    for g in range(len(weights)):
        if weights[g] > 0.0 and counts[g] > 0.0:
            level = (staying[g] + 1.0) / weights[g]
            i = size
            while i > 0 and order[i - 1, 0] > level:
                order[i] = order[i - 1]
                i -= 1
            order[i, 0] = level
            order[i, 1] = g
            size += 1
    if size == 0:
        return False
    # the level up to which the first k vessels are filled together
    width = volume = level = 0.0
    for k in range(size):
        g = int(order[k, 1])
        per = counts[g] / stay_s[g]
        width += per * weights[g]
        volume += per * (staying[g] + 1.0)
        level = (rate + volume) / width
        if k + 1 == size or level <= order[k + 1, 0]:
            break
    # whole requests blur the rim; the sum is convex in the level, so Newton's steps come down to it from here
    for _ in range(20):
        found = slope = 0.0
        for k in range(size):
            g = int(order[k, 1])
            above = level * weights[g] - staying[g] - 1.0
            per = counts[g] / stay_s[g]
            if above >= WHOLE:
                found += per * above
                slope += per * weights[g]
            elif above > -WHOLE:
                found += per * (above + WHOLE) ** 2 / (4.0 * WHOLE)
                slope += per * weights[g] * (above + WHOLE) / (2.0 * WHOLE)
        if found <= rate * (1.0 + 1e-6) or slope <= 0.0:
            break
        level -= (found - rate) / slope
    total = 0.0
    for g in range(len(weights)):
        if weights[g] > 0.0 and counts[g] > 0.0:
            above = level * weights[g] - staying[g] - 1.0
            if above >= WHOLE:
                rates[g] = above / stay_s[g]
            elif above > -WHOLE:
                rates[g] = (above + WHOLE) ** 2 / (4.0 * WHOLE) / stay_s[g]
            total += rates[g] * counts[g]
    if total > 0.0:
        rates *= rate / total
    return True


@compiled
def route(
    arriving: Array, weights: Array, groups: Array, staying: Array, stay_s: Array, flows: Array, rates: Array,
    order: Array,
) -> None:  # fmt: skip
    """Update (c, g) `flows` of one replica for (c,) requests/s `arriving` of classes with (c, g) `weights`.

    Classes of equal weights are poured as one. Unlike ones are poured in turn onto what the others take, which is at
    first what they took in the step of time before: over some steps they come to one level.
    """
    count = len(arriving)
    first = -1
    alike = True
    total = 0.0
    for c in range(count):
        if arriving[c] <= 0.0:
            flows[c] = 0.0
            continue
        total += arriving[c]
        if first < 0:
            first = c
        for g in range(len(groups)):
            alike = alike and weights[c, g] == weights[first, g]
    if first < 0:
        return
    if alike:
        pour(total, weights[first], staying, stay_s, groups[:, COUNT], rates, order)
        for c in range(count):
            if arriving[c] > 0.0:
                for g in range(len(groups)):
                    flows[c, g] = rates[g] * arriving[c] / total
        return
    level = staying.copy()
    for c in range(count):
        for g in range(len(groups)):
            level[g] += flows[c, g] * stay_s[g]
    for c in range(count):
        if arriving[c] > 0.0:
            for g in range(len(groups)):
                level[g] = max(level[g] - flows[c, g] * stay_s[g], staying[g])
            pour(arriving[c], weights[c], level, stay_s, groups[:, COUNT], rates, order)
            for g in range(len(groups)):
                flows[c, g] = rates[g]
                level[g] += rates[g] * stay_s[g]
