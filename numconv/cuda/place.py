"""Elementwise kernels between arrays of any strides on the device: to copy or to add, and to fold a box of results."""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any

import numpy as np

from .arrays import DeviceArray, device_array, row_major
from .driver import cuda, kernel

THREADS = 128
AXES = 6


@functools.cache
def build(relu: bool) -> Any:
    """The kernel; relu: may be asked for, which complex numbers cannot."""

    def place(source, start, steps, target, target_start, target_steps, sizes, add, cut):  # type: ignore[no-untyped-def]
        """target[i] = source[i], plus target[i] if `add`; then, if `cut`, at least 0. All tuples are of 6 axes."""
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
                value = target[to] + value
            if relu:  # noqa: SIM102  # numba leaves out a branch on a constant alone
                if cut != 0 and value < source.dtype.type(0):
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
    """A new array."""
    memory = cuda.device_array(max(1, math.prod(shape)), dtype, stream=stream or 0)
    return shaped(memory, shape)


def shaped(memory: Any, shape: tuple[int, ...], strides: tuple[int, ...] | None = None) -> DeviceArray:
    """Flat memory as an array of that shape, C-contiguous unless strides are given."""
    strides = row_major(shape) if strides is None else strides
    return dataclasses.replace(device_array("array", memory), shape=shape, strides=strides)


def place(
    source: DeviceArray, target: DeviceArray, *, add: bool = False, relu: bool = False, stream: Any = None
) -> None:
    """Copy or add one array to another of its shape."""
    if not target.size:
        return
    filled = (1,) * (AXES - target.ndim)
    sizes = (*filled, *target.shape)
    steps, target_steps = ((*(0,) * len(filled), *array.strides) for array in (source, target))
    build(target.dtype.kind != "c")[-(-target.size // THREADS), THREADS, stream or 0](
        source.flat(), source.span[1], steps, target.flat(), target.span[1], target_steps, sizes, int(add), int(relu)
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


def exchanged(weight: DeviceArray, groups: int) -> DeviceArray:
    """(groups * a, b, ...) as (groups * b, a, ...), a copy."""
    channels, inside, *kernel = weight.shape
    first, second, *steps = weight.strides
    result = new((groups * inside, channels // groups, *kernel), weight.dtype)
    shape = (groups, inside, channels // groups, *kernel)
    source = dataclasses.replace(weight, shape=shape, strides=(channels // groups * first, second, first, *steps))
    place(source, dataclasses.replace(result, shape=shape, strides=row_major(shape)))
    return result
