"""Measured engine steps as columns, read from a CSV file.

| column | meaning |
|---|---|
| `system` | GPU kind, with or without the form factor: `h100_sxm` |
| `model`, `dtype`, `tp` | model of the catalog in any case, dtype of the weights, tensor parallel degree |
| `kind` | `prefill_step`: `batch` prompts of `isl` tokens, nothing cached. `decode_step`: `decode_seqs` sequences, one new token each on a context of `osl_or_ctx`. `mixed_step`: `prefill_tokens` of prompts of `isl` beside `decode_seqs` sequences that write `osl_or_ctx` tokens each |
| `prefill_tokens`, `decode_seqs` | new prompt tokens and decoding sequences in the step |
| `latency_ms` | of the step |

Further columns are ignored. In a mixed step the position of the chunk in its prompt is not known. Over all chunks of a
prompt S² − p² sums to isl², so a chunk's share, on average over positions, is `prefill_tokens` · `isl`; likewise a
decoding sequence is taken halfway through its output, at a context of `isl` + `osl_or_ctx` / 2.
"""  # noqa: E501 - a row of a table is a line

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from autopoiesis.cluster import GPU, Model
from autopoiesis.cost.coefficients import DTYPE
from autopoiesis.errors import unknown_name
from autopoiesis.workload.cells import Number, numbers
from autopoiesis.workload.source import fault, shown
from autopoiesis.workload.table import Block, Table, open_table

PREFILL, DECODE, MIXED = range(3)
PHASES = ("prefill", "decode", "mixed")
KINDS = {"prefill_step": PREFILL, "decode_step": DECODE, "mixed_step": MIXED}

FORM_FACTORS = ("_sxm",)
"""Ends of a system's name that the data sheets of the catalog stand for. A card of another form factor, `_pcie` say, is
another GPU."""

TP = Number("tp", 1, 1024, whole=True)
BATCH = Number("batch", 1, 1e6, whole=True)
ISL = Number("isl", 1, 1e8, whole=True, optional=True)
CONTEXT = Number("osl_or_ctx", 1, 1e8, whole=True, optional=True)
PREFILL_TOKENS = Number("prefill_tokens", 0, 1e9, whole=True)
DECODE_SEQS = Number("decode_seqs", 0, 1e6, whole=True)
LATENCY = Number("latency_ms", 1e-3, 1e7, whole=False)
NUMBERS = (TP, BATCH, ISL, CONTEXT, PREFILL_TOKENS, DECODE_SEQS, LATENCY)
NAMES = ("system", "model", "dtype", "kind")
COLUMNS = (*NAMES, *(number.name for number in NUMBERS))


@dataclass(frozen=True, slots=True, order=True)
class MeasuredShape:
    """What the steps were measured on."""

    gpu: str
    model: str
    tensor_parallel: int


@dataclass(frozen=True, slots=True)
class MeasuredSteps:
    """n steps as columns."""

    shapes: tuple[MeasuredShape, ...]
    """Those that there are, in canonical order."""
    shape: NDArray[np.int64]
    """(n,) index into `shapes`."""
    phase: NDArray[np.int64]
    """(n,) PREFILL, DECODE or MIXED."""
    prefill_tokens: NDArray[np.float64]
    """(n,) new prompt tokens."""
    attention: NDArray[np.float64]
    """(n,) their Σ(S² − p²)."""
    sequences: NDArray[np.float64]
    """(n,) decoding sequences."""
    context: NDArray[np.float64]
    """(n,) their Σ context."""
    seconds: NDArray[np.float64]
    """(n,) measured."""

    def __len__(self) -> int:
        return len(self.seconds)

    def where(self, chosen: NDArray[np.bool_]) -> MeasuredSteps:
        """The chosen steps; shapes that have none left are dropped."""
        kept = np.unique(self.shape[chosen])
        return replace(
            self,
            shapes=tuple(self.shapes[i] for i in kept),
            shape=np.searchsorted(kept, self.shape[chosen]),
            phase=self.phase[chosen],
            prefill_tokens=self.prefill_tokens[chosen],
            attention=self.attention[chosen],
            sequences=self.sequences[chosen],
            context=self.context[chosen],
            seconds=self.seconds[chosen],
        )

    def of(self, *shapes: MeasuredShape) -> MeasuredSteps:
        """The steps of these shapes."""
        return self.where(np.isin(self.shape, [i for i, shape in enumerate(self.shapes) if shape in shapes]))


