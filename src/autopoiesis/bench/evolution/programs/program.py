"""What the peers evolve."""

# EVOLVE-BLOCK-START
CONST = 0.1


def run() -> float:
    # LOOP
    return 1.0 - (CONST - 0.7) ** 2


# EVOLVE-BLOCK-END
