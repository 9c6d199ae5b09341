"""The operator's files: what requests are promised, the bounds that no policy crosses, and step times.

All are TOML and name models. They may speak of more models than a run serves, so that one file does for a whole
house; a name that is no model at all is an error.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from autopoiesis.cluster import catalog
from autopoiesis.cost import Fitted
from autopoiesis.cost.fitted import read_fitted
from autopoiesis.errors import ScenarioError, unknown_name
from autopoiesis.plan import Envelope
from autopoiesis.workload import SLO, class_labels
from autopoiesis.workload.classes import default_slo

"""Largest file that is read; those for a hundred models have a few kilobytes."""
LARGEST = 1e6
"""Of any bound, whatever its unit: beyond it a number is a slip of the pen."""

QUOTES = "write a name that contains dots in quotes"


def read_slos(path: str, models: Collection[str]) -> dict[str, SLO]:
    """The SLO of each of `models` that the file has a table for; fields left out keep the model's default.

    Raises ScenarioError, one line with file, table, field and mend.
    """
    slos = {}
    known = set(catalog.models()) | set(models)
    for name, table in _tables(path).items():
        if name not in known:
            raise ScenarioError(f"{path}: {unknown_name('model', name, known)}{_quoting(table)}")
        where = f"{path}: table {name!r}"
        if not isinstance(table, dict):
            raise ScenarioError(f'{where}: must be a table; write ["{name}"] on a line of its own above its fields')
        default = default_slo(catalog.model(name).active_parameters)
        read = catalog.convert({field.name: getattr(default, field.name) for field in fields(SLO)} | table, SLO, where)
        for field in fields(SLO):
            _bounded(where, field.name, getattr(read, field.name), "seconds")
        if read.tpot_s == 0:
            raise ScenarioError(f"{where}: field 'tpot_s' is 0, which no request can meet; give seconds per token")
        if read.ttft_s == 0 and read.ttft_s_per_input_token == 0:
            raise ScenarioError(f"{where}: field 'ttft_s' is 0 for every prompt, which no request can meet; raise it")
        if name in models:
            slos[name] = read
    return slos


def read_envelope(path: str, models: Collection[str]) -> Envelope:
    """The envelope in the file; entries for models that are not in `models` are checked and left out.

    Raises ScenarioError, one line with file, field and mend.
    """
    read = catalog.convert(_tables(path), _Tables, path)
    _bounded(path, "minimum_replicas", read.minimum_replicas, "replicas")
    _bounded(path, "maximum_gpus", read.maximum_gpus, "GPUs", positive=True)
    _bounded(path, "maximum_cost_per_hour", read.maximum_cost_per_hour, "US dollars per hour", positive=True)
    _bounded(path, "moves_per_hour", read.moves_per_hour, "replica starts per hour")
    known = sorted(set(catalog.models()) | set(models))
    minimum_replicas_of = _counts(path, "minimum_replicas_of", read.minimum_replicas_of, "model", known)
    class_floor = _counts(path, "class_floor", read.class_floor, "request class", class_labels(tuple(known)))
    return Envelope(
        minimum_replicas=read.minimum_replicas,
        minimum_replicas_of={name: count for name, count in minimum_replicas_of.items() if name in models},
        maximum_gpus=read.maximum_gpus,
        maximum_cost_per_hour=read.maximum_cost_per_hour,
        moves_per_hour=read.moves_per_hour,
        class_floor={label: count for label, count in class_floor.items() if label.rpartition("/")[0] in models},
    )


def read_coefficients(path: str) -> Fitted:
    """The step times in a file that `autopoiesis calibrate --out` wrote.

    Raises ScenarioError, one line with file, table, field and mend.
    """
    return read_fitted(_tables(path), path)


@dataclass(frozen=True, slots=True)
class _Tables:
    """An envelope file as it stands; names by which something is counted are still unchecked."""

    minimum_replicas: int = 1
    minimum_replicas_of: Any = None
    maximum_gpus: int | None = None
    maximum_cost_per_hour: float | None = None
    moves_per_hour: int | None = None
    class_floor: Any = None


def _counts(path: str, field: str, table: Any, kind: str, known: Collection[str]) -> dict[str, int]:
    """A table of names and numbers of replicas."""
    if table is None:
        return {}
    if not isinstance(table, dict):
        raise ScenarioError(f"{path}: field {field!r} must be a table of a {kind} and a number of replicas each")
    for name, count in table.items():
        if name not in known:
            raise ScenarioError(f"{path}: {field}: {unknown_name(kind, name, known)}{_quoting(count)}")
        if not isinstance(count, int) or isinstance(count, bool):
            raise ScenarioError(f"{path}: {field}: {name!r} must be a whole number of replicas, got {_shown(count)}")
        _bounded(path, f"{field}.{name}", count, "replicas")
    return table


def _bounded(where: str, field: str, value: float | None, unit: str, positive: bool = False) -> None:
    if value is None:
        return
    if not math.isfinite(value) or value < 0 or value > LARGEST or (positive and value == 0):
        low = "above 0" if positive else "at least 0"
        raise ScenarioError(
            f"{where}: field {field!r} must be {unit}, {low} and at most {LARGEST:g}, got {_shown(value)}"
        )


def _shown(value: object) -> str:
    # Python refuses to print whole numbers of several thousand digits.
    if isinstance(value, int) and value.bit_length() > 128:
        return "a number of more than 38 digits"
    text = f"{value:g}" if isinstance(value, float) else ascii(value)
    return text if len(text) <= 40 else text[:37] + "..."


def _quoting(value: object) -> str:
    """What to add where `[llama-3.1-8b]` without quotes was read as a table `1-8b` within a table `llama-3`."""
    return f" ({QUOTES})" if isinstance(value, dict) else ""


def _tables(path: str) -> dict[str, Any]:
    return catalog.parse_toml(catalog.toml_text(Path(path)), path)
