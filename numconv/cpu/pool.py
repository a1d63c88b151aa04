"""Pooling windows: the maximum or the sum of each, a row of output at a time, with output columns in the vector lanes.

The idea: an output row is combined with one input row after another, and in each with one window column after another,
so every element meets its window in row-major order, whatever the threads. Padding is never read: of each window
column, only those output columns take part that meet the input. With the channels last, a row's pixels are so many
channels each: the same row, where the stride is one, and else a run of channels after another.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..method import Array
from .simd.fields import record
from .simd.shares import Share, njit, portion


class Pool(NamedTuple):
    """The integers of a launch; axes are padded to three on the left. channels: those of a pixel, one where each has
    planes of its own. mean and located are flags. interior: for each window column, the first and the end of the output
    columns at which it meets the input.
    """

    kernel_d: int
    kernel_h: int
    kernel_w: int
    stride_d: int
    stride_h: int
    stride_w: int
    before_d: int
    before_h: int
    before_w: int
    dilation_d: int
    dilation_h: int
    dilation_w: int
    channels: int
    mean: int
    located: int
    interior: Array


@njit(parallel=True)
def pool(
    share: Share,
    x: Array,
    out: Array,
    places: Array,
    start: Array,
    counts: tuple[Array, ...],
    integers: Array,
) -> None:
    """The rows of one share: out (planes, od, oh, ow * channels) from x (planes, d, h, w * channels).

    Places, of out's shape, where located: the index in its channel's plane of each maximum. Start (1,): what no element
    leaves. Counts, of each axis by output index: the factors of what a sum is divided by.
    """
    pool = record(Pool, integers, 0)
    channels = pool.channels
    width = x.shape[3] // max(1, channels)
    whole = channels == 1 or (pool.stride_w == 1 and not pool.located)
    step = pool.stride_w if whole else 1
    rows = out.shape[0] * out.shape[1] * out.shape[2]
    first, end = portion(rows, share)
    for task in range(first, end):
        block, oh = divmod(task, out.shape[2])
        plane, od = divmod(block, out.shape[1])
        row = out[plane, od, oh]
        row[:] = start[0]
        for kd in range(pool.kernel_d):
            d = od * pool.stride_d + kd * pool.dilation_d - pool.before_d
            if d < 0 or d >= x.shape[1]:
                continue
            for kh in range(pool.kernel_h):
                h = oh * pool.stride_h + kh * pool.dilation_h - pool.before_h
                if h < 0 or h >= x.shape[2]:
                    continue
                for kw in range(pool.kernel_w):
                    low, high = pool.interior[2 * kw], pool.interior[2 * kw + 1]
                    if low < high:
                        column = low * pool.stride_w + kw * pool.dilation_w - pool.before_w
                        source, target = x[plane, d, h, column * channels :], row[low * channels : high * channels]
                        for begin in range(0, len(target), len(target) if whole else channels):
                            run = slice(begin, len(target) if whole else begin + channels)
                            met = source[begin * pool.stride_w :]
                            if pool.mean:
                                add(target[run], met, step)
                            elif pool.located:
                                place = places[plane, od, oh, low * channels : high * channels]
                                index = (d * x.shape[2] + h) * width + column + begin // channels * pool.stride_w
                                locate(target[run], place[run], met, step, index, step if channels == 1 else 0)
                            else:
                                raise_to(target[run], met, step)
        if pool.mean:
            divide(row, channels, counts, od, oh)


@njit()
def divide(row: Array, channels: int, counts: tuple[Array, ...], od: int, oh: int) -> None:
    """A row of sums by what each pixel counts."""
    depth, height, width = counts
    if channels == 1:
        for ow in range(len(row)):
            row[ow] /= row.dtype.type(depth[od] * height[oh] * width[ow])
        return
    for ow in range(len(width)):
        pixel, count = row[ow * channels : (ow + 1) * channels], row.dtype.type(depth[od] * height[oh] * width[ow])
        for channel in range(channels):
            pixel[channel] /= count


@njit()
def add(target: Array, source: Array, step: int) -> None:
    """target[j] += source[j * step]. Steps that the compiler knows become vectors, by unsigned indices."""
    if step == 1:
        for j in range(len(target)):
            target[j] += source[j]
    elif step == 2:
        for j in range(len(target)):
            target[j] += source[np.uintp(2 * j)]
    else:
        for j in range(len(target)):
            target[j] += source[np.uintp(step * j)]


@njit()
def raise_to(target: Array, source: Array, step: int) -> None:
    """target[j] = the greater of itself and source[j * step]; NaN stays."""
    if step == 1:
        for j in range(len(target)):
            target[j] = greater(target[j], source[j])
    elif step == 2:
        for j in range(len(target)):
            target[j] = greater(target[j], source[np.uintp(2 * j)])
    else:
        for j in range(len(target)):
            target[j] = greater(target[j], source[np.uintp(step * j)])


@njit()
def greater(old: float, new: float) -> float:
    """The greater of two numbers; NaN if either is."""
    return new if new > old or new != new else old  # NaN alone differs from itself


@njit()
def locate(target: Array, place: Array, source: Array, step: int, index: int, hop: int) -> None:
    """raise_to, with the place of each maximum: the first of equals, the last of NaN; -1 as long as there is none.

    source[j * step] is at index + j * hop.
    """
    for j in range(len(target)):
        value = source[np.uintp(step * j)]
        if value > target[j] or value != value or place[j] < 0:
            target[j] = value
            place[j] = index + hop * j
