"""Segments: where the one order of summation starts a fresh accumulator, for kernels that add up many taps."""

from __future__ import annotations

from typing import NamedTuple

from ..method import Array
from .simd.shares import njit
from .window import Window


class Piece(NamedTuple):
    """Taps of one segment and one window: those from first to end of each of some planes.

    tap: the number, among the weights, of the first plane's tap 0. fresh: whether the sums start from zero. oh, ow:
    the output row and column at which the block begins.
    """

    tap: int
    first: int
    end: int
    planes: int
    fresh: int
    oh: int
    ow: int


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
        totals[i] += sums[i]