def read_measured_steps(path: str, models: Mapping[str, Model], gpus: Mapping[str, GPU]) -> MeasuredSteps:
    """Raises TraceError, one line with file, line, column and mend."""
    known = {name.casefold(): name for name in models}
    shapes: dict[MeasuredShape, int] = {}
    parts = []
    with open_table(path) as table:
        _check_header(table)
        for block in table.blocks():
            parts.append(_block(table, block, known, gpus, shapes))
    if not parts:
        raise fault(path, None, "has a header and no rows; at least one measured step is needed")
    columns = [np.concatenate(column) for column in zip(*parts, strict=True)]
    canonical = sorted(shapes)
    order = np.array([canonical.index(shape) for shape in shapes], dtype=np.int64)
    number, phase = columns[0].astype(np.int64), columns[1].astype(np.int64)
    return MeasuredSteps(tuple(canonical), order[number], phase, *columns[2:])


def _check_header(table: Table) -> None:
    for name in COLUMNS:
        if table.header.count(name) > 1:
            raise fault(table.path, table.first_line, f"column {name!r}: named twice or more; keep one")
        if name not in table.header:
            text = f"column {name!r}: missing from the header; measured steps have the columns {','.join(COLUMNS)}"
            raise fault(table.path, table.first_line, text)


def _block(
    table: Table, block: Block, models: Mapping[str, str], gpus: Mapping[str, GPU], shapes: dict[MeasuredShape, int]
) -> tuple[NDArray[np.float64], ...]:
    """Columns of `MeasuredSteps`; `shapes` numbers the shapes as they come."""
    tp, batch, isl, context, prefill_tokens, sequences, latency_ms = (
        numbers(table, block, column) for column in NUMBERS
    )
    system, model, dtype, kind = ([cell.strip() for cell in block.texts(table.header.index(name))] for name in NAMES)
    for i, line in enumerate(block.lines):
        wrong = (
            _name("system", "GPU", system[i], _gpu(system[i]), gpus)
            or _name("model", "model", model[i], model[i].casefold(), models)
            or _name("kind", "kind of step", kind[i], kind[i], KINDS)
            or (f"column 'dtype': {shown(dtype[i])}; only {DTYPE} can be calibrated" if dtype[i] != DTYPE else "")
            or _inconsistent(kind[i], batch[i], isl[i], context[i], prefill_tokens[i], sequences[i])
        )
        if wrong:
            raise fault(table.path, line, wrong)
    number = [
        shapes.setdefault(MeasuredShape(_gpu(s), models[m.casefold()], int(t)), len(shapes))
        for s, m, t in zip(system, model, tp, strict=True)
    ]
    phase = np.array([KINDS[name] for name in kind])
    decoding = phase == DECODE
    prompt = np.where(decoding, 0.0, isl)
    held = np.select([decoding, phase == MIXED], [context, isl + context / 2], 0.0)
    attention = prefill_tokens * prompt
    return (
        np.array(number, dtype=np.float64),
        phase.astype(np.float64),
        prefill_tokens,
        attention,
        sequences,
        sequences * held,
        latency_ms / 1e3,
    )


def _gpu(system: str) -> str:
    name = system.casefold()
    for end in FORM_FACTORS:
        name = name.removesuffix(end)
    return name


def _name(column: str, what: str, cell: str, name: str, known: Mapping[str, object]) -> str:
    if name in known:
        return ""
    return f"column {column!r}: {unknown_name(what, cell[:40], known)}"


def _inconsistent(kind: str, batch: float, isl: float, context: float, prefill_tokens: float, sequences: float) -> str:
    """What is wrong with a step's columns taken together; empty if nothing is."""
    if kind != "decode_step" and np.isnan(isl):
        return f"column 'isl': blank in a {kind}; write the prompt's tokens"
    if kind != "prefill_step" and np.isnan(context):
        tokens = "context" if kind == "decode_step" else "output"
        return f"column 'osl_or_ctx': blank in a {kind}; write the {tokens} tokens of a sequence"
    if kind == "prefill_step" and prefill_tokens != batch * isl:
        return (
            f"column 'prefill_tokens': {prefill_tokens:g} in a prefill_step of {batch:g} x {isl:g}; write the product"
        )
    if kind == "decode_step" and prefill_tokens:
        return f"column 'prefill_tokens': {prefill_tokens:g} in a decode_step; write 0, or mixed_step as its kind"
    if kind == "mixed_step" and not prefill_tokens:
        return "column 'prefill_tokens': 0 in a mixed_step; write decode_step as its kind"
    if kind == "prefill_step" and sequences:
        return f"column 'decode_seqs': {sequences:g} in a prefill_step; write 0, or mixed_step as its kind"
    if kind != "prefill_step" and not sequences:
        return f"column 'decode_seqs': 0 in a {kind}; write the sequences that decode, or prefill_step as its kind"
    return ""
