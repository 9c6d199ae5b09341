"""One replica's engine: continuous batching as vLLM's scheduler does it.

A step decodes one token of every running sequence and fills what is left of the token budget with prefill chunks.
Requests are admitted in order while sequences, budget and KV cache allow. When the cache is full the sequence
admitted last is preempted and recomputed later. While the batch stays as it is, steps collapse into one *run*.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from autopoiesis.simulate.jit import compiled, inlined
from autopoiesis.simulate.layout import (
    BLOCK_TOKENS,
    EXACT,
    FINISHED,
    LOST_KV,
    NEVER,
    NOISE_BITS,
    PENDING,
    PREFILL,
    UNFINISHED,
    State,
)
from autopoiesis.simulate.queues import heap_push, heap_remove, pop, push

COMPLETED, LOST = 1, 2
TRANSFER_BASE = 50_000_000
"""Picoseconds before a KV transfer moves its first byte."""


@inlined
def hash64(x: int) -> int:
    """SplitMix64: a well-mixed word from a counter."""
    z = np.uint64(x) + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


@inlined
def noise_factor(replica: Any) -> int:
    """The factor of this batch's steps, drawn once per change of the batch: 1 + noise · N(0, 1), from four uniforms."""
    if replica.noise == 0:
        return 1 << NOISE_BITS
    word = hash64(np.uint64(replica.seed) ^ hash64(np.uint64(replica.epoch)))
    total = np.int64(word & np.uint64(0xFFFF)) + np.int64((word >> np.uint64(16)) & np.uint64(0xFFFF))
    total += np.int64((word >> np.uint64(32)) & np.uint64(0xFFFF)) + np.int64(word >> np.uint64(48))
    # four uniforms on [0, 2^16) have mean 2^17 and standard deviation 2^16 / sqrt(3)
    deviation = (total - 131072) * replica.noise * 1774 // (65536 * 1024)
    return max(np.int64(1 << NOISE_BITS) + deviation, np.int64(1 << (NOISE_BITS - 2)))


