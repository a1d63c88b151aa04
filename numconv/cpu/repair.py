"""Direct sums for flagged tiles: how a method of transforms keeps NaN and inf where direct summation leaves them.

A transform mixes all of a tile, so a NaN, an inf or an overflow anywhere in it reaches every output of the tile. The
method flags such tiles, and here each of their outputs is added up again in the one order of summation, so that its
bits are those of `loops`. A few flagged tiles at a time, their inputs are gathered, padding included, as the images of
a small Problem without padding, which goes through the kernel of direct.py: nothing more is compiled.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from typing import Any

import numpy as np

from ..machine import Machine
from ..method import Array
from ..problem import Problem
from .direct import LANES, correlate, launch, scratch_elements
from .operands import padded_axes, three, three_axes

Sizes = tuple[int, int, int]

# Bytes of gathered inputs, or of their sums, at a time.
GATHERED_BYTES = 1 << 20
PIXELS, CHANNELS = 128, 32


def repair(
    problem: Problem,
    machine: Machine,
    weight: Array,
    bias: Array,
    x: Array,
    out: Array,
    flags: Array,
    tile: Sizes,
) -> None:
    """Add up again what flagged tiles hold, in all output channels, bias and activation included.

    flags: uint8 (batch, tiles over d, h, w), for x (batch, channels, *spatial) and out (batch, out channels,
    *out_spatial). tile: (depth, rows, columns) of output pixels; axes that a Problem lacks have length 1. weight:
    (groups, out channels per group, taps) and bias: (out channels,), both in the accumulator's dtype. A method finds
    its flags before the activation: relu of -inf is 0.
    """
    if not flags.any():
        return
    block, count = _block(problem, tile)
    source, target = three_axes(x, problem.spatial), three_axes(out, problem.out_spatial)
    corners = _corners(flags, tile, block, target.shape[2:])
    for start in range(0, len(corners), count):
        part = corners[start : start + count]
        inner = _inner(problem, block, len(part))
        pixels = min(PIXELS, -(-inner.pixels // LANES) * LANES)
        sums = np.empty(inner.out_shape, problem.accumulator)
        correlate(
            machine.threads,
            _gathered(problem, source, part, inner.spatial),
            weight,
            bias,
            sums.reshape(*inner.out_shape[:2], inner.pixels),
            np.empty((machine.threads, scratch_elements(1, pixels, CHANNELS)), problem.accumulator),
            *launch(inner, pixels, CHANNELS),
        )
        for found, (n, *first) in zip(sums, part, strict=True):
            place = target[n, :, *(slice(f, f + size) for f, size in zip(first, block, strict=True))]
            # The last blocks of an axis may hang over its end.
            place[...] = found[:, *(slice(size) for size in place.shape[1:])]


def _inner(problem: Problem, block: Sizes, count: int) -> Problem:
    """The Problem of so many gathered blocks."""
    axes: dict[str, Any] = {name: three(problem, name) for name in ("kernel", "stride", "dilation", "input_dilation")}
    steps = zip(block, axes["stride"], axes["dilation"], axes["kernel"], strict=True)
    return dataclasses.replace(
        problem,
        batch=count,
        spatial=tuple((size - 1) * stride + dilation * (taps - 1) + 1 for size, stride, dilation, taps in steps),
        padding=((0, 0),) * 3,
        padding_mode="zeros",
        padding_value=0,
        fold=((0, 0),) * 3,
        x_dtype=problem.accumulator,
        **axes,
    )


def _block(problem: Problem, tile: Sizes) -> tuple[Sizes, int]:
    """The output pixels of a block, and how many are gathered at a time. A tile is one, unless it is too large."""
    depth, rows, columns = (
        min(size, pixels) for size, pixels in zip(tile, (1, 1, *problem.out_spatial)[-3:], strict=True)
    )
    while True:
        inner = _inner(problem, (depth, rows, columns), 1)
        most = max(math.prod(inner.x_shape), math.prod(inner.out_shape)) * problem.accumulator.itemsize
        if most <= GATHERED_BYTES or inner.pixels == 1:
            return (depth, rows, columns), max(1, GATHERED_BYTES // most)
        # Rows stay whole as long as there are several: loops run along them.
        depth, rows, columns = (
            (-(-depth // 2), rows, columns)
            if depth > 1
            else (depth, -(-rows // 2), columns)
            if rows > 1
            else (depth, rows, -(-columns // 2))
        )


def _corners(flags: Array, tile: Sizes, block: Sizes, size: tuple[int, ...]) -> Array:
    """(blocks, 4): image, plane, row and column of the first output pixel of each block of a flagged tile."""
    tiles = np.argwhere(flags) * (1, *tile)
    steps = itertools.product(*(range(0, length, step) for length, step in zip(tile, block, strict=True)))
    corners = np.concatenate([tiles + np.array([0, *step]) for step in steps])
    return corners[(corners[:, 1:] < size).all(axis=1)]


def _gathered(problem: Problem, x: Array, corners: Array, spatial: tuple[int, ...]) -> Array:
    """(blocks, channels, *spatial): what the padded input holds there, in the accumulator's dtype."""
    places, outside = [], np.zeros((1,) * 5, bool)
    sides = zip(spatial, padded_axes(problem), three(problem, "stride"), strict=True)
    for axis, (length, table, stride) in enumerate(sides):
        reads = corners[:, 1 + axis, None] * stride + np.arange(length)
        shape = (len(corners), 1, *(length if other == axis else 1 for other in range(3)))
        places.append(table[np.minimum(reads, len(table) - 1)].reshape(shape))
        outside = outside | (places[-1] < 0)
    images, channels = corners[:, 0].reshape(-1, 1, 1, 1, 1), np.arange(x.shape[1]).reshape(-1, 1, 1, 1)
    found: Array = x[images, channels, *places].astype(problem.accumulator)
    found[np.broadcast_to(outside, found.shape)] = problem.padding_value
    return found
