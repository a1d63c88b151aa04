"""Floats to integers: rounded half to even and saturated, NaN to 0, in one pass over memory."""

from __future__ import annotations

import numpy as np

from ..jit import njit
from ..method import Array
from .simd.native import run_shares


@njit(parallel=True)
def saturate(together: int, values: Array, out: Array, ends: Array, integers: Array, shares: int) -> None:
    """Out (size,) from values (size,), within integers (lowest, highest), which `ends` holds as floats."""
    run_shares(together, saturate_share, shares, (values, out, ends, integers, shares))


@njit()
def saturate_share(share: int, values: Array, out: Array, ends: Array, integers: Array, shares: int) -> None:
    """The values of one share. An end that no float holds was rounded outwards: what lies below it fits."""
    first, end = len(values) * share // shares, len(values) * (share + 1) // shares
    values, out = values[first:end], out[first:end]
    low, high = ends
    lowest, highest = integers
    zero = values.dtype.type(0)
    for i in range(len(values)):
        value = np.rint(values[i])
        inside = value > low and value < high
        integer = out.dtype.type(value if inside else zero)
        integer = highest if value >= high else integer
        out[i] = lowest if value <= low else integer