@inlined
def run_time(replica: Any, steps: int) -> int:
    """Duration of the first `steps` steps of the run under way."""
    context = replica.contexts * steps + replica.decoding * (steps * (steps - 1) // 2)
    return steps * replica.a + replica.b * context


@compiled
def steps_by(replica: Any, t: int) -> int:
    """How many steps of the run under way have ended by time `t` (at most all of them)."""
    elapsed = t - replica.began
    if t >= replica.ends:
        return replica.steps
    if elapsed <= 0 or replica.steps <= 1:
        return 0
    # solve b·n/2·k² + (a + b·contexts − b·n/2)·k = elapsed in floats, then correct in integers
    half = 0.5 * replica.b * replica.decoding
    linear = replica.a + float(replica.b) * replica.contexts - half
    if half > 0:
        guess = np.int64((np.sqrt(linear * linear + 4.0 * half * elapsed) - linear) / (2.0 * half))
    else:
        guess = np.int64(elapsed / linear)
    steps = min(max(guess, np.int64(0)), replica.steps - 1)
    while steps > 0 and run_time(replica, steps) > elapsed:
        steps -= 1
    while steps + 1 < replica.steps and run_time(replica, steps + 1) <= elapsed:
        steps += 1
    return steps


@compiled
def end_request(state: State, row: int, t: int, status: int, reason: int) -> None:
    """The request is over; the next call of its session arrives after the think time."""
    request = state.requests[row]
    request.status = status
    request.reason = reason
    request.done = t
    scalars = state.scalars
    state.finished[scalars[FINISHED]] = row
    scalars[FINISHED] += 1
    scalars[UNFINISHED] -= 1
    following = request.next
    if following >= 0:
        arrival = t + state.requests[following].think
        heap_push(state.pending_time, state.pending_row, scalars[PENDING], arrival, following)
        scalars[PENDING] += 1


@inlined
def leave(state: State, slot: int, row: int) -> None:
    """Our own books: the request is no longer in flight at this replica."""
    replica = state.replicas[slot]
    request = state.requests[row]
    replica.in_flight -= 1
    replica.in_flight_tokens -= request.input
    state.changed[replica.model] = 1


@inlined
def complete(state: State, slot: int, row: int, t: int) -> None:
    replica = state.replicas[slot]
    state.requests[row].cache_mark = replica.allocated
    leave(state, slot, row)
    end_request(state, row, t, COMPLETED, 0)


@compiled
def cached_tokens(state: State, slot: int, row: int) -> int:
    """Prompt tokens that lie in this replica's prefix cache.

    The call before it in the session left them there, and they are gone once everything allocated since then has
    needed the room: least recently used blocks go first.
    """
    request = state.requests[row]
    if request.prefix <= 0 or request.previous < 0:
        return 0
    before = state.requests[request.previous]
    replica = state.replicas[slot]
    if before.status != COMPLETED or before.slot != slot or before.generation != replica.generation:
        return 0
    if replica.allocated - before.cache_mark > replica.kv_tokens - replica.kv_used:
        return 0
    return min(np.int64(request.prefix), np.int64(request.input) - 1) // BLOCK_TOKENS * BLOCK_TOKENS


@compiled
def join(state: State, slot: int, row: int) -> None:
    """The sequence starts to decode; `generated` tokens exist and the last of them has no KV entry yet."""
    replica = state.replicas[slot]
    request = state.requests[row]
    request.finish = replica.decode_step + request.output - request.generated
    heap_push(state.heap_key[slot], state.heap_row[slot], replica.decoding, request.finish, row)
    replica.decoding += 1
    replica.contexts += request.input + request.generated


@compiled
def admit(state: State, slot: int) -> bool:
    """Take waiting requests in order while sequences, budget and KV cache allow; whether any was taken."""
    replica = state.replicas[slot]
    budget = replica.batched_tokens - replica.decoding
    for i in range(replica.prefilling):
        budget -= state.requests[state.prefills[slot, i]].left
    taken = False
    while replica.queue >= 0 and replica.decoding + replica.prefilling < replica.max_sequences and budget > 0:
        row = replica.queue
        request = state.requests[row]
        tokens = np.int64(request.input) + request.generated
        if request.phase == 1:
            tokens -= 1
        if replica.kv_used + tokens + replica.decoding > replica.kv_tokens:
            break
        replica.queue = pop(state.requests, state.links, row)
        replica.waiting -= 1
        replica.admissions += 1
        request.admitted = replica.admissions
        taken = True
        if request.phase == 1:
            replica.kv_used += tokens
            replica.allocated += tokens
            request.phase = 0
            join(state, slot, row)
            budget -= 1
        else:
            cached = cached_tokens(state, slot, row) if request.generated == 0 else np.int64(0)
            replica.kv_used += tokens
            replica.allocated += tokens - cached
            request.position = cached
            request.left = tokens - cached
            state.prefills[slot, replica.prefilling] = row
            replica.prefilling += 1
            budget -= request.left
    return taken


@compiled
def preempt_newest(state: State, slot: int, t: int) -> None:
    """Free the KV cache of the sequence admitted last; it waits and is recomputed. One that is alone is lost."""
    replica = state.replicas[slot]
    rows = state.heap_row[slot]
    newest = 0
    for i in range(1, replica.decoding):
        if state.requests[rows[i]].admitted > state.requests[rows[newest]].admitted:
            newest = i
    row = rows[newest]
    request = state.requests[row]
    heap_remove(state.heap_key[slot], rows, replica.decoding, newest)
    request.generated = request.output - np.int32(request.finish - replica.decode_step)
    replica.contexts -= request.input + request.generated
    replica.kv_used -= request.input + request.generated - 1
    replica.decoding -= 1
    if replica.decoding == 0 and replica.prefilling == 0:
        leave(state, slot, row)
        end_request(state, row, t, LOST, LOST_KV)
    else:
        replica.preemptions += 1
        replica.queue = push(state.requests, state.links, replica.queue, row)
        replica.waiting += 1


@compiled
def begin_run(state: State, slot: int, t: int, changed: bool) -> None:
    """Form the next step, or a run of equal ones, from time `t`; `changed` says whether the batch has changed."""
    replica = state.replicas[slot]
    while True:
        if admit(state, slot):
            changed = True
        while replica.decoding > 0 and replica.kv_used + replica.decoding > replica.kv_tokens:
            preempt_newest(state, slot, t)
            changed = True
        if replica.decoding > 0 or replica.prefilling > 0 or replica.queue < 0:
            break
    if replica.decoding == 0 and replica.prefilling == 0:
        replica.steps = 0
        replica.ends = NEVER
        return
    if changed:
        replica.epoch += 1
        replica.factor = noise_factor(replica)
    replica.began = t
    decoding = replica.decoding
    if replica.prefilling > 0:
        budget = max(replica.batched_tokens - decoding, np.int64(1))
        tokens = np.int64(0)
        attention = np.int64(0)
        for i in range(replica.prefilling):
            request = state.requests[state.prefills[slot, i]]
            chunk = min(np.int64(request.left), budget - tokens)
            request.chunk = chunk
            tokens += chunk
            end = np.int64(request.position) + chunk
            attention += end * end - np.int64(request.position) * request.position
        replica.prompt_tokens += tokens
        time = replica.fixed + replica.prefill_fixed + replica.attention * attention
        time += max(replica.weights, replica.token * (tokens + decoding)) + replica.communication * (tokens + decoding)
        time += replica.context * replica.contexts + replica.sequence * decoding
        replica.a = (time * replica.factor) >> NOISE_BITS
        replica.b = 0
        replica.steps = 1
        replica.ends = t + replica.a
        return
    time = replica.fixed + max(replica.weights, replica.token * decoding)
    time += (replica.communication + replica.sequence) * decoding
    replica.a = (time * replica.factor) >> NOISE_BITS
    replica.b = (replica.context * replica.factor) >> NOISE_BITS
    steps = min(state.heap_key[slot, 0] - replica.decode_step, (replica.kv_tokens - replica.kv_used) // decoding)
    if state.scalars[EXACT] == 1:
        steps = min(steps, np.int64(1))
    replica.steps = steps
    replica.ends = t + run_time(replica, steps)


@compiled
def account_steps(state: State, slot: int, steps: int) -> None:
    """Book `steps` finished steps of the run under way: tokens, contexts, KV cache, telemetry."""
    replica = state.replicas[slot]
    if steps == 0:
        return
    time = run_time(replica, steps) if replica.prefilling == 0 else replica.a
    replica.busy += time
    if replica.prefilling == 0:
        replica.pure_steps += steps
        replica.pure_sequences += steps * replica.decoding
        replica.pure_contexts += replica.contexts * steps + replica.decoding * (steps * (steps - 1) // 2)
        replica.pure_busy += time
    replica.decode_step += steps
    replica.contexts += steps * replica.decoding
    replica.kv_used += steps * replica.decoding
    replica.generated_tokens += steps * replica.decoding


@compiled
def end_prefill(state: State, slot: int, row: int, t: int) -> None:
    """The prompt is in the cache and the next token is out: the request ends, decodes here, or is handed over."""
    replica = state.replicas[slot]
    request = state.requests[row]
    held = np.int64(request.input) + request.generated
    replica.generated_tokens += 1
    request.generated += 1
    if request.first < 0:
        request.first = t
    if request.generated >= request.output:
        replica.kv_used -= held
        complete(state, slot, row, t)
    elif replica.role == PREFILL:
        replica.kv_used -= held
        leave(state, slot, row)
        request.slot = -1
        request.phase = 1
        arrival = t + TRANSFER_BASE + replica.kv_ps_per_token * held
        heap_push(state.pending_time, state.pending_row, state.scalars[PENDING], arrival, row)
        state.scalars[PENDING] += 1
    else:
        join(state, slot, row)


@compiled
def end_run(state: State, slot: int) -> None:
    """The run under way is over: book it, let go what is finished, begin the next."""
    replica = state.replicas[slot]
    t = replica.ends
    account_steps(state, slot, replica.steps)
    changed = False
    keys = state.heap_key[slot]
    while replica.decoding > 0 and keys[0] <= replica.decode_step:
        row = state.heap_row[slot, 0]
        request = state.requests[row]
        heap_remove(keys, state.heap_row[slot], replica.decoding, 0)
        replica.decoding -= 1
        replica.contexts -= np.int64(request.input) + request.output
        replica.kv_used -= np.int64(request.input) + request.output - 1
        request.generated = request.output
        complete(state, slot, row, t)
        changed = True
    if replica.prefilling > 0:
        kept = 0
        for i in range(replica.prefilling):
            row = state.prefills[slot, i]
            request = state.requests[row]
            request.left -= request.chunk
            request.position += request.chunk
            if request.left == 0:
                end_prefill(state, slot, row, t)
            else:
                state.prefills[slot, kept] = row
                kept += 1
        replica.prefilling = kept
        changed = True
    begin_run(state, slot, t, changed)


@compiled
def enqueue(state: State, slot: int, row: int, t: int) -> None:
    """The gateway has chosen this replica. If the newcomer could run, the run under way ends with its present step."""
    replica = state.replicas[slot]
    request = state.requests[row]
    request.slot = slot
    request.generation = replica.generation
    replica.in_flight += 1
    replica.in_flight_tokens += request.input
    replica.queue = push(state.requests, state.links, replica.queue, row)
    replica.waiting += 1
    if replica.steps == 0:
        begin_run(state, slot, t, True)
    elif replica.queue == row and replica.prefilling == 0 and replica.steps > 1:
        # a step that begins at this very instant has begun: the newcomer comes after it
        replica.steps = min(steps_by(replica, t) + 1, replica.steps)
        replica.ends = replica.began + run_time(replica, replica.steps)


@compiled
def evict(state: State, slot: int, t: int, transfer: bool, pause: int) -> int:
    """Take every request off a replica; how many. Tokens of finished steps are kept, the step under way is lost.

    With `transfer` their KV cache moves with them (a pause, then the transfer); otherwise they are recomputed.
    They arrive at the gateway again; the replica is empty and idle afterwards.
    """
    replica = state.replicas[slot]
    scalars = state.scalars
    if replica.steps > 0 and replica.prefilling == 0:
        account_steps(state, slot, steps_by(replica, t))
    moved = 0
    while replica.decoding > 0:
        row = state.heap_row[slot, 0]
        request = state.requests[row]
        heap_remove(state.heap_key[slot], state.heap_row[slot], replica.decoding, 0)
        replica.decoding -= 1
        request.generated = request.output - np.int32(request.finish - replica.decode_step)
        arrival = t
        if transfer:
            request.phase = 1
            arrival += pause + TRANSFER_BASE + replica.kv_ps_per_token * (np.int64(request.input) + request.generated)
        heap_push(state.pending_time, state.pending_row, scalars[PENDING], arrival, row)
        scalars[PENDING] += 1
        request.slot = -1
        moved += 1
    for i in range(replica.prefilling):
        row = state.prefills[slot, i]
        heap_push(state.pending_time, state.pending_row, scalars[PENDING], t, row)
        scalars[PENDING] += 1
        state.requests[row].slot = -1
        moved += 1
    moved += evict_waiting(state, slot, t)
    replica.prefilling = 0
    replica.contexts = 0
    replica.kv_used = 0
    replica.in_flight = 0
    replica.in_flight_tokens = 0
    replica.steps = 0
    replica.ends = NEVER
    return moved


@compiled
def evict_waiting(state: State, slot: int, t: int) -> int:
    """Send back to the gateway what waits and has not begun here; how many."""
    replica = state.replicas[slot]
    moved = 0
    while replica.queue >= 0:
        row = replica.queue
        replica.queue = pop(state.requests, state.links, row)
        heap_push(state.pending_time, state.pending_row, state.scalars[PENDING], t, row)
        state.scalars[PENDING] += 1
        state.requests[row].slot = -1
        state.requests[row].phase = 0
        replica.in_flight -= 1
        replica.in_flight_tokens -= state.requests[row].input
        moved += 1
    replica.waiting = 0
    return moved


@compiled
def sample_telemetry(state: State, slot: int, t: int, out: NDArray[np.float64]) -> None:
    """Running, waiting and KV use of a replica at time `t`, as its metrics endpoint would say them."""
    replica = state.replicas[slot]
    steps = steps_by(replica, t) if replica.steps > 0 and replica.prefilling == 0 else np.int64(0)
    out[0] = replica.decoding + replica.prefilling
    out[1] = replica.waiting
    out[2] = (replica.kv_used + steps * replica.decoding) / replica.kv_tokens
