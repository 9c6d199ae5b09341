"""What a language model is told, and how its answer is read.

Traffic cannot speak to the model: of what was served only numbers enter a prompt, and labels that come from the
catalogue. Sources and refusals are text of models and of ours; they are bounded and fenced.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING

from autopoiesis.errors import ProviderError, ScenarioError, unknown_name
from autopoiesis.evolve.providers.base import Message

if TYPE_CHECKING:
    from autopoiesis.policy.interface import PoolView
    from autopoiesis.policy.source import PolicySource
    from autopoiesis.workload.windows import ClassWindow, Window

OBJECTIVES = {
    "cost_per_good": "money spent on GPUs divided by requests answered within their SLO; lower is better. GPUs are "
    "paid from grant to release, busy or not; on a cluster of fixed size this means more good requests",
    "goodput": "requests answered within their SLO; higher is better",
    "delay": "mean seconds that completed requests took beyond their unloaded time, plus 600 s times the fraction of "
    "requests not completed; lower is better",
    "total_time": "sum over windows of the time from a window's start until its batch is served, scheduling and "
    "reconfiguration included; lower is better. Every request is served: SHED counts as a failure of the policy",
}
SHOWN_WINDOWS = 13
SHOWN_REFUSALS = 10
REFUSAL_CHARS = 800
ELITE_CHARS = 40_000
"""Sources of elites beyond the incumbent, all together; what does not fit is left out whole."""

_LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}")
_CLASS = re.compile(_LABEL.pattern + r"/(?:<\d+|longer)")

_ROLE = """\
You improve the policy by which a system serves large language models on GPUs. The policy decides when to change the \
deployment (its trigger), to what (its planner), and optionally where each request goes (its router). It is a Python \
module in the interface below. Candidates are replayed over recent load and swapped in only when they measure better \
than the policy in service, in the objective given; the time a trigger or planner computes is charged, and so is \
every reconfiguration. The score is the objective, smaller being better; the ratio is a policy's score divided by that \
of the policy in service over the same windows, so below 1 is better. A policy must also stand load it has not seen: \
do not fit constants to the windows shown.

"""

_TASK = """\
Write one better policy. Change what the evidence says is wrong, keep what works, and keep the code short. Answer \
with one complete module in one fenced block that begins with ```python; its docstring says in one line what it does.\
"""


@dataclass(frozen=True, slots=True)
class ScoredPolicy:
    """A policy shown to the model, with what was measured of it; None where a score is undefined."""

    source: PolicySource
    scores: tuple[tuple[str, float | None], ...]
    """Label of the measure and its value, in the order to show."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What was seen of the system, up to the moment of asking."""

    objective: str
    """A key of `OBJECTIVES`."""
    windows: tuple[Window, ...]
    """Oldest first; the last 13 are shown."""
    pools: str = ""
    """From `describe_pools`."""
    notes: tuple[str, ...] = ()
    """Sentences of our own about the run; no text of users or engines."""


def interface_text() -> str:
    """The policy interface in words, as the prompts quote it."""
    return resources.files("autopoiesis.policy").joinpath("policy.md").read_text("utf-8")


def build_messages(
    interface: str, parents: Sequence[ScoredPolicy], evidence: Evidence, refusals: Sequence[str] = ()
) -> tuple[Message, ...]:
    """The prompt for one better policy. `parents`: the incumbent, then elites; `refusals`: why earlier attempts failed.

    Raises ScenarioError for an unknown objective or a label that is none of the catalogue's form.
    """
    if evidence.objective not in OBJECTIVES:
        raise ScenarioError(unknown_name("objective", evidence.objective, OBJECTIVES))
    if not parents:
        raise ScenarioError("a prompt needs the incumbent policy")
    parts = [f"# Objective\n\n`{evidence.objective}`: {OBJECTIVES[evidence.objective]}."]
    parts.append("# Policy in service\n\n" + _shown(parents[0]))
    elites, room = [], ELITE_CHARS
    for elite in parents[1:]:
        if len(elite.source.text) <= room:
            room -= len(elite.source.text)
            elites.append(_shown(elite))
    if elites:
        parts.append("# Other good policies\n\n" + "\n\n".join(elites))
    parts.append("# Recent windows\n\n" + window_table(evidence.windows))
    if evidence.pools:
        parts.append("# GPUs\n\n" + evidence.pools)
    if evidence.notes:
        parts.append("# Notes\n\n" + "\n".join(f"- {_bounded(note)}" for note in evidence.notes))
    if refusals:
        shown = "\n".join(f"- {_bounded(refusal)}" for refusal in refusals[-SHOWN_REFUSALS:])
        parts.append("# Earlier attempts and what came of them\n\n" + shown)
    parts.append("# Task\n\n" + _TASK)
    return (Message("system", _ROLE + interface), Message("user", "\n\n".join(parts)))


def describe_pools(pools: Iterable[PoolView]) -> str:
    """Pools as a table of numbers and labels."""
    head = "pool gpu gpus_per_node available requested minimum maximum usd_per_gpu_hour spot start_s_p50 start_s_p90"
    rows = [
        f"{_label(p.name)} {_label(p.gpu)} {p.gpus_per_node} {p.available} {p.requested} {p.minimum} {p.maximum} "
        f"{p.price_per_hour:.4g} {'yes' if p.spot else 'no'} {p.start_s_p50:.4g} {p.start_s_p90:.4g}"
        for p in pools
    ]
    return "```\n" + "\n".join([head, *rows]) + "\n```"


_COLUMNS = (
    "window start_s class arrivals rate_rps input_mean input_p90 output_mean output_p90 prefix_mean completed good "
    "shed lost backlog queued ttft_p90_s tpot_p90_s dispersion"
)


def window_table(windows: Sequence[Window]) -> str:
    """One row for each class of each window: rates, token lengths, outcomes. Lengths are tokens, times seconds."""
    rows = [_row(window, entry) for window in windows[-SHOWN_WINDOWS:] for entry in window.classes]
    if not rows:
        return "None yet."
    return "```\n" + "\n".join([_COLUMNS, *rows]) + "\n```"


def _row(window: Window, entry: ClassWindow) -> str:
    if not _CLASS.fullmatch(entry.request_class):
        raise ScenarioError("a window's request class is not `model/bucket` with a plain model name; rename the model")
    counts = (entry.completed, entry.good, entry.shed, entry.lost, entry.backlog, entry.queued)
    lengths = (entry.input_mean, entry.input_p90, entry.output_mean, entry.output_p90, entry.prefix_mean)
    return " ".join(
        [
            f"{window.index:d} {window.start_s:.6g} {entry.request_class} {entry.arrivals:d} {entry.rate_rps:.4g}",
            *(f"{value:.4g}" for value in lengths),
            *(f"{value:d}" for value in counts),
            f"{entry.ttft_p90_s:.4g} {entry.tpot_p90_s:.4g} {window.dispersion:.4g}",
        ]
    )


def _label(name: str) -> str:
    if not _LABEL.fullmatch(name):
        raise ScenarioError("a pool's or GPU's name may hold only letters, digits and . _ + -; rename it")
    return name


def _shown(policy: ScoredPolicy) -> str:
    text = policy.source.text.rstrip("\n")
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    scores = [f"{name} = {'undefined' if value is None else format(value, '.6g')}" for name, value in policy.scores]
    return f"Scores: {'; '.join(scores) or 'none yet'}\n\n{fence}python\n{text}\n{fence}"


def _bounded(text: str) -> str:
    """One line of at most `REFUSAL_CHARS`, with no backtick run that could open or close a fence."""
    line = re.sub(r"`{3,}", "``", " ".join(text.split()))
    return line if len(line) <= REFUSAL_CHARS else line[: REFUSAL_CHARS - 1] + "…"


