"""Files of coefficients: written and read back, errors with their mends, ours over the package's."""

from __future__ import annotations

import tomllib
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autopoiesis.cluster import catalog
from autopoiesis.cost import Coefficients, Efficiencies, Fitted
from autopoiesis.cost.coefficients import TIMES
from autopoiesis.cost.efficiencies import BOUNDS, UNMEASURED
from autopoiesis.cost.fitted import read_fitted, rounded_coefficients, rounded_efficiencies, shipped, written
from autopoiesis.errors import ScenarioError

SHAPE = shipped().measured[0]
SHAPE_LINES = "\n".join(f"{name} = 1.0" for name in TIMES)
SHAPE_FILE = f'[[h100.measured]]\nmodel = "llama-3.1-8b"\ntensor_parallel = 1\n{SHAPE_LINES}\n'
KIND_FILE = "[h100.efficiencies]\n" + "\n".join(f"{name} = {low!r}" for name, (low, _) in BOUNDS.items()) + "\n"

kinds = st.builds(Efficiencies, **{name: st.floats(low, high) for name, (low, high) in BOUNDS.items()})
shapes = st.builds(
    Coefficients,
    model=st.sampled_from(sorted(catalog.models())),
    gpu=st.sampled_from(sorted(catalog.gpus())),
    tensor_parallel=st.integers(1, 16),
    pipeline_parallel=st.integers(1, 4),
    engine=st.just("vllm"),
    dtype=st.sampled_from(["bf16", "fp8"]),
    **dict.fromkeys(TIMES, st.floats(0, 1)),
)


def read(text: str) -> Fitted:
    return read_fitted(tomllib.loads(text), "my.toml")


@given(
    st.dictionaries(st.sampled_from(sorted(catalog.gpus())), kinds, max_size=3),
    st.lists(shapes, max_size=4, unique_by=lambda shape: shape.key),
)
def test_what_is_written_is_read_back(efficiencies: dict[str, Efficiencies], measured: list[Coefficients]) -> None:
    kept = {gpu: rounded_efficiencies(kind) for gpu, kind in efficiencies.items()}
    fitted = Fitted(kept, tuple(rounded_coefficients(s) for s in sorted(measured, key=lambda s: s.gpu)))
    if kept or measured:
        assert read(written(fitted, "Of two\nlines.")) == fitted


@given(kinds)
def test_rounding_keeps_four_digits_and_the_bounds(kind: Efficiencies) -> None:
    kept = rounded_efficiencies(kind)
    for name in BOUNDS:
        assert getattr(kept, name) == pytest.approx(getattr(kind, name), rel=5e-4)


def test_the_package_ships_what_was_measured() -> None:
    assert set(shipped().efficiencies) == {"a100", "h100", "h200"}
    assert {(s.gpu, s.model, s.tensor_parallel) for s in shipped().measured} == {
        (gpu, model, tp)
        for gpu in ("a100", "h100")
        for model, degrees in (("llama-3.1-8b", (1, 2, 4)), ("llama-3.1-70b", (2, 4)))
        for tp in degrees
    }


def test_a_shape_may_leave_out_what_is_usual() -> None:
    (shape,) = read(SHAPE_FILE).measured
    assert shape.key == ("llama-3.1-8b", "h100", 1, 1, "vllm", "bf16")


def test_ours_come_before_the_packages() -> None:
    own = replace(SHAPE, token_s=1.0)
    both = Fitted(measured=(own,)).over(shipped())
    assert both.measured == (own, *shipped().measured)
    assert both.efficiencies == shipped().efficiencies


def test_efficiencies_of_ours_replace_all_that_the_package_has_of_the_gpu() -> None:
    both = Fitted({"h100": UNMEASURED}).over(shipped())
    assert both.efficiencies["h100"] == UNMEASURED
    assert {shape.gpu for shape in both.measured} == {"a100"}
    assert Fitted().over(shipped()) == shipped()


WRONG = {
    "": "my.toml: is empty; write one with autopoiesis calibrate --out",
    "[h10]\nx = 1": "my.toml: unknown GPU 'h10'; did you mean h100 or",
    "h100 = 1": "my.toml: h100: must be a table; write [h100.efficiencies] above its fields",
    "[h100]": "my.toml: h100: must be a table",
    "[h100.efficiency]\nlinear = 1": "my.toml: h100: unknown table 'efficiency'; did you mean efficiencies?",
    "[h100.efficiencies]\nlinear = 0.8": "my.toml: h100.efficiencies: field 'elementwise' is missing; add it",
    KIND_FILE.replace("linear = 0.4", "linear = 1.2"): "field 'linear' must be from 0.4 to 1, not 1.2",
    KIND_FILE.replace("linear = 0.4", "linear = nan"): "field 'linear' must be from 0.4 to 1, not nan",
    KIND_FILE.replace("linear = 0.4", 'linear = "fast"'): "field 'linear' must be a number, not text",
    KIND_FILE + "lin = 1": "unknown field 'lin'; did you mean linear?",
    "[h100.measured]\nmodel = 1": "h100.measured: must be a list; write [[h100.measured]] above each shape",
    SHAPE_FILE + 'gpu = "a100"': "h100.measured 1: must be a table without a field 'gpu'",
    SHAPE_FILE.replace("8b", "9b"): "h100.measured 1: field 'model': unknown model 'llama-3.1-9b'; did you mean",
    SHAPE_FILE.replace("token_s = 1.0", "token_s = -1.0"): "field 'token_s' must be seconds, 0 to 1000, not -1",
    SHAPE_FILE.replace("token_s = 1.0", "token_s = inf"): "field 'token_s' must be seconds, 0 to 1000, not inf",
    SHAPE_FILE.replace("tensor_parallel = 1", "tensor_parallel = 0"): "'tensor_parallel' must be 1 or more, not 0",
    SHAPE_FILE.replace("token_s = 1.0\n", ""): "h100.measured 1: field 'token_s' is missing; add it",
    SHAPE_FILE + SHAPE_FILE: "h100.measured 2: the same shape stands above; keep one of the two",
}


@pytest.mark.parametrize("text", WRONG)
def test_what_is_wrong_is_said_in_one_line(text: str) -> None:
    with pytest.raises(ScenarioError) as error:
        read(text)
    assert WRONG[text] in str(error.value)
    assert str(error.value).startswith("my.toml: ")
    assert "\n" not in str(error.value)
