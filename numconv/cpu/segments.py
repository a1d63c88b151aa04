"""Segments: where the one order of summation starts a fresh accumulator, for kernels that add up many taps."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from ..method import Array
from .simd.shares import njit


class Segmented(Protocol):
    """A record that tells `Problem.segments`."""

    @property
    def period(self) -> int: ...

    @property
    def segment(self) -> int: ...


class Piece(NamedTuple):
    """Taps of one segment and one window: those from first to end of each of some planes.

    tap: the number, among the weights, of the first plane's tap 0. fresh: whether the sums start from zero. oh, ow:
    the output row and column at which the block begins; rows, columns: what the output has of it.
    """

    tap: int
    first: int
    end: int
    planes: int
    fresh: int
    oh: int
    ow: int
    rows: int
    columns: int


@njit()
def segment_end(tap: int, record: Segmented) -> int:
    """The tap before which the accumulator that `tap` belongs to ends."""
    inside = tap % record.period
    end: int = tap - inside + min(record.period, (inside // record.segment + 1) * record.segment)
    return end


@njit()
def segment_start(tap: int, record: Segmented) -> int:
    """The tap at which the accumulator that `tap` belongs to starts."""
    inside = tap % record.period
    start: int = tap - inside % record.segment
    return start


@njit()
def flush(sums: Array, totals: Array) -> None:
    """Add the accumulators of a segment to the totals."""
    for i in range(len(sums)):
        totals[i] += sums[i]
