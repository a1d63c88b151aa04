"""Timing several contenders in one process, fairly, on a machine that stalls now and then.

Contenders take turns, round after round, so that a slow stretch of the machine hits all of them. Of a round, the best
call counts: a stall of 10 ms spoils some calls and leaves others. Over rounds, the median.

A BLAS keeps its threads spinning for some 25 ms after a product, numba's keep theirs for a while after a kernel, and
two pools on the same cores slow each other down. So each turn begins with a pause that outlasts the spinning, and with
calls that are not counted and wake the contender's own threads.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Iterator, Mapping

PAUSE = 0.05
WARM_CALLS = 3
# A turn: so long, and so many calls.
TURN_SECONDS, TURN_CALLS = 0.05, 10
# From here on a call is its own turn: it is long against a stall and against waking threads.
LONG = 0.1
# Processes that were running or waiting, over the last minute.
QUIET = 0.5

Contenders = Mapping[str, Callable[[], object]]
Times = dict[str, float]


def busy() -> str | None:
    """A warning, where other processes keep the machine busy before anything was measured."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    if load < QUIET:
        return None
    return f"The machine is busy (load {load:.1f}): kernels wait for their slowest thread, so do not trust the times."


def turn(function: Callable[[], object]) -> float:
    """The best time of one turn, in seconds."""
    time.sleep(PAUSE)
    first = once(function)
    if first > LONG:
        return first
    for _ in range(WARM_CALLS):
        function()
    best = once(function)
    end = time.perf_counter() + TURN_SECONDS
    calls = 1
    while calls < TURN_CALLS or time.perf_counter() < end:
        best = min(best, once(function))
        calls += 1
    return best


def once(function: Callable[[], object]) -> float:
    """The time of one call, in seconds."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def rounds(contenders: Contenders, count: int, advance: Callable[[], object] | None = None) -> Iterator[Times]:
    """The best time of each contender, round by round; each round begins with the next. `advance` hears of turns."""
    names = list(contenders)
    for number in range(count):
        first = number % len(names)
        found = {}
        for name in names[first:] + names[:first]:
            found[name] = turn(contenders[name])
            if advance is not None:
                advance()
        yield found


def medians(contenders: Contenders, count: int, advance: Callable[[], object] | None = None) -> Times:
    """The median over the rounds of each contender's best times, in seconds."""
    found = list(rounds(contenders, count, advance))
    return {name: statistics.median(times[name] for times in found) for name in contenders}
