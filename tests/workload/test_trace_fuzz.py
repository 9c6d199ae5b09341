"""Two thousand damaged files of all formats: each is read, or refused in one line, with little memory and soon."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

FILES = 2_000
PARTS = 2


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="how much memory a process holds is read from /proc")
@pytest.mark.parametrize("seed", range(PARTS))
def test_a_damaged_file_is_read_or_refused(tmp_path: Path, seed: int) -> None:
    command = [sys.executable, str(Path(__file__).with_name("fuzz_traces.py")), str(seed), str(FILES // PARTS)]
    # Threads of numeric libraries would count as memory, a stack each.
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*command, str(tmp_path)], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["problems"] == []
    # Damage that nobody survives would only test the first check.
    assert result["read"] > FILES // PARTS // 20
