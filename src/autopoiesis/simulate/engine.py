"""One replica's engine: continuous batching as vLLM's scheduler does it.

A step decodes one token of every running sequence and fills what is left of the token budget with prefill chunks.
Requests are admitted in order while sequences, budget and KV blocks allow; a prompt gets the blocks of all its tokens
on admission, a sequence that decodes one more whenever its last is full. When there are no more, the sequence admitted
last is preempted and recomputed later. While the batch stays as it is, steps collapse into one *run*.

A sequence that decodes has KV entries for all its tokens but the last. Which step needs another block for it is its
*phase*: the count of the replica's decode steps, modulo the tokens of a block, at which its last block is full. Both
grow by one each step, so the phase stays, and `State.growth` counts sequences by phase.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from autopoiesis.simulate.draws import noise_factor
from autopoiesis.simulate.jit import compiled, inlined
from autopoiesis.simulate.layout import (
    ATTENTION_BITS,
    BLOCK_TOKENS,
    EXACT,
    LOST_KV,
    NEVER,
    NOISE_BITS,
    NOT_LOST,
    PREFILL,
    State,
    Whole,
)
from autopoiesis.simulate.ledger import end_request, leave, return_at
from autopoiesis.simulate.links import send_cache
from autopoiesis.simulate.prefix_cache import blocks_of, look_up, pin, release, share_prompt, take_back
from autopoiesis.simulate.queues import heap_push, heap_remove, pop, push

COMPLETED, LOST = 1, 2
PHASES = BLOCK_TOKENS - 1
"""Mask of a phase: BLOCK_TOKENS is a power of two."""


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
def grown_blocks(state: State, slot: Whole, steps: Whole) -> Whole:
    """KV blocks that the sequences that decode need for so many steps more."""
    replica = state.replicas[slot]
    blocks = steps // BLOCK_TOKENS * replica.decoding
    for i in range(steps & PHASES):
        blocks += state.growth[slot, (replica.decode_step + i) & PHASES]
    return blocks


@inlined
def steps_until_full(state: State, slot: Whole, most: Whole) -> Whole:
    """How many steps, of so many at most, the KV blocks that are not in use allow."""
    replica = state.replicas[slot]
    free = replica.kv_blocks - replica.kv_used
    cycles = free // replica.decoding
    if cycles * BLOCK_TOKENS >= most:
        return most
    steps = cycles * BLOCK_TOKENS
    free -= cycles * replica.decoding
    while steps < most:
        free -= state.growth[slot, (replica.decode_step + steps) & PHASES]
        if free < 0:
            break
        steps += 1
    return steps


@inlined
def phase_of(replica: Any, request: Any) -> Whole:
    """Of a sequence whose `generated` is up to date."""
    return (replica.decode_step - (np.int64(request.input) + request.generated - 1)) & PHASES


@inlined
def join(state: State, slot: Whole, row: Whole) -> None:
    """The sequence starts to decode; `generated` tokens exist and the last of them has no KV entry yet."""
    replica = state.replicas[slot]
    request = state.requests[row]
    request.finish = replica.decode_step + request.output - request.generated
    heap_push(state.heap_key[slot], state.heap_row[slot], replica.decoding, request.finish, row)
    state.growth[slot, phase_of(replica, request)] += 1
    replica.decoding += 1
    replica.contexts += request.input + request.generated


@inlined
def admit(state: State, slot: Whole) -> bool:
    """Take waiting requests in order while sequences, budget and KV blocks allow; whether any was taken."""
    replica = state.replicas[slot]
    budget = replica.batched_tokens - replica.decoding
    for i in range(replica.prefilling):
        budget -= state.requests[state.prefills[slot, i]].left
    taken = False
    while replica.queue >= 0 and replica.decoding + replica.prefilling < replica.max_sequences and budget > 0:
        row = replica.queue
        request = state.requests[row]
        tokens = np.int64(request.input) + request.generated
        segments = cached = idle = np.int64(0)
        if request.phase == 0:
            segments, cached, idle = look_up(state, slot, row)
        blocks = blocks_of(tokens) - cached + idle
        # room for these, and for what the next step of those that decode needs
        if replica.kv_used + blocks + state.growth[slot, replica.decode_step & PHASES] > replica.kv_blocks:
            break
        replica.queue = pop(state.requests, state.links, row)
        replica.waiting -= 1
        replica.admissions += 1
        request.admitted = replica.admissions
        taken = True
        if request.phase == 1:
            replica.kv_used += blocks_of(tokens - 1)
            request.phase = 0
            join(state, slot, row)
            budget -= 1
        else:
            pin(state, slot, row, segments, cached)
            replica.kv_used += blocks
            request.left = tokens - cached * BLOCK_TOKENS
            replica.cached_tokens += cached * BLOCK_TOKENS
            if request.first < 0 and request.preemptions + request.moves == 0:
                request.cached = cached * BLOCK_TOKENS
            state.prefills[slot, replica.prefilling] = row
            replica.prefilling += 1
            budget -= request.left
        take_back(state, slot)
    return taken


@compiled
def preempt_newest(state: State, slot: Whole) -> Whole:
    """Take the sequence admitted last off the batch and free its KV blocks; its row."""
    replica = state.replicas[slot]
    requests, rows = state.requests, state.heap_row[slot]
    newest = 0
    for i in range(1, replica.decoding):
        if requests[rows[i]].admitted > requests[rows[newest]].admitted:
            newest = i
    row = rows[newest]
    request = requests[row]
    heap_remove(state.heap_key[slot], rows, replica.decoding, newest)
    request.generated = request.output - np.int32(request.finish - replica.decode_step)
    state.growth[slot, phase_of(replica, request)] -= 1
    replica.contexts -= request.input + request.generated
    replica.decoding -= 1
    release(state, slot, row, np.int64(request.input) + request.generated - 1, False)
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
        while (
            replica.decoding > 0
            and replica.kv_used + state.growth[slot, replica.decode_step & PHASES] > replica.kv_blocks
        ):
            preempted = True
            row = preempt_newest(state, slot)
            if replica.decoding == 0 and replica.prefilling == 0:
                lost = row
            else:
                replica.preemptions += 1
                state.requests[row].preemptions += 1
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
        tokens = attention = most_tokens = most_attention = np.int64(0)
        for i in range(replica.prefilling):
            request = state.requests[state.prefills[slot, i]]
            chunk = min(np.int64(request.left), budget - tokens)
            request.chunk = chunk
            tokens += chunk
            position = np.int64(request.input) + request.generated - request.left
            squares = chunk * (2 * position + chunk)
            attention += squares
            most_tokens = max(most_tokens, chunk)
            most_attention = max(most_attention, squares)
        replica.prompt_tokens += tokens
        # the stages of a pipeline work on different parts of the batch, and wait for the largest part
        attention = max(attention, replica.stages * most_attention)
        worked = max(tokens + decoding, replica.stages * most_tokens)
        time = replica.fixed + replica.prefill_fixed + (replica.attention * attention >> ATTENTION_BITS)
        time += max(replica.weights, replica.token * worked) + replica.communication * worked
        time += replica.context * replica.contexts + replica.sequence * decoding
        replica.a = (time * replica.factor) >> NOISE_BITS
        replica.b = 0
        replica.steps = 1
        state.ends[slot] = t + replica.a
        return
    # fewer sequences than stages pass through an empty pipeline
    worked = max(decoding, replica.stages)
    time = replica.fixed + max(replica.weights, replica.token * worked)
    time += (replica.communication + replica.sequence) * worked
    replica.a = (time * replica.factor) >> NOISE_BITS
    replica.b = (replica.context * worked // decoding * replica.factor) >> NOISE_BITS
    steps = steps_until_full(state, slot, state.heap_key[slot, 0] - replica.decode_step)
    if state.scalars[EXACT] == 1:
        steps = min(steps, np.int64(1))
    replica.steps = steps
    state.ends[slot] = t + run_time(replica, steps)


@inlined
def account_steps(state: State, slot: Whole, steps: Whole) -> None:
    """Book `steps` finished steps of the run under way: tokens, contexts, KV blocks, telemetry."""
    replica = state.replicas[slot]
    time = run_time(replica, steps)
    tokens = steps * replica.decoding
    replica.busy += time
    if replica.prefilling == 0:
        replica.pure_steps += steps
        replica.pure_sequences += tokens
        replica.pure_contexts += replica.contexts * steps + replica.decoding * (steps * (steps - 1) // 2)
        replica.pure_busy += time
    replica.kv_used += grown_blocks(state, slot, steps)
    take_back(state, slot)
    replica.decode_step += steps
    replica.contexts += tokens
    replica.generated_tokens += tokens


@inlined
def end_sequence(state: State, slot: Whole, row: Whole, t: Whole, held: Whole) -> None:
    """The last token is out: the KV blocks of `held` tokens are free, the request is complete."""
    release(state, slot, row, held, True)
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
    share_prompt(state, slot, row)
    replica.generated_tokens += 1
    request.generated += 1
    if request.first < 0:
        request.first = t
    if request.generated >= request.output:
        return False
    if replica.role == PREFILL:
        release(state, slot, row, held, True)
        leave(state, slot, row)
        request.slot = -1
        request.phase = 1
        return_at(state, row, send_cache(state, slot, held, t))
    else:
        join(state, slot, row)
    return True


@inlined
def end_run(state: State, slot: Whole) -> None:
    """The run under way is over: book it, let go what is finished, begin the next. Also wakes an idle replica."""
    replica = state.replicas[slot]
    t = state.ends[slot]
    account_steps(state, slot, replica.steps)
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
            state.growth[slot, phase_of(replica, request)] -= 1
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
        out[i, 2] = (replica.kv_used + grown_blocks(state, slots[i], steps)) / replica.kv_blocks
