"""Floats to integers: rounded half to even and saturated, NaN to 0, in one pass over memory."""

from __future__ import annotations

import numpy as np
from numba import prange

from ..jit import njit
from ..method import Array


@njit(parallel=True)
def saturate(values: Array, out: Array, ends: Array, integers: Array, shares: int) -> None:
    """Out (size,) from values (size,), within integers (lowest, highest), which `ends` holds as floats."""
    for share in prange(shares):
        first, end = len(values) * share // shares, len(values) * (share + 1) // shares
        saturate_part(values[first:end], out[first:end], ends, integers)


@njit()
def saturate_part(values: Array, out: Array, ends: Array, integers: Array) -> None:
    """The values of one thread. An end that no float holds was rounded outwards: what lies below it fits."""
    low, high = ends
    lowest, highest = integers
    zero = values.dtype.type(0)
    for i in range(len(values)):
        value = np.rint(values[i])
        inside = value > low and value < high
        integer = out.dtype.type(value if inside else zero)
        integer = highest if value >= high else integer
        out[i] = lowest if value <= low else integer
