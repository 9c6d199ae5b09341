"""Engines as child processes: they say their address, and they are gone afterwards with all that they started."""

from __future__ import annotations

import os
import sys
import time

import pytest

from autopoiesis.bench.engine_process import running_engine
from autopoiesis.errors import AutopoiesisError

SERVES = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
print("a banner"); print("http://127.0.0.1:1"); print(child.pid, flush=True)
time.sleep(60)
"""


def test_the_whole_group_goes() -> None:
    with running_engine([sys.executable, "-c", SERVES], start_s=30) as engine:
        assert engine.address == "http://127.0.0.1:1"
        os.killpg(engine.group, 0)
    for _ in range(100):
        try:
            os.killpg(engine.group, 0)
        except ProcessLookupError:
            return
        time.sleep(0.05)
    raise AssertionError("the group is still there")


def test_an_engine_that_says_nothing_is_given_up_with_its_last_words() -> None:
    silent = "import sys, time; sys.stderr.write('out of luck'); sys.stderr.flush(); time.sleep(60)"
    with (
        pytest.raises(AutopoiesisError, match="no address within 1 s; it said: out of luck"),
        running_engine([sys.executable, "-c", silent], start_s=1.0),
    ):
        pass


def test_an_engine_that_ends_at_once_is_not_waited_for() -> None:
    began_s = time.monotonic()
    with (
        pytest.raises(AutopoiesisError, match="no address"),
        running_engine([sys.executable, "-c", "print('done')"], start_s=60),
    ):
        pass
    assert time.monotonic() - began_s < 30


def test_a_command_that_is_not_there_is_named() -> None:
    with (
        pytest.raises(AutopoiesisError, match="'no-such-engine': cannot be started"),
        running_engine(["no-such-engine"], 1),
    ):
        pass
