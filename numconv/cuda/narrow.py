"""narrow.py on the GPU: from the sums to the integers that a call asks for, in kernels of one thread an element."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from ..narrow import check, limits
from ..problem import Problem
from .arrays import DeviceArray
from .driver import cuda
from .kernels import kernel
from .place import new

THREADS = 128
# Blocks that look for the extremes: as many numbers come to the host as they have threads.
LOOKING = 64


@functools.cache
def build(rounds: bool) -> Any:
    """The kernel, for sums of floats, which are rounded half to even, or of integers."""

    def saturate(sums, target, ends, integers):  # type: ignore[no-untyped-def]
        """target[i] = sums[i] within integers (lowest, highest), which `ends` holds in the sums' dtype; NaN is 0. An
        end that no float holds was rounded outwards: what lies below it fits.
        """
        i = np.int64(cuda.blockIdx.x) * THREADS + cuda.threadIdx.x
        if i < sums.size:
            value, zero = sums[i], sums.dtype.type(0)
            if rounds:
                # Added to this number, a float keeps no fraction; one as large has none.
                large = ends[2] if value >= zero else -ends[2]
                if abs(value) < ends[2]:
                    value = value + large
                    value = value - large
            integer = target.dtype.type(0)
            if value >= ends[1]:
                integer = integers[1]
            elif value <= ends[0]:
                integer = integers[0]
            elif value == value:
                integer = target.dtype.type(value)
            target[i] = integer

    return kernel(saturate, THREADS, 1)


@functools.cache
def build_extremes() -> Any:
    """The kernel."""

    def extremes(sums, lowest, highest):  # type: ignore[no-untyped-def]
        """The least and the largest of every so many sums; NaN is both."""
        thread = np.int64(cuda.blockIdx.x) * THREADS + cuda.threadIdx.x
        if thread < lowest.size:
            low = high = sums[thread]
            for i in range(thread + lowest.size, sums.size, lowest.size):
                value = sums[i]
                if value < low or value != value:
                    low = value
                if value > high or value != value:
                    high = value
            lowest[thread] = low
            highest[thread] = high

    return kernel(extremes, THREADS, 1)


def narrowed(problem: Problem, sums: DeviceArray, stream: Any) -> DeviceArray:
    """Contiguous sums in the Problem's output dtype. To raise, it waits for them."""
    if not sums.size:
        return new(sums.shape, problem.output, stream)
    if problem.overflow == "raise":
        check(problem, _extremes(sums, stream))
    if problem.overflow != "saturate" and sums.dtype.kind != "f":
        # Integers wrap around as they are copied.
        return sums
    result = new(sums.shape, problem.output, stream)
    lowest, highest = limits(problem.output, sums.dtype)
    integers = np.array([lowest, highest], problem.output)
    ends = np.zeros(3, sums.dtype)
    ends[:2] = integers.astype(sums.dtype)
    if sums.dtype.kind == "f":
        ends[2] = 1 / np.finfo(sums.dtype).eps
    build(sums.dtype.kind == "f")[-(-sums.size // THREADS), THREADS, stream or 0](
        sums.flat(), result.flat(), cuda.to_device(ends), cuda.to_device(integers)
    )
    return result


def _extremes(sums: DeviceArray, stream: Any) -> np.ndarray[Any, np.dtype[Any]]:
    """Some of the sums, among them the least and the largest, or NaN."""
    found = [new((min(sums.size, LOOKING * THREADS),), sums.dtype, stream) for _ in range(2)]
    build_extremes()[-(-found[0].size // THREADS), THREADS, stream or 0](sums.flat(), *(one.flat() for one in found))
    back = [cuda.as_cuda_array(one.flat(), sync=False).copy_to_host(stream=stream or 0) for one in found]
    if stream:
        stream.synchronize()
    return np.concatenate(back)
