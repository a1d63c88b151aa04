"""Elementwise kernels between arrays of any strides on the device: to copy or to add, and to fold a box of results."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np

from .arrays import DeviceArray, as_callers, device_array, row_major
from .driver import cuda, device_here
from .kernels import Memory, allocate, kernel

THREADS = 128
AXES = 6


@functools.cache
def build(real: bool) -> Any:
    """The kernel, for real or for complex numbers."""

    def place(source, start, steps, target, target_start, target_steps, sizes, add, change):  # type: ignore[no-untyped-def]
        """target[i] = source[i], plus target[i] if `add`; then, if `change`, at least 0, of complex numbers the
        conjugate. All tuples are of 6 axes.
        """
        rest = np.int64(cuda.blockIdx.x) * THREADS + cuda.threadIdx.x
        if rest < sizes[0] * sizes[1] * sizes[2] * sizes[3] * sizes[4] * sizes[5]:
            i5, rest = rest % sizes[5], rest // sizes[5]
            i4, rest = rest % sizes[4], rest // sizes[4]
            i3, rest = rest % sizes[3], rest // sizes[3]
            i2, rest = rest % sizes[2], rest // sizes[2]
            i1, i0 = rest % sizes[1], rest // sizes[1]
            at = start + i0 * steps[0] + i1 * steps[1] + i2 * steps[2]
            at += i3 * steps[3] + i4 * steps[4] + i5 * steps[5]
            to = target_start + i0 * target_steps[0] + i1 * target_steps[1] + i2 * target_steps[2]
            to += i3 * target_steps[3] + i4 * target_steps[4] + i5 * target_steps[5]
            value = source[at]
            if add != 0:
                value = source.dtype.type(target[to]) + value
            if change != 0:
                if not real:
                    value = source.dtype.type(complex(value.real, -value.imag))
                elif value < source.dtype.type(0):
                    value = source.dtype.type(0)
            target[to] = value

    return kernel(place, THREADS, 1)


@functools.cache
def build_fold() -> Any:
    """The kernel."""

    def fold(source, target, table, lines, inner, low, targets):  # type: ignore[no-untyped-def]
        """target[o, j, i] = the sum of source[o, line, i] over the lines, in order, that table sends to low + j."""
        i = np.int64(cuda.blockIdx.x) * THREADS + cuda.threadIdx.x
        if i < target.size:
            column = i % inner
            rest = i // inner
            outer = rest // targets
            total = target.dtype.type(0)
            for line in range(lines):
                if table[line] - low == rest % targets:
                    total = total + source[(outer * lines + line) * inner + column]
            target[i] = total

    return kernel(fold, THREADS, 1)


def new(shape: tuple[int, ...], dtype: Any, stream: Any = 0) -> DeviceArray:
    """A new array, for work on the stream."""
    return shaped(allocate(math.prod(shape), dtype, stream), shape)


def shaped(memory: Any, shape: tuple[int, ...], strides: tuple[int, ...] | None = None) -> DeviceArray:
    """Flat memory as an array of that shape, C-contiguous unless strides are given."""
    found = Memory.of(memory)
    strides = row_major(shape) if strides is None else strides
    return DeviceArray(found, shape, found.dtype, strides, found.pointer, device_here(), None)


def place(
    source: DeviceArray, target: DeviceArray, *, add: bool = False, change: bool = False, stream: Any = None
) -> None:
    """Copy or add one array to another of its shape; change: at least 0, or, of complex numbers, the conjugate.

    What is added or changed is of the sums' dtype: float16 is moved alone.
    """
    if not target.size:
        return
    if source.dtype == target.dtype == np.float16:
        # A move takes no arithmetic, least of all one that is emulated.
        source, target = (array.view(np.uint16) for array in (source, target))
    filled = (1,) * (AXES - target.ndim)
    sizes = (*filled, *target.shape)
    steps, target_steps = ((*(0,) * len(filled), *array.strides) for array in (source, target))
    build(source.dtype.kind != "c")[-(-target.size // THREADS), THREADS, stream or 0](
        source.flat(), source.span[1], steps, target.flat(), target.span[1], target_steps, sizes, int(add), int(change)
    )


def folded(source: DeviceArray, axis: int, table: Any, low: int, high: int, stream: Any = None) -> DeviceArray:
    """A contiguous array, its lines along an axis added up where the table sends them, from low to high."""
    shape = (*source.shape[:axis], high - low, *source.shape[axis + 1 :])
    target = new(shape, source.dtype, stream)
    inner = math.prod(source.shape[axis + 1 :])
    if target.size:
        build_fold()[-(-target.size // THREADS), THREADS, stream or 0](
            source.flat(), target.flat(), table, source.shape[axis], inner, low, high - low
        )
    return target


def copied(source: DeviceArray, *, conjugate: bool = False) -> DeviceArray:
    """A contiguous copy where the array lies, of the caller's type, after all that its device was asked to do."""
    with cuda.gpus[source.device]:
        cuda.synchronize()
        memory = cuda.device_array(max(1, source.size), source.dtype)
        there = device_array("array", as_callers(source.source, memory))
        copy = there.seen(source.shape, row_major(source.shape))
        place(source, copy, change=conjugate and source.dtype.kind == "c")
        cuda.synchronize()
        return copy


def joined(parts: DeviceArray) -> DeviceArray:
    """(a, b, ...) as (a * b, ...): a copy where the parts do not lie one behind the other."""
    groups, count, *_ = parts.shape
    if groups != 1 and count != 1 and parts.strides[0] != count * parts.strides[1]:
        parts = copied(parts)
    step = parts.strides[0] if count == 1 else parts.strides[1]
    return parts.seen((groups * count, *parts.shape[2:]), (step, *parts.strides[2:]))
