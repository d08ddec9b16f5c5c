"""Which floats Qdrant gives back as they were written, and what it makes of the others.

The server keeps payloads as JSON text and reads a number as an integer of its digits, multiplied or divided by a power
of ten. That is exact while both are exact as floats: 15 or 16 digits and a small exponent. One of 0.30000000000000004
can come back as its neighbour, and did for a quarter of random floats. So such a float is also written as text, and
filters know which neighbours of a bound the server may confuse.
"""

from __future__ import annotations

import math
import re
from functools import lru_cache

_EXACT_INTEGER = 2**53
_EXACT_POWER = 22
"""10^22 is the largest power of ten that a float holds exactly."""
_REACH = 4
"""Neighbours on each side that are looked at: two roundings move a number by less."""
_TEXT = re.compile(r"(\d+)(?:\.(\d+))?(?:e([+-]?\d+))?")


def _digits(value: float) -> tuple[int, int]:
    """(digits as an integer, power of ten) of the shortest text of ``abs(value)``, as the server writes it."""
    found = _TEXT.fullmatch(repr(abs(value)))
    if found is None:
        raise ValueError(f"{value} is not finite")
    whole, fraction, exponent = found.groups()
    if fraction is None and exponent is None:
        fraction = "0"
    return int(whole + (fraction or "")), int(exponent or 0) - len(fraction or "")


def is_kept(value: float) -> bool:
    """Whether any reader of decimal text comes to this very float. ``value`` is finite."""
    digits, power = _digits(value)
    return digits <= _EXACT_INTEGER and abs(power) <= _EXACT_POWER


def as_stored(value: float) -> float:
    """What the server reads back where it was given ``value``."""
    digits, power = _digits(value)
    result = float(digits)
    while power < -308 and result:
        result /= 1e308
        power += 308
    if result:
        result = result * float(f"1e{power}") if power >= 0 else result / float(f"1e{-power}")
    return math.copysign(result, value)


@lru_cache(maxsize=4096)
def confused(bound: float) -> tuple[float, ...]:
    """Floats at most four steps from ``bound`` (and itself) that the server keeps as another one, ascending."""
    found = [bound]
    for towards in (-math.inf, math.inf):
        at = bound
        for _ in range(_REACH):
            at = math.nextafter(at, towards)
            if math.isfinite(at):
                found.append(at)
    return tuple(sorted(value for value in found if as_stored(value) != value))


def integers_that_round_to(value: float) -> list[int]:
    """Every integer of 64 bits that is this float to a reader of floats. ``value`` is integral, 2^53 or larger."""
    middle, reach = int(value), int(math.ulp(value)) // 2 + 1
    first, last = max(middle - reach, -(2**63)), min(middle + reach, 2**63 - 1)
    return [number for number in range(first, last + 1) if float(number) == value]
