"""Segments: where the one order of summation starts a fresh accumulator, for kernels that add up many taps."""

from __future__ import annotations

from ..jit import njit
from ..method import Array
from .window import Window


@njit()
def segment_end(tap: int, window: Window) -> int:
    """The tap before which the accumulator that `tap` belongs to ends."""
    inside = tap % window.period
    return tap - inside + min(window.period, (inside // window.segment + 1) * window.segment)


@njit()
def segment_start(tap: int, window: Window) -> int:
    """The tap at which the accumulator that `tap` belongs to starts."""
    inside = tap % window.period
    return tap - inside % window.segment


@njit()
def flush(sums: Array, totals: Array) -> None:
    """Add the accumulators of a segment to the totals."""
    for i in range(len(sums)):
        for j in range(sums.shape[1]):
            totals[i, j] += sums[i, j]
