"""The two peaks of a roofline, measured: fused multiply-adds from registers, and copying through memory."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numba import prange

from . import jit
from .cpu.simd.native import spin
from .jit import njit
from .machine import machine
from .method import Array

CHAINS = 12
ROUNDS = 200_000
COPY_BYTES = 64 << 20


class Peaks(NamedTuple):
    """flops: float32 flop/s of all threads. bandwidth: bytes/s read plus written by a copy that no cache holds."""

    flops: float
    bandwidth: float


@njit(parallel=True)
def spin_all(sums: Array, rounds: int, lanes: tuple[int, ...]) -> None:
    """One chain of multiply-adds per entry of sums."""
    for share in prange(len(sums)):
        sums[share] = spin(rounds, lanes)


@njit(parallel=True)
def copy_all(source: Array, target: Array, shares: int) -> None:
    """Target = source, in even shares."""
    for share in prange(shares):
        # Through slices: an index that might be negative keeps LLVM from using vectors, at a third of the speed.
        first, end = len(source) * share // shares, len(source) * (share + 1) // shares
        part, given = target[first:end], source[first:end]
        for i in range(len(part)):
            part[i] = given[i]


def measure(repeats: int = 10) -> Peaks:
    """Both peaks with the threads that numba has now; the best of `repeats` runs of about 10 ms each."""
    threads = jit.threads()
    lanes = (0,) * (machine(threads).vector_bytes // 4)
    sums = np.zeros(threads, np.float32)
    source, target = np.ones(COPY_BYTES // 4, np.float32), np.zeros(COPY_BYTES // 4, np.float32)
    spinning = _best(lambda: spin_all(sums, ROUNDS, lanes), repeats)
    copying = _best(lambda: copy_all(source, target, threads), repeats)
    return Peaks(threads * ROUNDS * CHAINS * len(lanes) * 2 / spinning, 2 * COPY_BYTES / copying)


def _best(function: Callable[[], object], repeats: int) -> float:
    function()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return min(times)
