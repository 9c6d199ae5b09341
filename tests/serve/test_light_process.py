"""A gateway is started in many copies beside engines that need the memory."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROUTE = '''"""Sends everything to the first."""

interface = 1


def should_reschedule(state):
    return False


def plan(state):
    return None


def route(request, replicas):
    return 0
'''


def test_what_serves_imports_neither_numpy_nor_a_compiler() -> None:
    code = "import sys, autopoiesis.serve.__main__; print(sorted({'numpy', 'numba', 'rich'} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="the system does not tell of the parts of a process")
def test_a_route_goes_on_once_the_linker_s_pages_are_given_back() -> None:
    code = f"""
import re
from array import array
from autopoiesis.policy.fields import REPLICA_FIELDS, REQUEST_FIELDS
from autopoiesis.policy.native import CompiledRoute, page_linker_out
from autopoiesis.policy.compiler import Compiler

def resident():
    return int(re.search(r"Rss:\\s+(\\d+)", open("/proc/self/smaps_rollup").read())[1])

with Compiler() as compiler:
    code = compiler.submit_objects({ROUTE!r}).result().route
request, rows = array("d", bytes(8 * len(REQUEST_FIELDS))), array("d", bytes(8 * len(REPLICA_FIELDS)))
for _ in range(3):
    route = CompiledRoute(code)
    before = resident()
    page_linker_out()
    print(before - resident(), route.at(request.buffer_info()[0], rows.buffer_info()[0], 1))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    lines = [re.fullmatch(r"(-?\d+) (\d+)", line) for line in done.stdout.splitlines()]
    assert [line[2] for line in lines if line is not None] == ["0", "0", "0"]
    first = lines[0]
    assert first is not None
    assert int(first[1]) > 10_000
