"""Reading measured steps: what the columns mean, and what is said of a bad file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from step_tables import HARDWARE, HEADER, table

from autopoiesis.cost.measurements import DECODE, MIXED, PREFILL, MeasuredShape, MeasuredSteps, read_measured_steps
from autopoiesis.errors import TraceError

PREFILL_ROW = "h100_sxm,1.0,Llama-3.1-8B,bf16,1,prefill_step,2,512,,1024,0,22.1"
DECODE_ROW = "a100_sxm,1.0,Llama-3.1-70B,bf16,4,decode_step,8,,2048,0,8,30.5"
MIXED_ROW = "h100_sxm,1.0,Llama-3.1-8B,bf16,1,mixed_step,5,4096,256,1024,4,25.0"


def read(path: Path, *lines: str) -> MeasuredSteps:
    path.write_text("\n".join(lines) + "\n")
    return read_measured_steps(str(path), HARDWARE.models, HARDWARE.gpus)


def test_every_kind_of_step_becomes_the_work_in_it(tmp_path: Path) -> None:
    steps = read(tmp_path / "s.csv", HEADER, PREFILL_ROW, DECODE_ROW, "", MIXED_ROW)
    assert steps.shapes == (MeasuredShape("a100", "llama-3.1-70b", 4), MeasuredShape("h100", "llama-3.1-8b", 1))
    assert steps.shape.tolist() == [1, 0, 1]
    assert steps.phase.tolist() == [PREFILL, DECODE, MIXED]
    assert steps.prefill_tokens.tolist() == [1024, 0, 1024]
    assert steps.attention.tolist() == [2 * 512**2, 0, 1024 * 4096]
    assert steps.sequences.tolist() == [0, 8, 4]
    assert steps.context.tolist() == [0, 8 * 2048, 4 * (4096 + 128)]
    assert steps.seconds.tolist() == pytest.approx([0.0221, 0.0305, 0.025])


@given(st.integers(1, 64), st.integers(1, 4096))
def test_a_chunk_of_a_mixed_step_stands_for_the_mean_over_its_prompt(chunks: int, chunk: int) -> None:
    ends = chunk * np.arange(1, chunks + 1, dtype=np.float64)
    attention = ends**2 - (ends - chunk) ** 2
    assert attention.mean() == pytest.approx(chunk * (chunks * chunk))


def test_the_order_of_columns_and_further_columns_do_not_matter(tmp_path: Path) -> None:
    def turned(line: str) -> str:
        return ",".join([*reversed(line.split(",")), "note"])

    usual = read(tmp_path / "a.csv", HEADER, PREFILL_ROW, MIXED_ROW)
    other = read(tmp_path / "b.csv", *map(turned, (HEADER, PREFILL_ROW, MIXED_ROW)))
    assert usual.shapes == other.shapes
    assert np.array_equal(usual.attention, other.attention)
    assert np.array_equal(usual.seconds, other.seconds)


def test_the_steps_of_a_shape_are_taken_apart(tmp_path: Path) -> None:
    steps = read(tmp_path / "s.csv", table().strip(), table(system="a100").partition("\n")[2].strip())
    for shape in steps.shapes:
        part = steps.of(shape)
        assert part.shapes == (shape,)
        assert len(part) == 6 + 9 + 6
    assert len(steps.of(*steps.shapes[:3])) + len(steps.of(*steps.shapes[3:])) == len(steps)


def changed(row: str, **cells: str) -> str:
    names = HEADER.split(",")
    return ",".join(cells.get(name, cell) for name, cell in zip(names, row.split(","), strict=True))


WRONG = [
    (changed(PREFILL_ROW, system="h100_pcie"), "line 2: column 'system': unknown GPU 'h100_pcie'; did you mean h100"),
    (changed(PREFILL_ROW, model="llama-2"), "line 2: column 'model': unknown model 'llama-2'; did you mean"),
    (changed(PREFILL_ROW, dtype="fp8"), "line 2: column 'dtype': 'fp8'; only bf16 can be calibrated"),
    (
        changed(PREFILL_ROW, kind="prefil_step"),
        "line 2: column 'kind': unknown kind of step 'prefil_step'; did you mean",
    ),
    (changed(PREFILL_ROW, tp="0"), "line 2: column 'tp': '0' is too small; write 1 or more"),
    (changed(PREFILL_ROW, tp="1.5"), "line 2: column 'tp': '1.5' is not a whole number"),
    (changed(PREFILL_ROW, latency_ms="nan"), "line 2: column 'latency_ms': 'nan' is not finite"),
    (changed(PREFILL_ROW, latency_ms="-3"), "line 2: column 'latency_ms': '-3' is negative"),
    (changed(PREFILL_ROW, latency_ms="0"), "line 2: column 'latency_ms': '0' is too small"),
    (changed(PREFILL_ROW, latency_ms=""), "line 2: column 'latency_ms': blank"),
    (changed(PREFILL_ROW, latency_ms="1e300"), "line 2: column 'latency_ms': '1e300' is beyond 1e+07; check the unit"),
    (changed(PREFILL_ROW, batch="x"), "line 2: column 'batch': 'x' is not a number"),
    (changed(PREFILL_ROW, isl=""), "line 2: column 'isl': blank in a prefill_step; write the prompt's tokens"),
    (changed(PREFILL_ROW, prefill_tokens="1000"), "column 'prefill_tokens': 1000 in a prefill_step of 2 x 512; write"),
    (changed(PREFILL_ROW, decode_seqs="1"), "column 'decode_seqs': 1 in a prefill_step; write 0, or mixed_step"),
    (changed(DECODE_ROW, osl_or_ctx=""), "column 'osl_or_ctx': blank in a decode_step; write the context tokens"),
    (changed(DECODE_ROW, prefill_tokens="5"), "column 'prefill_tokens': 5 in a decode_step; write 0, or mixed_step"),
    (changed(DECODE_ROW, decode_seqs="0"), "column 'decode_seqs': 0 in a decode_step; write the sequences"),
    (changed(MIXED_ROW, prefill_tokens="0"), "column 'prefill_tokens': 0 in a mixed_step; write decode_step"),
    (changed(MIXED_ROW, osl_or_ctx=""), "column 'osl_or_ctx': blank in a mixed_step; write the output tokens"),
    (changed(MIXED_ROW, decode_seqs="0"), "column 'decode_seqs': 0 in a mixed_step; write the sequences"),
    (PREFILL_ROW + ",1", "line 2: 13 fields under a header of 12"),
    (PREFILL_ROW.rpartition(",")[0], "line 2: column 'latency_ms': missing"),
]


@pytest.mark.parametrize(("row", "said"), WRONG)
def test_a_bad_row_is_named_by_line_and_column(tmp_path: Path, row: str, said: str) -> None:
    with pytest.raises(TraceError) as error:
        read(tmp_path / "s.csv", HEADER, row, DECODE_ROW)
    assert said in str(error.value)
    assert str(error.value).startswith(f"{tmp_path / 's.csv'}: line 2: ")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ((HEADER,), "has a header and no rows"),
        ((), "is empty"),
        (
            (HEADER.replace("latency_ms", "latency"), PREFILL_ROW),
            "line 1: column 'latency_ms': missing",
        ),
        ((HEADER + ",tp", PREFILL_ROW + ",1"), "line 1: column 'tp': named twice or more; keep one"),
    ],
)
def test_a_bad_file_is_named(tmp_path: Path, lines: tuple[str, ...], said: str) -> None:
    with pytest.raises(TraceError) as error:
        read(tmp_path / "s.csv", *lines)
    assert said in str(error.value)
    assert str(tmp_path / "s.csv") in str(error.value)


def test_a_file_that_is_not_there_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match="no such file"):
        read_measured_steps(str(tmp_path / "none.csv"), HARDWARE.models, HARDWARE.gpus)
