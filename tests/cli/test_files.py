"""The operator's files: read_slos and read_envelope."""

import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autopoiesis.control.files import read_envelope, read_slos
from autopoiesis.errors import ScenarioError
from autopoiesis.plan import Envelope
from autopoiesis.workload import SLO

Read = TypeVar("Read")

SMALL, LARGE = "llama-3.1-8b", "llama-3.1-70b"
MODELS = (SMALL, LARGE)
EXAMPLES = Path(__file__).parents[2] / "examples"

WRONG_SLOS = {
    '["llama-3.1-8b"]\nttft_s = nan': "table 'llama-3.1-8b': field 'ttft_s' must be seconds, at least 0",
    '["llama-3.1-8b"]\nttft_s = inf': "field 'ttft_s' must be seconds",
    '["llama-3.1-8b"]\nttft_s = -1': "field 'ttft_s' must be seconds, at least 0 and at most 1e+06, got -1",
    '["llama-3.1-8b"]\nttft_s = 1e9': "field 'ttft_s' must be seconds, at least 0 and at most 1e+06, got 1e+09",
    '["llama-3.1-8b"]\nttft_s = "1"': "field 'ttft_s' must be a number, not text",
    '["llama-3.1-8b"]\nttft_s = true': "field 'ttft_s' must be a number, not true or false",
    '["llama-3.1-8b"]\ntpot_s = 0': "field 'tpot_s' is 0, which no request can meet",
    '["llama-3.1-8b"]\nttft_s = 0\nttft_s_per_input_token = 0': "field 'ttft_s' is 0 for every prompt",
    '["llama-3.1-8b"]\nttft = 1': "unknown field 'ttft'; did you mean ttft_s",
    "[llama-3.1-8b]\nttft_s = 1": "did you mean llama-3.1-8b or llama-3.1-70b",
    '["llama-3.1-9b"]\nttft_s = 1': "unknown model 'llama-3.1-9b'; did you mean llama-3.1-8b",
    "ttft_s = 1": "unknown model 'ttft_s'",
    '"llama-3.1-8b" = 1': "must be a table",
    '["llama-3.1-8b"]\nttft_s = ': "not valid TOML",
    f'["llama-3.1-8b"]\nttft_s = {"9" * 5000}': "a whole number of thousands of digits",
    f"x = {'[' * 5000}": "nested too deeply",
}

WRONG_ENVELOPES = {
    "minimum_replicas = -1": "field 'minimum_replicas' must be replicas, at least 0 and at most 1e+06, got -1",
    "minimum_replicas = 1.5": "field 'minimum_replicas' must be a whole number, not a number",
    "maximum_gpus = 0": "field 'maximum_gpus' must be GPUs, above 0",
    "maximum_cost_per_hour = nan": "field 'maximum_cost_per_hour' must be US dollars per hour, above 0",
    "maximum_cost_per_hour = -3": "got -3",
    "moves_per_hour = -1": "field 'moves_per_hour' must be replica starts per hour, at least 0",
    "moves_per_hor = 1": "unknown field 'moves_per_hor'; did you mean moves_per_hour",
    "class_floor = 3": "field 'class_floor' must be a table of a request class and a number of replicas each",
    '[class_floor]\n"llama-3.1-8b/<513" = 2': "unknown request class 'llama-3.1-8b/<513'; did you mean",
    '[class_floor]\n"llama-3.1-8b/<512" = 2.5': "'llama-3.1-8b/<512' must be a whole number of replicas, got 2.5",
    '[minimum_replicas_of]\n"llama-3.1-8b" = true': "must be a whole number of replicas, got True",
    '[minimum_replicas_of]\n"llama-3.1-8b" = -2': "field 'minimum_replicas_of.llama-3.1-8b' must be replicas",
    "[minimum_replicas_of]\nllama-3.1-8b = 2": "in quotes",
    '[minimum_replicas_of]\n"llama-3.1-9b" = 2': "unknown model 'llama-3.1-9b'; did you mean llama-3.1-8b",
    f"maximum_gpus = {10**40}": "maximum_gpus",
}


def written(folder: Path, text: str) -> str:
    path = folder / "file.toml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_a_field_that_is_left_out_keeps_the_default_of_its_model(tmp_path: Path) -> None:
    path = written(tmp_path, '["llama-3.1-8b"]\nttft_s = 0.5\n["llama-3.1-70b"]\nttft_s_per_input_token = 0')
    assert read_slos(path, MODELS) == {SMALL: SLO(0.5, 0.0005, 0.05), LARGE: SLO(1.0, 0.0, 0.1)}


def test_a_file_may_speak_of_models_that_are_not_served(tmp_path: Path) -> None:
    slos = written(tmp_path, '["llama-3.1-8b"]\nttft_s = 0.5\n["llama-3.1-405b"]\ntpot_s = 0.2')
    assert set(read_slos(slos, MODELS)) == {SMALL}
    envelope = written(
        tmp_path, '[minimum_replicas_of]\n"llama-3.1-405b" = 2\n[class_floor]\n"llama-3.1-405b/<512" = 3'
    )
    assert read_envelope(envelope, MODELS) == Envelope()


