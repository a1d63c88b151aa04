"""Weights as the kernels want them, rearranged on the device: by blocks of output channels, which lie innermost."""

from __future__ import annotations

import functools
import itertools
from typing import Any, NamedTuple

import numpy as np

from ..cpu.operands import padded_axes
from ..problem import Problem
from .arrays import LIMIT, DeviceArray, row_major
from .driver import cuda
from .kernels import Memory, allocate, kernel

THREADS = 128


class Prepared(NamedTuple):
    """On the device: the weights by blocks; the bias in the accumulator's dtype, zeros for none, and behind it what the
    padding holds; the tables that lead from a padded position on each axis to the input's, or to -1. And the kernel
    that all are for, with its geometry, so that fewer images of a Problem run by it too.
    """

    weight: Memory
    bias: Memory
    depth: Memory
    height: Memory
    width: Memory
    places: Memory
    launch: Any = None

    @property
    def nbytes(self) -> int:
        """What it takes on the device."""
        return sum(array.nbytes for array in self[:-1])


@functools.cache
def build() -> Any:
    """The kernel."""

    def pack(weight, start, strides, packed, sizes):  # type: ignore[no-untyped-def]
        """packed[g, block, ci, tap, lane] = weight[g*channels + block*lanes + lane, ci, tap], or 0 beyond."""
        groups, channels, blocks, inner, inner_padded, taps, lanes, kernel_h, kernel_w = sizes
        i = np.int64(cuda.blockIdx.x) * THREADS + cuda.threadIdx.x
        if i < groups * blocks * inner_padded * taps * lanes:
            lane = i % lanes
            rest = i // lanes
            tap = rest % taps
            rest = rest // taps
            ci = rest % inner_padded
            rest = rest // inner_padded
            co = rest % blocks * lanes + lane
            group = rest // blocks
            value = packed.dtype.type(0)
            if co < channels and ci < inner:
                row = tap // kernel_w
                at = start + (group * channels + co) * strides[0] + ci * strides[1]
                at += row // kernel_h * strides[2] + row % kernel_h * strides[3] + tap % kernel_w * strides[4]
                value = packed.dtype.type(weight[at])
            packed[i] = value

    return kernel(pack, THREADS, 1)


