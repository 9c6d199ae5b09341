"""Small plots for a terminal, out of block characters."""

from __future__ import annotations

import math
from collections.abc import Sequence

EIGHTHS = " ▁▂▃▄▅▆▇█"
BAR = " ▏▎▍▌▋▊▉█"


def curve(title: str, values: Sequence[float], end: str, height: int = 6) -> str:
    """A column per value from 0 up; `end` is what stands under the last one."""
    top = max(values)
    lines = [title]
    for row in range(height, 0, -1):
        label = f"{top * row / height:.3g}"
        cells = (value / top * height - (row - 1) if top else 0.0 for value in values)
        lines.append(f"{label:>8} " + "".join(EIGHTHS[min(max(round(8 * cell), 0), 8)] for cell in cells))
    lines.append(f"{'0':>8} " + "0" + end.rjust(len(values) - 1))
    return "\n".join(line.rstrip() for line in lines) + "\n"


def bars(title: str, labels: Sequence[str], shares: Sequence[float], width: int = 60) -> str:
    """A bar per share, the largest of the given width."""
    most = max(shares)
    lines = [title]
    for label, share in zip(labels, shares, strict=True):
        eighths = round(8 * width * share / most) if most else 0
        bar = BAR[8] * (eighths // 8) + BAR[eighths % 8].strip()
        lines.append(f"{label:>8} {bar} {100 * share:.1f} %")
    return "\n".join(lines) + "\n"


def doubling_bins(longest: float) -> list[int]:
    """0, 1, 2, 4, … up to beyond the longest: limits of bins, each from one limit to below the next."""
    return [0, *(2**power for power in range(max(math.ceil(math.log2(longest + 1)), 0) + 1))]
