"""Numbers as people read them: few digits, no exponents."""

from __future__ import annotations


def short(value: float) -> str:
    """Three significant digits without an exponent: `0.012`, `1.23`, `45.6`, `1234`."""
    if value == 0:
        return "0"
    size = abs(value)
    digits = 0 if size >= 99.95 else 1 if size >= 9.995 else 2 if size >= 0.0995 else 3
    return f"{value:.{digits}f}"


def dollars(value: float) -> str:
    """Three significant digits: prices of a thousand answers lie between cents and hundreds of dollars."""
    return f"{value:.3g}" if value < 99.95 else f"{value:.0f}"


def clock(seconds: float) -> str:
    """`h:mm:ss` of virtual time."""
    whole = int(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02}"


def change(value: float | None, reference: float | None) -> float | None:
    """Per cent that the value is above the reference, to a tenth; None where there is nothing to compare with."""
    if value is None or not reference:
        return None
    # Adding zero takes the sign off a negative zero.
    return round(100 * (value / reference - 1), 1) + 0.0


def span(seconds: float) -> str:
    """A length of time: `45 s`, `12 min`, `3.5 h`."""
    if seconds < 90:
        return f"{short(seconds)} s"
    return f"{seconds / 60:.3g} min" if seconds < 5400 else f"{seconds / 3600:.3g} h"


def grouped(count: int) -> str:
    """A whole number, thousands apart: `12,345`."""
    return f"{count:,}"


def counted(count: int, noun: str, plural: str = "") -> str:
    """`no swap`, `1 swap`, `1,234 swaps`."""
    if count == 0:
        return f"no {noun}"
    return f"{grouped(count)} {noun if count == 1 else plural or noun + 's'}"
