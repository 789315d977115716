"""The CRC-32 of a file from the CRC-32s of its parts, so that several threads may sum one file.

Appending n bytes of zeros to a content multiplies its sum, a polynomial over GF(2), by x^(8 n) modulo CRC-32's own; of
two contents one after the other the sum is that product plus the sum of the second. Polynomials are integers here, as
CRC-32 has them: x^0 is the highest of 32 bits.
"""

from __future__ import annotations

from functools import lru_cache

_POLYNOMIAL = 0xEDB88320
_ONE = 1 << 31


def joined_crc32(first: int, second: int, size: int) -> int:
    """CRC-32 of two contents one after the other.

    Args:
        first: CRC-32 of what comes first.
        second: CRC-32 of what follows.
        size: bytes of what follows.
    """
    return _product(_zeros(size), first) ^ second


@lru_cache(maxsize=256)
def _zeros(size: int) -> int:
    """x^(8 size)."""
    power, found = _ONE >> 8, _ONE
    while size:
        if size & 1:
            found = _product(power, found)
        power, size = _product(power, power), size >> 1
    return found


def _product(a: int, b: int) -> int:
    found = 0
    bit = _ONE
    while a:
        if a & bit:
            found ^= b
            a ^= bit
        b = b >> 1 ^ _POLYNOMIAL if b & 1 else b >> 1
        bit >>= 1
    return found
