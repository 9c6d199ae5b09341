"""Columns of plain decimals and moments straight from the bytes of a file, many rows at a time.

A float per cell made by the interpreter is what reading a large trace would mostly cost. Here a column is walked digit
by digit from its right end, all rows at once. Only the plain forms are known, such as `12` and `0.25`; for all others
there is None, and whoever asked reads the cells as text.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

DIGITS = 18
"""Most digits that a 64-bit integer holds whatever they are."""
EXACT = 1 << 53
"""Whole numbers up to here are floats, and so are powers of ten up to 22: their quotient is rounded once, correctly."""

ZERO, POINT, PLUS, MINUS, COLON, BLANK, LETTER_T, LETTER_Z = b"0.+-: TZ"

SHORTEST, SECONDS_END, FRACTION_MOST = 19, 19, 9
"""Characters of `2023-11-16 18:15:46`, and most decimals of its seconds."""
OFFSET = 6
"""Characters of `+00:00`."""
DAY_NS = 86_400 * 10**9

Bytes = NDArray[np.uint8]
Places = NDArray[np.int64]


def decimals(data: Bytes, start: Places, end: Places) -> NDArray[np.float64] | None:
    """(rows,) values of the cells `data[start:end]`, as `float` would read them; None if one is not plain digits with
    at most one point among them."""
    length = end - start
    longest = int(length.max(initial=0))
    if not len(length) or int(length.min()) < 1 or longest > DIGITS + 1:
        return None
    value = np.zeros(len(length), dtype=np.int64)
    places = np.zeros(len(length), dtype=np.int64)
    points = np.zeros(len(length), dtype=np.int64)
    for back in range(longest, 0, -1):
        inside = length >= back
        character = data[np.where(inside, end - back, 0)]
        digit = character - np.uint8(ZERO)
        is_digit = inside & (digit < 10)
        is_point = inside & (character == POINT)
        if not np.array_equal(is_digit | is_point, inside):
            return None
        value = np.where(is_digit, value * 10 + digit, value)
        if is_point.any():
            places = np.where(is_point, back - 1, places)
            points += is_point
    if int(points.max()) > 1 or bool(np.any(length == points)) or int((length - points).max()) > DIGITS:
        return None
    if int(value.max()) > EXACT:
        return None
    return value / 10.0**places if points.any() else value.astype(np.float64)


def moments(data: Bytes, start: Places, end: Places) -> NDArray[np.int64] | None:
    """(rows,) nanoseconds since 1970 in UTC of cells like `2023-11-16 18:15:46.68[+00:00]`, without an offset in UTC;
    None if one has another form or is no moment."""
    if not len(start) or int((end - start).min()) < SHORTEST:
        return None
    sign = data[end - OFFSET]
    offset = ((sign == PLUS) | (sign == MINUS)) & (end - start >= SHORTEST + OFFSET)
    ahead_min = np.zeros(len(start), dtype=np.int64)
    if offset.any():
        at = np.where(offset, end - OFFSET, start + 10)
        hours, minutes = _whole(data, at + 1, 2), _whole(data, at + 4, 2)
        if np.any(offset & ((hours < 0) | (hours > 14) | (minutes < 0) | (minutes > 59) | (data[at + 3] != COLON))):
            return None
        ahead_min = np.where(offset, np.where(sign == MINUS, -1, 1) * (60 * hours + minutes), 0)
    end = np.where(offset, end - OFFSET, end)
    end = np.where(~offset & (data[end - 1] == LETTER_Z), end - 1, end)
    decimals_ = end - start - SECONDS_END - 1
    if np.any((decimals_ == 0) | (decimals_ > FRACTION_MOST)):
        return None
    for place, allowed in ((4, (MINUS,)), (7, (MINUS,)), (10, (BLANK, LETTER_T)), (13, (COLON,)), (16, (COLON,))):
        if not np.isin(data[start + place], allowed).all():
            return None
    fraction_ns = np.zeros(len(start), dtype=np.int64)
    if bool(np.any((decimals_ > 0) & (data[np.minimum(start + SECONDS_END, len(data) - 1)] != POINT))):
        return None
    for place in range(int(decimals_.max(initial=0))):
        inside = decimals_ > place
        digit = data[np.where(inside, start + SECONDS_END + 1 + place, 0)] - np.uint8(ZERO)
        if np.any(inside & (digit > 9)):
            return None
        fraction_ns += np.where(inside, digit.astype(np.int64) * 10 ** (8 - place), 0)
    fields = [_whole(data, start + place, size) for place, size in ((0, 4), (5, 2), (8, 2), (11, 2), (14, 2), (17, 2))]
    bounds = ((1900, 2099), (1, 12), (1, 31), (0, 23), (0, 59), (0, 59))
    if any(bool(np.any((field < low) | (field > high))) for field, (low, high) in zip(fields, bounds, strict=True)):
        return None
    year, month, day, hour, minute, second = fields
    months = (12 * (year - 1970) + month - 1).astype("datetime64[M]")
    first_day = months.astype("datetime64[D]").astype(np.int64)
    days_in_month = (months + 1).astype("datetime64[D]").astype(np.int64) - first_day
    if np.any(day > days_in_month):
        return None
    seconds = 3600 * hour + 60 * (minute - ahead_min) + second
    total: NDArray[np.int64] = (first_day + day - 1) * DAY_NS + seconds * 10**9 + fraction_ns
    return total


def _whole(data: Bytes, at: Places, size: int) -> NDArray[np.int64]:
    """(rows,) the number of `size` digits at each place; negative where there are others than digits."""
    value = np.zeros(len(at), dtype=np.int64)
    good = np.ones(len(at), dtype=np.bool_)
    for place in range(size):
        digit = data[at + place] - np.uint8(ZERO)
        good &= digit < 10
        value = value * 10 + digit
    return np.where(good, value, -1)
