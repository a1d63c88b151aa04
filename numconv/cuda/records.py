"""What the tensor cores' kernel reads, in its order: weights as lanes hold them, inputs as records of 32 channels."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np

from ..problem import Problem
from .arrays import DeviceArray
from .driver import cuda
from .kernels import Memory, kernel
from .tensor_core import rounded
from .tensor_tile import DEPTH, EIGHTS, ROWS, Block, channel_blocks, steps, units
from .tiling import THREADS

# Pixels of a block, and threads of each; elements of shared memory from one to the next, so that neighbours in pixels
# and in channels meet all banks.
TOGETHER, PITCH = 64, DEPTH + 1
SIDES, ELEMENTS = THREADS // TOGETHER, TOGETHER * PITCH


@functools.cache
def build_weights() -> Any:
    """The kernel that brings weights into order."""

    def order(weight, start, strides, packed, sizes):  # type: ignore[no-untyped-def]
        """packed[g, block, step, 64 channels, eights, warp, lane, i]: of a lane (across, down), channels 16 * warp +
        across + 8 * (i % 2), and input channels 8 * eights + down + 4 * (i // 2) of the step's for warp groups, for
        warps 8 * down + 2 * eights + i // 2; 0 beyond.
        """
        groups, out_channels, blocks, inner, taps, kernel_h, kernel_w, parts, all_steps, by_groups = sizes
        at = np.int64(cuda.blockIdx.x) * THREADS + cuda.threadIdx.x
        if at < groups * blocks * all_steps * parts * ROWS * DEPTH:
            i, lane, warp, rest = at % 4, at // 4 % 32, at // 128 % 4, at // 512
            eights, rest = rest % EIGHTS, rest // EIGHTS
            part, rest = rest % parts, rest // parts
            step, rest = rest % all_steps, rest // all_steps
            block, group = rest % blocks, rest // blocks
            unit, tap = step // taps, step % taps
            co = (block * parts + part) * ROWS + 16 * warp + lane // 4 + i % 2 * 8
            ci = 8 * eights + lane % 4 + i // 2 * 4
            if by_groups == 0:
                ci = 8 * (lane % 4) + 2 * eights + i // 2
            ci += unit * DEPTH
            value = np.float32(0)
            if co < out_channels and ci < inner:
                line = tap // kernel_w
                place = start + (group * out_channels + co) * strides[0] + ci * strides[1]
                place += line // kernel_h * strides[2] + line % kernel_h * strides[3] + tap % kernel_w * strides[4]
                value = np.float32(weight[place])
            packed[at] = rounded(value)

    return kernel(order, THREADS, 1)


def pack_weights(problem: Problem, block: Block, weight: DeviceArray, packed: Memory) -> None:
    """Fill `packed`, words for all steps of all blocks."""
    _, kernel_h, kernel_w = (1, 1, *problem.kernel)[-3:]
    sizes = (
        problem.groups,
        problem.out_channels // problem.groups,
        channel_blocks(problem, block),
        problem.in_channels // problem.groups,
        math.prod(problem.kernel),
        kernel_h,
        kernel_w,
        block.parts,
        steps(problem),
        int(block.by_groups),
    )
    strides = (*weight.strides[:2], *(0, 0, *weight.strides[2:])[-3:])
    blocks = -(-packed.size // THREADS)
    build_weights()[blocks, THREADS, 0](weight.flat(), weight.span[1], strides, packed, sizes)


@functools.cache
def build_inputs() -> Any:
    """The kernel that makes records."""

    def order(x, start, strides, bias, records, sizes):  # type: ignore[no-untyped-def]
        """records[units + ((n * groups + g) * units + unit) * pixels + pixel, i] is channel 32 * unit + i of a pixel,
        rounded, or 0 beyond the last; records[unit] is the padding.
        """
        tile = cuda.shared.array(ELEMENTS, np.uint32)
        inner, groups, units, height, width, pixels = sizes
        thread = np.int32(cuda.threadIdx.x)
        pixel0 = np.int32(np.int32(cuda.blockIdx.x) * TOGETHER)
        group = np.int32(np.int32(cuda.blockIdx.y) // np.int32(units))
        unit = np.int32(np.int32(cuda.blockIdx.y) - group * np.int32(units))
        left = np.int32(inner - unit * DEPTH)
        lying, first = np.int32(thread % TOGETHER), np.int32(thread // TOGETHER)
        pixel = np.int32(pixel0 + lying)
        row = np.int32(pixel // np.int32(width))
        plane = np.int32(row // np.int32(height))
        at = start + np.int64(cuda.blockIdx.z) * strides[0] + (group * inner + unit * DEPTH) * strides[1]
        at += plane * strides[2] + (row - plane * np.int32(height)) * strides[3]
        at += (pixel - row * np.int32(width)) * strides[4]
        for i in range(DEPTH // SIDES):
            c = np.int32(first + SIDES * i)
            value = np.float32(0)
            if c < left and pixel < pixels:
                value = x[at + c * strides[1]]
            tile[np.uint32(lying * PITCH) + np.uint32(c)] = rounded(value)
        cuda.syncthreads()
        c, first = np.int32(thread % DEPTH), np.int32(thread // DEPTH)
        to = np.int64(cuda.blockIdx.z) * groups * units + cuda.blockIdx.y
        to = (units + to * pixels + pixel0) * DEPTH + np.int64(c)
        for i in range(TOGETHER * DEPTH // THREADS):
            lying = np.int32(first + THREADS // DEPTH * i)
            if pixel0 + lying < pixels:
                records[to + lying * DEPTH] = tile[np.uint32(lying * PITCH) + np.uint32(c)]
        if cuda.blockIdx.x == 0 and group == 0 and cuda.blockIdx.z == 0 and thread < DEPTH:
            frame = bias[len(bias) - 1] if thread < left else np.float32(0)
            records[unit * DEPTH + thread] = rounded(frame)

    return kernel(order, THREADS, 1)


def size(problem: Problem, images: int) -> int:
    """Words of the records of so many images."""
    return DEPTH * units(problem) * (1 + images * problem.groups * math.prod(problem.spatial))


def fill(
    problem: Problem, images: int, x: Memory, numbers: tuple[int, ...], bias: Memory, records: Memory, stream: Any
) -> None:
    """Make the records of so many images; numbers: where in x the first lies, and its strides."""
    inner, pixels = problem.in_channels // problem.groups, math.prod(problem.spatial)
    _, height, width = (1, 1, *problem.spatial)[-3:]
    grid = (max(1, -(-pixels // TOGETHER)), max(1, problem.groups * units(problem)), max(1, images))
    sizes = (inner, problem.groups, units(problem), height, width, pixels)
    build_inputs()[grid, THREADS, stream or 0](x, numbers[0], numbers[1:], bias, records, sizes)
