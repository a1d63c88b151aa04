"""Sums over batch and space on the GPU, in the order of np.sum: pairwise over space, then image after image.

np.sum halves a row until 128 numbers or fewer are left, which it adds up in eight sums side by side (of complex numbers
64, in four) [1]_. Here one thread adds up each of these leaves, then one each row's leaves as the halves say.

.. [1] N. J. Higham, "The accuracy of floating point summation", SIAM Journal on Scientific Computing 14, 1993.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from .arrays import DeviceArray, integers
from .driver import cuda
from .kernels import kernel
from .place import copied, new, place, shaped

THREADS = 128
# Numbers of a leaf at most, by whether they are real.
LEAF = {True: 128, False: 64}


@functools.cache
def build(real: bool) -> Any:
    """The kernel that adds up leaves, in eight sums of real numbers or four of complex ones."""
    lanes = 8 if real else 4

    def leaves(x, sums, starts, inner):  # type: ignore[no-untyped-def]
        """sums[row, leaf] = the sum of x[row, starts[leaf] : starts[leaf + 1]]."""
        i = np.int64(cuda.blockIdx.x) * THREADS + cuda.threadIdx.x
        if i < sums.size:
            leaf = i % (starts.size - 1)
            at = i // (starts.size - 1) * inner + starts[leaf]
            end = at + starts[leaf + 1] - starts[leaf]
            kind = sums.dtype.type
            total = kind(0)
            if end - at >= lanes:
                a, b, c, d = kind(x[at]), kind(x[at + 1]), kind(x[at + 2]), kind(x[at + 3])
                e, f, g, h = total, total, total, total
                if real:
                    e, f, g, h = kind(x[at + 4]), kind(x[at + 5]), kind(x[at + 6]), kind(x[at + 7])
                at += lanes
                while at + lanes <= end:
                    a, b, c, d = a + kind(x[at]), b + kind(x[at + 1]), c + kind(x[at + 2]), d + kind(x[at + 3])
                    if real:
                        e, f = e + kind(x[at + 4]), f + kind(x[at + 5])
                        g, h = g + kind(x[at + 6]), h + kind(x[at + 7])
                    at += lanes
                total = (a + b) + (c + d)
                if real:
                    total = total + ((e + f) + (g + h))
            while at < end:
                total = total + kind(x[at])
                at += 1
            # As np.sum, which starts from 0: no sum is -0.
            sums[i] = kind(0) + total

    return kernel(leaves, THREADS, 1)


@functools.cache
def build_halves() -> Any:
    """The kernel."""

    def halves(sums, into, others, rows, step):  # type: ignore[no-untyped-def]
        """sums[row, into[i]] += sums[row, others[i]], pair after pair; rows lie so many elements apart."""
        row = np.int64(cuda.blockIdx.x) * THREADS + cuda.threadIdx.x
        if row < rows:
            for i in range(into.size):
                sums[row * step + into[i]] = sums[row * step + into[i]] + sums[row * step + others[i]]

    return kernel(halves, THREADS, 1)


@functools.lru_cache(maxsize=256)
def pairs(size: int, real: bool) -> tuple[tuple[int, ...], tuple[tuple[int, int], ...]]:
    """Where the leaves of a row start, its end behind them, and in which order which leaf's sum goes to which."""
    starts: list[int] = []
    found: list[tuple[int, int]] = []

    def halve(start: int, count: int) -> int:
        if count <= LEAF[real]:
            starts.append(start)
            return len(starts) - 1
        half = count // 2 - count // 2 % 8 if real else (count - count % 8) // 2
        left, right = halve(start, half), halve(start + half, count - half)
        found.append((left, right))
        return left

    halve(0, size)
    return (*starts, size), tuple(found)


def total(grad: DeviceArray, accumulator: np.dtype[Any], out: DeviceArray) -> None:
    """(batch, channels, ...) added up over batch and space, to an array of the channels."""
    images, channels = grad.shape[:2]
    if not grad.size:
        place(shaped(cuda.to_device(np.zeros(1, out.dtype)), (channels,), (0,)), out)
        return
    sums, count = _rows(grad if grad.contiguous else copied(grad), images * channels, accumulator)
    if channels == 1:
        # Then the images' sums are one row.
        row = new((images,), accumulator)
        place(shaped(sums.source, (images,), (count,)), row)
        sums, count = _rows(row, 1, accumulator)
    else:
        _add(sums, tuple((0, n * channels * count) for n in range(1, images)), channels, count)
    place(shaped(sums.source, (channels,), (count,)), out)


def _rows(array: DeviceArray, rows: int, accumulator: np.dtype[Any]) -> tuple[DeviceArray, int]:
    """(where each row's sum is the first of its leaves' sums, how many those are)."""
    real, inner = accumulator.kind != "c", array.size // rows
    starts, order = pairs(inner, real)
    count = len(starts) - 1
    sums = new((rows * count,), accumulator)
    table = integers(starts, array.device)
    build(real)[-(-sums.size // THREADS), THREADS, 0](array.flat(), sums.flat(), table, inner)
    _add(sums, order, rows, count)
    return sums, count


def _add(sums: DeviceArray, order: tuple[tuple[int, int], ...], rows: int, step: int) -> None:
    if order:
        into, others = (integers(places, sums.device) for places in zip(*order, strict=True))
        build_halves()[-(-rows // THREADS), THREADS, 0](sums.flat(), into, others, rows, step)
