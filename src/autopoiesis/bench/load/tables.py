"""A load's figures for JSON, and its requests for CSV."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

from autopoiesis.bench.load.load import Result
from autopoiesis.bench.load.outcomes import Figures, Outcomes

HEADER = "id,sent_s,first_token_s,last_token_s,end_s,input_tokens,output_tokens,ttft_s,tpot_s,e2e_s,error\n"


def load_json(result: Result, measured: Figures, predicted: Figures | None) -> dict[str, Any]:
    """All that `autopoiesis load` prints. Differences are predicted ÷ measured − 1."""
    came = result.came
    return {
        "requests": len(result.requests),
        "sent": len(came.rows) + came.cut,
        "cut": came.cut,
        "errors": came.errors(),
        "measured": asdict(measured),
        "predicted": None if predicted is None else asdict(predicted),
        "difference": None if predicted is None else _differences(asdict(measured), asdict(predicted)),
        "tokens": {
            "planned_prompts": int(result.requests.input_tokens[came.rows].sum()),
            "prompts": int(came.served.input_tokens.sum()),
            "cached": came.cached_tokens,
            "planned_answers": int(result.requests.output_tokens[came.rows].sum()),
            "answers": int(came.served.output_tokens.sum()),
        },
        "client": {
            "wall_s": result.wall_s,
            "cpu_s": result.client_cpu_s,
            "cpu_share": result.client_cpu_share,
            "late_p99_s": result.late_p99_s,
            "units_per_token": result.measure.units_per_token,
            "overhead_tokens": result.measure.overhead_tokens,
        },
    }


def _differences(measured: dict[str, Any], predicted: dict[str, Any]) -> dict[str, Any]:
    return {
        name: _differences(value, predicted[name])
        if isinstance(value, dict)
        else predicted[name] / value - 1
        if value
        else None
        for name, value in measured.items()
    }


def requests_csv(came: Outcomes) -> str:
    """A row for every request that was not cut off; `id` is its row in the workload, and an empty cell means that there
    is no such thing."""
    served = came.served
    columns = (
        served.sent_s, served.first_s, served.last_s, served.end_s, served.input_tokens, served.output_tokens,
        served.ttft_s, served.tpot_s, served.e2e_s,
    )  # fmt: skip
    lines = [HEADER]
    for row, fault, *values in zip(came.rows.tolist(), came.faults, *(c.tolist() for c in columns), strict=True):
        lines.append(",".join([str(row), *map(_cell, values), fault]) + "\n")
    return "".join(lines)


def _cell(value: float) -> str:
    if isinstance(value, int):
        return str(value)
    return "" if math.isnan(value) else f"{value:.6f}"
