"""The benchmark of reading: files that are what they claim to be."""

from __future__ import annotations

from pathlib import Path

import pytest

from autopoiesis.bench import reading
from autopoiesis.workload import read_requests
from autopoiesis.workload.readers import read_trace


@pytest.mark.parametrize("suffix", [".csv", ".csv.gz"])
@pytest.mark.parametrize("name", reading.FORMATS)
def test_each_file_is_recognised_and_holds_the_same_load(name: str, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"trace{suffix}"
    reading.write(path, name, 500)
    assert name.split()[0] in read_trace(str(path)).format
    requests = read_requests(str(path))
    assert len(requests) == 500
    other = tmp_path / "other.csv"
    reading.write(other, "normalised", 500)
    assert requests.input_tokens.tolist() == read_requests(str(other)).input_tokens.tolist()


def test_every_format_is_measured_plain_and_gzipped(tmp_path: Path) -> None:
    figures = reading.figures(tmp_path, rows=200)
    assert len(figures) == 4 * len(reading.FORMATS)
    assert all(figure.values and figure.goal for figure in figures)
    assert not list(tmp_path.iterdir())
