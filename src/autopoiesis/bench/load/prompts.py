"""Prompts of given lengths that begin alike exactly where the trace says so.

A prompt is a row of units: token ids, or common words that most vocabularies hold as one token each. Units come in
spans. A span is the beginning of an endless text of its own, drawn from a seed and a name, so that two prompts with
the same spans are equal up to there and no further: the 512-token blocks that a trace names, and what each call adds
to its conversation.

Answers are not in them: the next call of a conversation has new units in their place. What it has in common with the
call before it is therefore that call's prompt at most (`shared_tokens`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from autopoiesis.errors import ScenarioError
from autopoiesis.workload import PREFIX_BLOCK_TOKENS, Requests

POOL_UNITS = 1 << 16
"""All texts are windows of one pool, each behind a beginning of its own."""
NAME_UNITS = 8
"""Units of that beginning."""
_WORDS = (
    "a about after again all also always and any are as at away back be because been before best better big both but "
    "by call came can city close come could day different do down each early end even every eye face fact family far "
    "few find first food for four free friend from full game gave get give go good great group grow had half hand hard "
    "has have he head hear help her here high him his home hour house how idea if in into is it its job just keep kind "
    "know large last late lead learn left less let life light like line little live long look made make man many may "
    "me mean men might mind more most move much must my name near need never new next night no not now of off often "
    "old on once one only open or order other our out over own page part people place plan play point put read real "
    "right room run said same saw say school see seem set she short should show side small so some soon start state "
    "still stop such system table take talk tell ten than that the their them then there these they thing think this "
    "those three time to told too took tree true try turn two under until up us use very walk want war was watch water "
    "way we week well went were what when where which while white who why will with word work world would year you"
)
WORDS = tuple(_WORDS.split())


class Span(NamedTuple):
    """The first `units` units of the text of this name."""

    name: str
    units: int


@dataclass(frozen=True, slots=True)
class Units:
    """What prompts are made of: `vocabulary` entries of equal width as the bytes of a JSON value, so that a text of n
    units is a slice."""

    vocabulary: tuple[bytes, ...]
    opening: bytes
    closing: bytes

    @staticmethod
    def token_ids(first: int, last: int) -> Units:
        """Token ids from `first` to `last`. Raises ScenarioError for a range without choice."""
        if not 0 <= first < last < 10_000_000:
            raise ScenarioError(f"token ids {first}-{last}: must run from 0 or more up, as in 1000-9999")
        width = len(str(last))
        return Units(tuple(f"{token:>{width}},".encode() for token in range(first, last + 1)), b"[", b"]")

    @staticmethod
    def words() -> Units:
        """Words, each with the blank before it."""
        return Units(tuple(f" {word}".encode() for word in WORDS), b'"', b'"')


class Text:
    """Endless texts by name, of one seed."""

    def __init__(self, units: Units, seed: int) -> None:
        self._units = units
        self._seed = seed.to_bytes(16, "big", signed=True)
        drawn = np.random.default_rng(seed).integers(0, len(units.vocabulary), POOL_UNITS)
        entries = [units.vocabulary[i] for i in drawn.tolist()]
        self._pool = b"".join(entries)
        ends = np.cumsum([0] + [len(entry) for entry in entries])
        self._ends: list[int] = ends.tolist()

    def beginning(self, span: Span) -> bytes:
        """Its units, one after the other."""
        digest = int.from_bytes(hashlib.blake2b(span.name.encode(), key=self._seed, digest_size=16).digest(), "big")
        digest, at = divmod(digest, POOL_UNITS)
        parts = []
        left = span.units
        for _ in range(min(left, NAME_UNITS)):
            digest, entry = divmod(digest, len(self._units.vocabulary))
            parts.append(self._units.vocabulary[entry])
        left -= len(parts)
        while left > 0:
            taken = min(left, POOL_UNITS - at)
            parts.append(self._pool[self._ends[at] : self._ends[at + taken]])
            left -= taken
            at = 0
        return b"".join(parts)

    def json(self, spans: tuple[Span, ...]) -> bytes:
        """The spans as one JSON value."""
        text = b"".join(map(self.beginning, spans))
        # token ids stand between commas, of which there is one too many
        return self._units.opening + (text[:-1] if self._units.opening == b"[" else text) + self._units.closing


@dataclass(frozen=True, slots=True)
class Measure:
    """How many units make how many tokens of a prompt."""

    units_per_token: float = 1.0
    overhead_tokens: float = 0.0
    """Of every prompt, whatever is in it: what a chat template adds."""

    def units(self, tokens: float) -> int:
        """Of a prompt, or the beginning of one, of so many tokens."""
        return max(round((tokens - self.overhead_tokens) * self.units_per_token), 0)


class Prompts:
    """The prompt of every request of a load."""

    def __init__(self, requests: Requests, text: Text, measure: Measure) -> None:
        self._text = text
        self._measure = measure
        self._block_units = max(round(PREFIX_BLOCK_TOKENS * measure.units_per_token), 1)
        self._previous: list[int] = requests.previous.tolist()
        self._prefix: list[int] = requests.prefix_tokens.tolist()
        self._input: list[int] = requests.input_tokens.tolist()
        self._blocks = (requests.block_start.tolist(), requests.block_count.tolist(), requests.block_ids)
        self._continued = frozenset(requests.previous[requests.previous >= 0].tolist())
        self._spans: dict[int, tuple[Span, ...]] = {}

    def json(self, row: int) -> bytes:
        """The prompt as a JSON value: a string, or a list of token ids."""
        return self._text.json(self.spans(row))

    def spans(self, row: int) -> tuple[Span, ...]:
        """What the prompt of a request is made of."""
        before = self._previous[row]
        missing = [row]
        while before >= 0 and before not in self._spans:
            missing.append(before)
            before = self._previous[before]
        spans: tuple[Span, ...] = ()
        for each in reversed(missing):
            spans = self._composed(each)
            if each in self._continued:
                self._spans[each] = spans
        return spans

    def _composed(self, row: int) -> tuple[Span, ...]:
        start, count, ids = self._blocks[0][row], self._blocks[1][row], self._blocks[2]
        length = max(self._measure.units(self._input[row]), 1)
        spans: tuple[Span, ...] = ()
        if count:
            named = (Span(f"block {block}", self._block_units) for block in ids[start : start + count].tolist())
            spans = _cut(named, length)
        elif self._previous[row] >= 0:
            spans = _cut(self._spans[self._previous[row]], min(self._measure.units(self._prefix[row]), length))
        left = length - sum(span.units for span in spans)
        return (*spans, Span(f"call {row}", left)) if left else spans


def shared_tokens(requests: Requests) -> NDArray[np.int64]:
    """(n,) prompt tokens in common with the call before in the session: `prefix_tokens` without what is of answers."""
    before = np.where(requests.previous >= 0, requests.input_tokens[requests.previous], 0)
    return np.minimum(requests.prefix_tokens, before)


def _cut(spans: Iterable[Span], units: int) -> tuple[Span, ...]:
    """The first so many units."""
    kept = []
    for span in spans:
        if units <= 0:
            break
        kept.append(Span(span.name, min(span.units, units)))
        units -= span.units
    return tuple(kept)
