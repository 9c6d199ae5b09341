"""`python -m autopoiesis` is the command `autopoiesis`."""

import sys

from autopoiesis.cli import main

if __name__ == "__main__":
    sys.exit(main())