def prepare(
    problem: Problem,
    weight: DeviceArray,
    bias: DeviceArray | None,
    lanes: int,
    chunk: int,
    places: tuple[int, ...],
    launch: Any = None,
    packed: Memory | None = None,
) -> Prepared:
    """Pack weights by so many output channels, input channels padded to a multiple of `chunk`, unless they are."""
    channels, inner = problem.out_channels // problem.groups, problem.in_channels // problem.groups
    kernel_d, kernel_h, kernel_w = (1, 1, *problem.kernel)[-3:]
    volume = kernel_d * kernel_h * kernel_w
    blocks, padded = -(-channels // lanes), -(-inner // chunk) * chunk
    sizes = (problem.groups, channels, blocks, inner, padded, volume, lanes, kernel_h, kernel_w)
    if packed is None:
        packed = _packed(weight, problem.accumulator, problem.groups * blocks * padded * volume * lanes, sizes)
    depth, height, width, numbers = _tables(problem, places, weight.device)
    return Prepared(packed, biases(problem, bias, weight.device), depth, height, width, numbers, launch)


def where_it_lies(problem: Problem, weight: DeviceArray) -> tuple[Memory, int, int] | None:
    """Memory that holds the weights, and elements from one output channel to the next and from one input channel, where
    kernels may read them in place: those of one call alone, whose taps of a channel lie side by side.
    """
    taps = zip(weight.shape[2:], weight.strides[2:], row_major(weight.shape[2:]), strict=True)
    side_by_side = all(size == 1 or step == wanted for size, step, wanted in taps)
    near = min(weight.strides) >= 0 and weight.span[0] < LIMIT
    if not (weight.pooled and side_by_side and near and weight.dtype == problem.accumulator):
        return None
    return weight.flat(), weight.strides[0], weight.strides[1]


@functools.lru_cache(maxsize=256)
def _tables(problem: Problem, places: tuple[int, ...], device: int) -> list[Memory]:
    """Where padded positions lie, and the integers of a launch: sent once for all calls of a Problem."""
    return [Memory.of(cuda.to_device(np.asarray(one, np.int32))) for one in (*padded_axes(problem), places)]


def biases(problem: Problem, bias: DeviceArray | None, device: int) -> Memory:
    """The bias in the accumulator's dtype, zeros for none, and behind it what the padding holds."""
    size, kind, frame = problem.out_channels, problem.accumulator, problem.padding_value
    if bias is None or not size:
        return _no_bias(size, kind, frame, device)
    if not frame:
        return _packed(bias, kind, size + 1, (1, size, 1, 1, 1, 1, size + 1, 1, 1))
    found = Memory.of(cuda.to_device(np.full(size + 1, frame, kind)))
    _pack(bias, found, (1, size, 1, 1, 1, 1, size, 1, 1))
    return found


@functools.lru_cache(maxsize=256)
def _no_bias(size: int, kind: np.dtype[Any], frame: complex, device: int) -> Memory:
    """Zeros and what the padding holds: sent once."""
    return Memory.of(cuda.to_device(np.append(np.zeros(size, kind), kind.type(frame))))


def contiguous(problem: Problem, x: DeviceArray, stream: Any) -> DeviceArray:
    """A copy of the input on its device, for kernels that take its pixels in one row."""
    size_d, size_h, size_w = (1, 1, *problem.spatial)[-3:]
    sizes = (1, problem.batch, problem.batch, problem.in_channels, problem.in_channels)
    copy = allocate(x.size, problem.x_dtype, stream)
    _pack(x, copy, (*sizes, size_d * size_h * size_w, 1, size_h, size_w), stream)
    return DeviceArray(copy, x.shape, x.dtype, row_major(x.shape), copy.pointer, x.device, x.stream)


def reached(problem: Problem, x: DeviceArray, out: Memory, stream: Any) -> tuple[Memory, tuple[int, ...]]:
    """Memory that holds the input, and where in it: the first element, and elements from one image, channel, plane, row
    and column to the next. Of an input that 32-bit positions do not reach, a copy; of none, the output's memory.
    """
    if x.span[0] >= LIMIT:
        x = contiguous(problem, x, stream)
    return x.flat() if x.size else out, (x.span[1], *x.strides[:2], *(0, 0, *x.strides[2:])[-3:])


def in_a_row(problem: Problem, x: DeviceArray, stream: Any) -> DeviceArray:
    """The input with all pixels of an image and channel in one row: a copy where they lie in several."""
    step = _step(x.shape[2:], x.strides[2:])
    if step is None:
        x, step = contiguous(problem, x, stream), 1
    return x.seen((*x.shape[:2], problem.pixels), (*x.strides[:2], step))


@functools.lru_cache(maxsize=1024)
def _step(spatial: tuple[int, ...], strides: tuple[int, ...]) -> int | None:
    """Elements from one pixel to the next, None where that is not the same for all."""
    steps = [(size, step) for size, step in zip(spatial, strides, strict=True) if size != 1]
    if any(step != size * below for (_, step), (size, below) in itertools.pairwise(steps)):
        return None
    return steps[-1][1] if steps else 1


def room(weight: DeviceArray, size: int, dtype: Any) -> Memory:
    """Memory for weights in another order."""
    # At least two elements: float32 are read by pairs.
    shape = max(2, size)
    return allocate(shape, dtype, 0) if weight.pooled else Memory.of(cuda.device_array(shape, dtype))


def _packed(array: DeviceArray, dtype: Any, size: int, sizes: tuple[int, ...]) -> Memory:
    if size and not array.size:
        return Memory.of(cuda.to_device(np.zeros(max(2, size), dtype)))
    packed = room(array, size, dtype)
    if size:
        _pack(array, packed, sizes)
    return packed


def _pack(array: DeviceArray, packed: Memory, sizes: tuple[int, ...], stream: Any = None) -> None:
    strides = (array.strides[0], array.strides[1] if array.ndim > 1 else 0, *(0, 0, 0, *array.strides[2:])[-3:])
    build()[-(-packed.size // THREADS), THREADS, stream or 0](array.flat(), array.span[1], strides, packed, sizes)
