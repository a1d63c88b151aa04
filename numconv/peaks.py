"""The peaks of a roofline, measured: fused multiply-adds from registers, copying through memory and within a cache."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from . import jit
from .cpu.simd.native import spin
from .cpu.simd.shares import Share, njit, portion
from .machine import machine
from .method import Array

CHAINS = 12
ROUNDS = 200_000
COPY_BYTES = 64 << 20


class Peaks(NamedTuple):
    """flops: float32 flop/s of all threads. bandwidth, cache_bandwidth: bytes/s read plus written by a copy, one that
    no cache holds and one that the last cache does.
    """

    flops: float
    bandwidth: float
    cache_bandwidth: float


@njit(parallel=True)
def spin_all(share: Share, sums: Array, rounds: int, lanes: tuple[int, ...]) -> None:
    """One thread's chain."""
    sums[share.number] = spin(rounds, lanes)


@njit(parallel=True)
def copy_all(share: Share, source: Array, target: Array) -> None:
    """One thread's share."""
    # Through slices: an index that might be negative keeps LLVM from using vectors, at a third of the speed.
    first, end = portion(len(source), share)
    part, given = target[first:end], source[first:end]
    for i in range(len(part)):
        part[i] = given[i]


def measure(repeats: int = 10, threads: int | None = None) -> Peaks:
    """The peaks of so many threads, all that numba has now unless given; the best of `repeats` runs of about 10 ms."""
    threads = threads or jit.threads()
    on = machine(threads)
    source, target = np.ones(COPY_BYTES // 4, np.float32), np.zeros(COPY_BYTES // 4, np.float32)
    copying = _best(lambda: copy_all(threads, source, target), repeats)
    # Both arrays in an eighth of the cache, which others use too.
    kept = min(len(source), on.caches[-1] // 16 // 4)
    within = _best(lambda: copy_all(threads, source[:kept], target[:kept]), repeats)
    return Peaks(multiply_adds(repeats, threads), 2 * COPY_BYTES / copying, 2 * 4 * kept / within)


def multiply_adds(repeats: int, threads: int) -> float:
    """float32 flop/s of so many threads; the best of `repeats` runs."""
    lanes = (0,) * (machine(threads).vector_bytes // 4)
    sums = np.zeros(threads, np.float32)
    spinning = _best(lambda: spin_all(threads, sums, ROUNDS, lanes), repeats)
    return threads * ROUNDS * CHAINS * len(lanes) * 2 / spinning


def _best(function: Callable[[], object], repeats: int) -> float:
    function()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return min(times)
