"""The load to plan for: not the last window alone, which is noise, nor a long mean, which is late.

`expected` answers with a state whose only window is that load, so that every question put to it (`estimate`,
`throughput`, all planners here) is about the load to come.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from autopoiesis.errors import PolicyError
from autopoiesis.policy.interface import ServingState
from autopoiesis.workload import ClassWindow, Window


def model_of(request_class: str) -> str:
    return request_class.rsplit("/", 1)[0]


def demand(state: ServingState, model: str | None = None) -> dict[str, float]:
    """Expected requests/s by class, of one model or of all; classes without arrivals are left out."""
    return {
        entry.request_class: entry.rate_rps
        for entry in window_of(expected(state)).classes
        if entry.rate_rps > 0 and (model is None or model_of(entry.request_class) == model)
    }


def window_of(state: ServingState) -> Window:
    """The state's window; a PolicyError where there is none yet."""
    if state.window is None:
        raise PolicyError(
            "there is no window at the first monitoring point, so there is no load to plan for; "
            "let should_reschedule answer False while state.window is None"
        )
    return state.window


def expected(
    state: ServingState, windows: int = 5, margin: float = 1.0, rates: Mapping[str, float] | None = None
) -> ServingState:
    """The state with nothing but the load to plan for in its window, from the last `windows` windows.

    The rate of a class is the larger of the last window's and the mean, so that a rise counts at once and a fall
    late; a class not seen in these windows but earlier has its mean over all known windows, so that it keeps some
    capacity. The queue is added as if it had to be worked off within `windows` windows, and is empty then; earlier
    windows are gone. All rates are multiplied by `margin`. Lengths are means weighted by what they were observed on;
    a class of which nothing has finished yet gets the output lengths of its model. An expected state with a margin of
    1 is its own expectation, so tools that plan for `expected(state)` can be given one made with other parameters.
    A policy that predicts the load gives its own `rates`, requests/s by class; classes that it leaves out keep theirs.
    """
    last = window_of(state)
    known = (*state.recent, last)
    near = known[-max(windows, 1) :]
    labels = sorted({entry.request_class for window in known for entry in window.classes})
    classes = [_merged(label, known, near, margin) for label in labels]
    for position, entry in enumerate(classes):
        if entry.output_mean == 0:
            kin = [
                other
                for window in known
                for other in window.classes
                if model_of(other.request_class) == model_of(entry.request_class)
            ]
            mean, p90 = _mean(kin, "output_mean", "completed"), _mean(kin, "output_p90", "completed")
            classes[position] = replace(entry, output_mean=mean, output_p90=p90)
    if rates is not None:
        given = {label: rate * margin for label, rate in rates.items()}
        classes = [_at_rate(entry, given.get(entry.request_class, entry.rate_rps), last) for entry in classes]
    if not state.recent and last.classes == tuple(classes):
        return state
    return replace(state, window=replace(last, classes=tuple(classes)), recent=())


def _merged(label: str, known: Sequence[Window], near: Sequence[Window], margin: float) -> ClassWindow:
    last = known[-1]
    now = last.of(label)
    seen = [entry for window in known if (entry := window.of(label)) is not None]
    late = [entry for window in near if (entry := window.of(label)) is not None and entry.rate_rps > 0]
    rate = sum(entry.rate_rps for entry in late) / len(near)
    if now is not None:
        rate = max(rate, now.rate_rps)
    if not late:
        rate = sum(entry.rate_rps for entry in seen) / len(known)
    if now is not None and now.queued:
        rate += now.queued / sum(window.end_s - window.start_s for window in near)
    rate *= margin
    entries = late or seen
    return ClassWindow(
        request_class=label,
        arrivals=round(rate * (last.end_s - last.start_s)),
        rate_rps=rate,
        input_mean=_mean(entries, "input_mean", "arrivals"),
        input_p90=_mean(entries, "input_p90", "arrivals"),
        output_mean=_mean(entries, "output_mean", "completed"),
        output_p90=_mean(entries, "output_p90", "completed"),
        prefix_mean=_mean(entries, "prefix_mean", "arrivals"),
        completed=now.completed if now is not None else 0,
        good=now.good if now is not None else 0,
        shed=now.shed if now is not None else 0,
        lost=now.lost if now is not None else 0,
        backlog=now.backlog if now is not None else 0,
        queued=0,
        ttft_p90_s=now.ttft_p90_s if now is not None else 0.0,
        tpot_p90_s=now.tpot_p90_s if now is not None else 0.0,
    )


def _at_rate(entry: ClassWindow, rate_rps: float, window: Window) -> ClassWindow:
    return replace(entry, rate_rps=rate_rps, arrivals=round(rate_rps * (window.end_s - window.start_s)))


def _mean(entries: Sequence[ClassWindow], value: str, weight: str) -> float:
    if len(entries) == 1:
        return float(getattr(entries[0], value))
    total = sum(getattr(entry, weight) for entry in entries)
    return sum(getattr(entry, value) * getattr(entry, weight) for entry in entries) / total if total else 0.0
