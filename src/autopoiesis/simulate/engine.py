"""One replica's engine: continuous batching as vLLM's scheduler does it.

A step decodes one token of every running sequence and fills what is left of the token budget with prefill chunks.
Requests are admitted in order while sequences, budget and KV cache allow. When the cache is full the sequence
admitted last is preempted and recomputed later. While the batch stays as it is, steps collapse into one *run*.

A sequence that decodes has KV entries for all its tokens but the last.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from autopoiesis.simulate.draws import noise_factor
from autopoiesis.simulate.jit import compiled, inlined
from autopoiesis.simulate.layout import (
    ATTENTION_BITS,
    DECODE,
    EXACT,
    LOST_KV,
    NEVER,
    NOISE_BITS,
    NOT_LOST,
    PREFILL,
    Records,
    State,
    Whole,
)
from autopoiesis.simulate.ledger import end_request, leave, return_at
from autopoiesis.simulate.prefix_cache import cached_tokens, keep_cached
from autopoiesis.simulate.queues import heap_push, heap_remove, pop, push

COMPLETED, LOST = 1, 2
TRANSFER_BASE = 50_000_000
"""Picoseconds before a KV transfer moves its first byte."""


@inlined
def run_time(replica: Any, steps: Whole) -> Whole:
    """Duration of the first `steps` steps of the run under way."""
    context = replica.contexts * steps + replica.decoding * (steps * (steps - 1) // 2)
    return steps * replica.a + replica.b * context


@inlined
def steps_by(replica: Any, ends: Whole, t: Whole) -> Whole:
    """How many steps of the run under way, which ends at `ends`, have ended by time `t` (at most all of them)."""
    if t >= ends or replica.steps == 0:
        return replica.steps
    elapsed = t - replica.began
    # solve b·n/2·k² + (a + b·contexts − b·n/2)·k = elapsed in floats, then correct in integers
    half = 0.5 * replica.b * replica.decoding
    linear = replica.a + float(replica.b) * replica.contexts - half
    guess = np.int64(2.0 * elapsed / (linear + np.sqrt(linear * linear + 4.0 * half * elapsed)))
    steps = min(max(guess, np.int64(0)), replica.steps - 1)
    while steps > 0 and run_time(replica, steps) > elapsed:
        steps -= 1
    while steps + 1 < replica.steps and run_time(replica, steps + 1) <= elapsed:
        steps += 1
    return steps


@inlined
def join(state: State, slot: Whole, row: Whole) -> None:
    """The sequence starts to decode; `generated` tokens exist and the last of them has no KV entry yet."""
    replica = state.replicas[slot]
    request = state.requests[row]
    request.finish = replica.decode_step + request.output - request.generated
    heap_push(state.heap_key[slot], state.heap_row[slot], replica.decoding, request.finish, row)
    replica.decoding += 1
    replica.contexts += request.input + request.generated


@inlined
def admit(state: State, slot: Whole) -> bool:
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
        # room for these, and for one more of each sequence that decodes
        if replica.kv_used + tokens + replica.decoding > replica.kv_tokens:
            break
        replica.queue = pop(state.requests, state.links, row)
        replica.waiting -= 1
        replica.admissions += 1
        request.admitted = replica.admissions
        taken = True
        if request.phase == 1:
            replica.kv_used += tokens - 1
            replica.allocated += tokens - 1
            request.phase = 0
            join(state, slot, row)
            budget -= 1
        else:
            cached = cached_tokens(state, slot, row) if request.generated == 0 else np.int64(0)
            replica.kv_used += tokens
            replica.allocated += tokens - cached
            request.left = tokens - cached
            state.prefills[slot, replica.prefilling] = row
            replica.prefilling += 1
            budget -= request.left
    return taken


@compiled
def preempt_newest(requests: Records, replica: Any, keys: NDArray[np.int64], rows: NDArray[np.int64]) -> Whole:
    """Take the sequence admitted last off the batch and free its KV cache; its row."""
    newest = 0
    for i in range(1, replica.decoding):
        if requests[rows[i]].admitted > requests[rows[newest]].admitted:
            newest = i
    row = rows[newest]
    request = requests[row]
    heap_remove(keys, rows, replica.decoding, newest)
    request.generated = request.output - np.int32(request.finish - replica.decode_step)
    replica.contexts -= request.input + request.generated
    replica.kv_used -= request.input + request.generated - 1
    replica.decoding -= 1
    return row


@inlined
def form_batch(state: State, slot: Whole, t: Whole) -> bool:
    """Admit and preempt until the batch fits; whether it has changed.

    A sequence that does not fit alone is lost, and so is a waiting request that an empty replica cannot admit: the
    batch is empty afterwards only if nothing waits.
    """
    replica = state.replicas[slot]
    changed = False
    while True:
        admitted = admit(state, slot)
        preempted = False
        lost = np.int64(-1)
        while replica.decoding > 0 and replica.kv_used + replica.decoding > replica.kv_tokens:
            preempted = True
            row = preempt_newest(state.requests, replica, state.heap_key[slot], state.heap_row[slot])
            if replica.decoding == 0 and replica.prefilling == 0:
                lost = row
            else:
                replica.preemptions += 1
                replica.queue = push(state.requests, state.links, replica.queue, row)
                replica.waiting += 1
        changed = changed or admitted or preempted
        runs = replica.decoding > 0 or replica.prefilling > 0
        if runs and not preempted:
            return changed
        # a preemption may have made room for a smaller request that goes first
        if not runs and not admitted and not preempted:
            if replica.queue < 0:
                return changed
            lost = replica.queue
            replica.queue = pop(state.requests, state.links, lost)
            replica.waiting -= 1
        if lost >= 0:
            leave(state, slot, lost)
            end_request(state, lost, t, LOST, LOST_KV)


@inlined
def begin_run(state: State, slot: Whole, t: Whole, changed: bool) -> None:
    """Form the next step, or a run of equal ones, from time `t`; `changed` says whether the batch has changed."""
    replica = state.replicas[slot]
    changed = form_batch(state, slot, t) or changed
    decoding = replica.decoding
    if decoding == 0 and replica.prefilling == 0:
        replica.steps = 0
        state.ends[slot] = NEVER
        return
    if changed:
        replica.epoch += 1
        replica.factor = noise_factor(replica)
    replica.began = t
    if replica.prefilling > 0:
        budget = max(replica.batched_tokens - decoding, np.int64(1))
        tokens = np.int64(0)
        attention = np.int64(0)
        for i in range(replica.prefilling):
            request = state.requests[state.prefills[slot, i]]
            chunk = min(np.int64(request.left), budget - tokens)
            request.chunk = chunk
            tokens += chunk
            position = np.int64(request.input) + request.generated - request.left
            attention += chunk * (2 * position + chunk)
        replica.prompt_tokens += tokens
        time = replica.fixed + replica.prefill_fixed + (replica.attention * attention >> ATTENTION_BITS)
        time += max(replica.weights, replica.token * (tokens + decoding)) + replica.communication * (tokens + decoding)
        time += replica.context * replica.contexts + replica.sequence * decoding
        replica.a = (time * replica.factor) >> NOISE_BITS
        replica.b = 0
        replica.steps = 1
        state.ends[slot] = t + replica.a
        return
    time = replica.fixed + max(replica.weights, replica.token * decoding)
    time += (replica.communication + replica.sequence) * decoding
    replica.a = (time * replica.factor) >> NOISE_BITS
    replica.b = (replica.context * replica.factor) >> NOISE_BITS
    steps = min(state.heap_key[slot, 0] - replica.decode_step, (replica.kv_tokens - replica.kv_used) // decoding)
    if state.scalars[EXACT] == 1:
        steps = min(steps, np.int64(1))
    replica.steps = steps
    state.ends[slot] = t + run_time(replica, steps)


@inlined
def account_steps(replica: Any, steps: Whole) -> None:
    """Book `steps` finished steps of the run under way: tokens, contexts, KV cache, telemetry."""
    time = run_time(replica, steps)
    tokens = steps * replica.decoding
    replica.busy += time
    if replica.prefilling == 0:
        replica.pure_steps += steps
        replica.pure_sequences += tokens
        replica.pure_contexts += replica.contexts * steps + replica.decoding * (steps * (steps - 1) // 2)
        replica.pure_busy += time
    replica.decode_step += steps
    replica.contexts += tokens
    replica.kv_used += tokens
    replica.allocated += tokens
    replica.generated_tokens += tokens


@inlined
def end_sequence(state: State, slot: Whole, row: Whole, t: Whole, held: Whole) -> None:
    """The last token is out: the KV entries of `held` tokens are free, the request is complete."""
    replica = state.replicas[slot]
    replica.kv_used -= held
    if replica.role != DECODE:
        keep_cached(state, slot, row, held)
    leave(state, slot, row)
    end_request(state, row, t, COMPLETED, NOT_LOST)


@inlined
def end_prefill(state: State, slot: Whole, row: Whole, t: Whole) -> bool:
    """The prompt is in the cache and the next token is out: the request goes on to decode, here or elsewhere.

    False if that token was its last.
    """
    replica = state.replicas[slot]
    request = state.requests[row]
    held = np.int64(request.input) + request.generated
    replica.generated_tokens += 1
    request.generated += 1
    if request.first < 0:
        request.first = t
    if request.generated >= request.output:
        return False
    if replica.role == PREFILL:
        replica.kv_used -= held
        keep_cached(state, slot, row, held)
        leave(state, slot, row)
        request.slot = -1
        request.phase = 1
        return_at(state, row, t + TRANSFER_BASE + replica.kv_ps_per_token * held)
    else:
        join(state, slot, row)
    return True


@inlined
def end_run(state: State, slot: Whole) -> None:
    """The run under way is over: book it, let go what is finished, begin the next. Also wakes an idle replica."""
    replica = state.replicas[slot]
    t = state.ends[slot]
    account_steps(replica, replica.steps)
    changed = False
    keys = state.heap_key[slot]
    decoded = replica.decoding
    kept = taken = np.int64(0)
    while True:
        if decoded > 0 and keys[0] <= replica.decode_step:
            row = state.heap_row[slot, 0]
            request = state.requests[row]
            heap_remove(keys, state.heap_row[slot], replica.decoding, 0)
            replica.decoding -= 1
            decoded -= 1
            replica.contexts -= request.input + request.output
            request.generated = request.output
            held = np.int64(request.input) + request.output - 1
        elif taken < replica.prefilling:
            decoded = 0
            row = state.prefills[slot, taken]
            request = state.requests[row]
            taken += 1
            changed = True
            request.left -= request.chunk
            if request.left > 0:
                state.prefills[slot, kept] = row
                kept += 1
                continue
            held = np.int64(request.input) + request.generated
            if end_prefill(state, slot, row, t):
                continue
        else:
            break
        changed = True
        end_sequence(state, slot, row, t, held)
    replica.prefilling = kept
    begin_run(state, slot, t, changed)


@inlined
def enqueue(state: State, slot: Whole, row: Whole, t: Whole) -> None:
    """The gateway has chosen this replica. If the newcomer could run, the run under way ends with its present step."""
    replica = state.replicas[slot]
    request = state.requests[row]
    request.slot = slot
    replica.in_flight += 1
    replica.in_flight_tokens += request.input
    replica.queue = push(state.requests, state.links, replica.queue, row)
    replica.waiting += 1
    if replica.steps == 0:
        state.ends[slot] = t
    elif replica.queue == row and replica.prefilling == 0 and replica.steps > 1:
        # a step that begins at this very instant has begun: the newcomer comes after it
        replica.steps = min(steps_by(replica, state.ends[slot], t) + 1, replica.steps)
        state.ends[slot] = replica.began + run_time(replica, replica.steps)


@compiled
def sample_telemetry(state: State, slots: NDArray[np.int64], t: Whole, out: NDArray[np.float64]) -> None:
    """Running, waiting and KV use of replicas at time `t`, as their metrics endpoints would say them; one row each."""
    for i in range(len(slots)):
        replica = state.replicas[slots[i]]
        steps = steps_by(replica, state.ends[slots[i]], t)
        out[i, 0] = replica.decoding + replica.prefilling
        out[i, 1] = replica.waiting
        out[i, 2] = (replica.kv_used + steps * replica.decoding) / replica.kv_tokens
