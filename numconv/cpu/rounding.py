"""Floats to integers: rounded half to even and saturated, NaN to 0, in one pass over memory."""

from __future__ import annotations

import numpy as np

from ..method import Array
from .simd.shares import Share, njit, portion


@njit(parallel=True)
def saturate(share: Share, values: Array, out: Array, ends: Array, integers: Array) -> None:
    """Out (size,) from values (size,), within integers (lowest, highest), which `ends` holds as floats: an end that no
    float holds was rounded outwards, and what lies below it fits.
    """
    first, end = portion(len(values), share)
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