# Possessive throughout: an answer is hostile, and what has matched is not to be tried again in shorter pieces.
_FENCE = re.compile(r"[ \t]*+(?P<fence>`{3,}+|~{3,}+)[ \t]*+(?P<language>[\w+-]*+)[^\n`]*+")
_CODE = re.compile(r"^(?:def \w|import \w|from [\w.]++ import\b)", re.MULTILINE)
_DOCSTRING = re.compile(r"\s*+[rR]?(?:\"\"\"|''')")


def extract_source(text: str) -> str:
    """The module in a model's answer: its largest fenced Python block that looks like one, or the whole answer.

    What a model thinks aloud before `</think>` is not its answer. Nothing is parsed here: whether it is Python says the
    check behind the wall. Raises ProviderError when there is no module.
    """
    answer = text.rsplit("</think>", 1)[-1]
    blocks = _fenced(answer)
    python = [block for block in blocks if block.language.lower() in ("python", "python3", "py")]
    found = python or [block for block in blocks if not block.language]
    if found:
        return max(found, key=lambda block: (_is_code(block.source), block.closed, len(block.source))).source
    if not blocks and _is_code(answer):
        return answer.strip() + "\n"
    raise ProviderError("the completion holds no Python module: ask for one in one fenced block, or for more tokens")


@dataclass(frozen=True, slots=True)
class _Block:
    language: str
    source: str
    closed: bool


def _fenced(text: str) -> list[_Block]:
    """The blocks that hold anything; one that is never closed counts only if it looks like a module."""
    blocks: list[_Block] = []
    fence, language, lines = "", "", list[str]()
    for line in text.splitlines():
        mark = _FENCE.fullmatch(line)
        if not fence:
            if mark:
                fence, language, lines = mark["fence"], mark["language"], []
        elif mark and mark["fence"].startswith(fence) and not mark["language"]:
            blocks.append(_Block(language, "\n".join(lines) + "\n", True))
            fence = ""
        else:
            lines.append(line)
    rest = "\n".join(lines) + "\n"
    if fence and _is_code(rest):
        blocks.append(_Block(language, rest, False))
    return [block for block in blocks if block.source.strip()]


def _is_code(text: str) -> bool:
    """Whether the text looks like a module: it opens with a docstring, or imports or defines at the margin."""
    return _DOCSTRING.match(text) is not None or _CODE.search(text) is not None
