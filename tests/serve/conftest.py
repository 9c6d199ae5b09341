"""Engines that do what a test says, for the tests of gateways."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from gateway_processes import Engine


@pytest.fixture
def engine() -> Iterator[Engine]:
    engine = Engine()
    yield engine
    engine.close()


@pytest.fixture
def other() -> Iterator[Engine]:
    engine = Engine()
    yield engine
    engine.close()
