"""Whether other programs leave the processor alone: multiply-adds, timed between the turns of a benchmark."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable

from numconv import jit, peaks

# It is quiet where so many samples have, in harmonic mean, such a share of the highest rate seen; so many rates are
# taken at first, to see a high one. The threads of a library that has run spin for less than so long before they sleep.
SAMPLES, QUIET_SHARE, FIRST = 10, 0.9, 20
SLEEP_SECONDS = 0.06
# Threads that slept may wake on one core and share it until the scheduler spreads them: that took up to 40 ms.
SPREAD_SECONDS = 0.1
# A turn is given so often at most.
TURNS = 4


def multiply_adds() -> float:
    """The flop/s of all threads over some milliseconds; after it they sleep again."""
    began = time.perf_counter()
    while time.perf_counter() - began < SPREAD_SECONDS:
        peaks.multiply_adds(1, jit.threads())
    rate = statistics.harmonic_mean(peaks.multiply_adds(1, jit.threads()) for _ in range(SAMPLES))
    time.sleep(SLEEP_SECONDS)
    return rate


class Watch:
    """Has turns begin when it is quiet, and those that were disturbed given again, as long as the patience lasts.

    `patience` is the seconds that may be spent on waiting and on turns given again, `rate` the processor's speed now,
    `disturbed` the turns that were not quiet at last.
    """

    def __init__(self, patience: float, rate: Callable[[], float] = multiply_adds) -> None:
        self.patience, self.disturbed, self._rate = patience, 0, rate
        self._highest = max(rate() for _ in range(FIRST))

    def best(self, turn: Callable[[], float]) -> float:
        """The least seconds that `turn` returns, given until it was quiet before and after."""
        least = math.inf
        for _ in range(TURNS):
            self._wait()
            began = time.perf_counter()
            seconds = turn()
            least = min(seconds, least)
            if self._quiet():
                return least
            if self.patience <= 0:
                break
            self.patience -= time.perf_counter() - began
        self.disturbed += 1
        return least

    def _wait(self) -> None:
        began = time.perf_counter()
        while self.patience > 0 and not self._quiet():
            now = time.perf_counter()
            self.patience, began = self.patience - (now - began), now

    def _quiet(self) -> bool:
        rate = self._rate()
        self._highest = max(rate, self._highest)
        return rate >= QUIET_SHARE * self._highest