def test_what_is_wrong_for_a_model_that_is_not_served_is_an_error_all_the_same(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match="tpot_s"):
        read_slos(written(tmp_path, '["llama-3.1-405b"]\ntpot_s = -1'), MODELS)


def test_an_empty_file_changes_nothing(tmp_path: Path) -> None:
    assert read_slos(written(tmp_path, ""), MODELS) == {}
    assert read_envelope(written(tmp_path, ""), MODELS) == Envelope()


def test_an_envelope_holds_every_bound_of_its_file(tmp_path: Path) -> None:
    text = """
    minimum_replicas = 2
    maximum_gpus = 24
    maximum_cost_per_hour = 40
    moves_per_hour = 0
    [minimum_replicas_of]
    "llama-3.1-70b" = 3
    [class_floor]
    "llama-3.1-8b/longer" = 2
    """
    assert read_envelope(written(tmp_path, text), MODELS) == Envelope(
        2, {LARGE: 3}, 24, 40.0, 0, {"llama-3.1-8b/longer": 2}
    )


def test_the_examples_can_be_read_and_use_every_field() -> None:
    assert read_slos(str(EXAMPLES / "slo.toml"), MODELS)[SMALL] == SLO(0.5, 0.0005, 0.04)
    envelope = read_envelope(str(EXAMPLES / "envelope.toml"), MODELS)
    used = set(tomllib.loads((EXAMPLES / "envelope.toml").read_text()))
    assert used == set(Envelope.__dataclass_fields__)
    assert envelope.minimum_for(SMALL) == 2


@pytest.mark.parametrize(("text", "said"), WRONG_SLOS.items())
def test_a_wrong_slo_file_is_refused_with_file_field_and_mend(tmp_path: Path, text: str, said: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(ScenarioError) as caught:
        read_slos(path, MODELS)
    assert str(caught.value).startswith(path)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("text", "said"), WRONG_ENVELOPES.items())
def test_a_wrong_envelope_is_refused_with_file_field_and_mend(tmp_path: Path, text: str, said: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(ScenarioError) as caught:
        read_envelope(path, MODELS)
    assert str(caught.value).startswith(path)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    for path in (tmp_path / "absent.toml", tmp_path):
        with pytest.raises(ScenarioError, match=r"cannot be read: .*; give the path of a TOML file"):
            read_slos(str(path), MODELS)
    latin = tmp_path / "latin.toml"
    latin.write_bytes(b"\n\n# \xe9")
    with pytest.raises(ScenarioError, match="line 3: not UTF-8"):
        read_envelope(str(latin), MODELS)
    huge = tmp_path / "huge.toml"
    huge.write_bytes(b"#" * (2 << 20))
    with pytest.raises(ScenarioError, match="larger than"):
        read_envelope(str(huge), MODELS)


FRAGMENTS = st.sampled_from(
    [
        "nan",
        "-1",
        "inf",
        "[",
        "]",
        "=",
        '"',
        "\n",
        "9" * 4400,
        "true",
        "{}",
        "1979-05-27",
        "\x00",
        "'",
        "x.y=1",
        "[[a]]",
    ]
)


@st.composite
def mutated(draw: st.DrawFn, name: str) -> bytes:
    content = (EXAMPLES / name).read_bytes()
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(content)))
        end = min(len(content), start + draw(st.integers(0, 40)))
        patch = draw(st.one_of(st.binary(max_size=6), FRAGMENTS.map(str.encode)))
        content = content[:start] + patch + content[end:]
    return content


def attempt(read: Callable[[str, tuple[str, ...]], Read], path: Path) -> Read | None:
    """What was read, or None if it was refused in one line that begins with the file."""
    try:
        return read(str(path), MODELS)
    except ScenarioError as error:
        refusal = str(error)
    assert refusal.startswith(str(path))
    assert len(refusal.splitlines()) == 1
    return None


@settings(max_examples=300, deadline=None)
@given(mutated("slo.toml"), mutated("envelope.toml"))
def test_a_damaged_file_is_read_with_sound_values_or_refused_in_one_line(
    tmp_path_factory: pytest.TempPathFactory, slo: bytes, envelope: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "damaged.toml"
    path.write_bytes(slo)
    for promised in (attempt(read_slos, path) or {}).values():
        assert 0 <= promised.ttft_s <= 1e6
        assert 0 < promised.tpot_s <= 1e6
    path.write_bytes(envelope)
    bounds = attempt(read_envelope, path) or Envelope()
    assert all(0 <= count <= 1e6 for count in (bounds.minimum_replicas, *bounds.class_floor.values()))
