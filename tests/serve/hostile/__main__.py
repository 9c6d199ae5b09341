"""`PYTHONPATH=src:tests/serve python -m hostile [CLIENTS [SEED]]`: a siege of a gateway, and its figures."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from hostile.besieged import besieged


def main() -> int:
    clients, seed = (*map(int, sys.argv[1:]), *(24_000, 0)[len(sys.argv) - 1 :])
    with tempfile.TemporaryDirectory() as folder:
        outcome = besieged(Path(folder), clients, seed)
    lines = [*outcome.lines(), *outcome.violations[:20]]
    sys.stdout.write("\n".join(lines) + "\n")
    return 1 if outcome.violations or outcome.growth > 0.05 else 0


if __name__ == "__main__":
    sys.exit(main())
