"""What calibration found, as a file: efficiencies by GPU kind, and the coefficients of the shapes that were measured.

    [h100.efficiencies]
    linear = 0.86
    …

    [[h100.measured]]
    model = "llama-3.1-8b"
    tensor_parallel = 1
    token_s = 1.6e-5
    …

The package ships such files for GPUs that were measured (`data/*.toml`); `autopoiesis calibrate --out` writes others.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from functools import cache
from importlib.resources import files
from typing import Any

from autopoiesis.cluster import catalog
from autopoiesis.cost.coefficients import TIMES, Coefficients
from autopoiesis.cost.efficiencies import Efficiencies
from autopoiesis.errors import ScenarioError, unknown_name

DATA = files("autopoiesis.cost") / "data"
DIGITS = 4
"""Significant digits that a file keeps."""

_KINDS = {"efficiencies", "measured"}
_UNSAID = {"pipeline_parallel": 1, "engine": "vllm", "dtype": "bf16"}
"""Fields that a measured shape may leave out."""


@dataclass(frozen=True, slots=True)
class Fitted:
    """Both levels: what was measured, and what carries over to shapes that were not."""

    efficiencies: dict[str, Efficiencies] = field(default_factory=dict)
    """By GPU kind."""
    measured: tuple[Coefficients, ...] = ()

    def over(self, base: Fitted) -> Fitted:
        """This, and what `base` has besides. A GPU kind whose efficiencies are ours keeps nothing of `base`: shapes
        measured under other circumstances do not compare with ours."""
        kept = tuple(shape for shape in base.measured if shape.gpu not in self.efficiencies)
        return Fitted({**base.efficiencies, **self.efficiencies}, self.measured + kept)


@cache
def shipped() -> Fitted:
    """The package's own."""
    efficiencies: dict[str, Efficiencies] = {}
    measured: list[Coefficients] = []
    for entry in sorted(DATA.iterdir(), key=lambda entry: entry.name):
        if entry.name.endswith(".toml"):
            fitted = read_fitted(catalog.parse_toml(entry.read_text("utf-8"), entry.name), entry.name)
            efficiencies |= fitted.efficiencies
            measured += fitted.measured
    return Fitted(efficiencies, tuple(measured))


def read_fitted(tables: Mapping[str, Any], where: str) -> Fitted:
    """The tables of a file named `where`.

    Raises ScenarioError, one line with file, table, field and mend.
    """
    gpus, models = catalog.gpus(), catalog.models()
    efficiencies: dict[str, Efficiencies] = {}
    measured: list[Coefficients] = []
    if not tables:
        raise ScenarioError(f"{where}: is empty; write one with autopoiesis calibrate --out")
    for gpu, table in tables.items():
        if gpu not in gpus:
            raise ScenarioError(f"{where}: {unknown_name('GPU', gpu, gpus)}")
        if not isinstance(table, dict) or not table:
            raise ScenarioError(f"{where}: {gpu}: must be a table; write [{gpu}.efficiencies] above its fields")
        for kind in table:
            if kind not in _KINDS:
                raise ScenarioError(f"{where}: {gpu}: {unknown_name('table', kind, _KINDS)}")
        if "efficiencies" in table:
            efficiencies[gpu] = catalog.convert(table["efficiencies"], Efficiencies, f"{where}: {gpu}.efficiencies")
        shapes = table.get("measured", [])
        if not isinstance(shapes, list):
            raise ScenarioError(f"{where}: {gpu}.measured: must be a list; write [[{gpu}.measured]] above each shape")
        for position, shape in enumerate(shapes, start=1):
            at = f"{where}: {gpu}.measured {position}"
            if not isinstance(shape, dict) or "gpu" in shape:
                raise ScenarioError(f"{at}: must be a table without a field 'gpu'; the GPU is that of {gpu}.measured")
            read = catalog.convert({**_UNSAID, **shape, "gpu": gpu}, Coefficients, at)
            if read.model not in models:
                raise ScenarioError(f"{at}: field 'model': {unknown_name('model', read.model, models)}")
            if any(read.key == other.key for other in measured):
                raise ScenarioError(f"{at}: the same shape stands above; keep one of the two")
            measured.append(read)
    return Fitted(efficiencies, tuple(measured))


def written(fitted: Fitted, comment: str) -> str:
    """The file, for `read_fitted`; `comment` says in a few lines what was measured."""
    parts = ["".join(f"# {line}".rstrip() + "\n" for line in comment.splitlines())]
    for gpu in sorted({*fitted.efficiencies, *(shape.gpu for shape in fitted.measured)}):
        if gpu in fitted.efficiencies:
            parts.append(f"[{gpu}.efficiencies]\n" + _lines(asdict(fitted.efficiencies[gpu])))
        for shape in fitted.measured:
            if shape.gpu == gpu:
                said = {name: value for name, value in asdict(shape).items() if name != "gpu"}
                parts.append(f"[[{gpu}.measured]]\n" + _lines(said))
    return "\n".join(parts)


def rounded_efficiencies(efficiencies: Efficiencies) -> Efficiencies:
    """As a file keeps them."""
    return Efficiencies(**{f.name: _rounded(getattr(efficiencies, f.name)) for f in fields(Efficiencies)})


def rounded_coefficients(coefficients: Coefficients) -> Coefficients:
    """As a file keeps them."""
    return Coefficients(**asdict(coefficients) | {name: _rounded(getattr(coefficients, name)) for name in TIMES})


def _rounded(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")


def _lines(values: Mapping[str, Any]) -> str:
    return "".join(f'{name} = "{v}"\n' if isinstance(v, str) else f"{name} = {v!r}\n" for name, v in values.items())
