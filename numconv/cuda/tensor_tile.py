"""The kernel of matrix products on tensor cores: its geometry, what it keeps in shared memory and in registers.

A block multiplies 64 or 128 rows of weights by 128 columns of pixels, its four warps 16 rows of each 64. A *step* is
one tap of 32 input channels; all taps of these come before the next channels, so that their window stays in the
first-level cache. Weights lie in memory as the lanes of a warp hold them [1]_, and come from there by 128 bits. The
inputs were rounded and brought into *records* of 32 channels of a pixel (records.py), which are copied to shared memory
without passing through registers, two steps before they are multiplied; that a tap meets the padding only decides which
record is copied. Where warp groups multiply (compute capability 9), a step is four instructions that read shared
memory themselves; elsewhere warps do, from registers.

.. [1] NVIDIA, "PTX ISA", sections "Matrix Fragments for mma.m16n8k8" and "Register Fragments for wgmma.mma_async".
"""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any, NamedTuple

import numpy as np

from ..problem import Problem
from .driver import cuda, inlined
from .kernels import kernel
from .tensor_core import (
    SUMS,
    commit_copies,
    copy_16_bytes,
    described,
    end_products,
    four,
    multiplied,
    show_copies,
    start_products,
    wait_for_copies,
)
from .tiling import THREADS

PIXELS, DEPTH, ROWS = 128, 32, 64
# Products of eight inputs, one behind another; of two at a time, words of the weights by fours.
EIGHTS = DEPTH // 8
# Words of the records of a step, of which one is multiplied and two arrive: all of the memory that needs no asking for.
STAGES, STAGE = 3, PIXELS * DEPTH
WORDS = STAGES * STAGE
# Of shared memory, so that its swizzle is the hardware's.
ATOM = 1024
# Words from one channel of results to the next on their way out, with which lanes meet all banks.
OUT_PITCH = PIXELS + 4
# Columns of a half of the block that each lane holds, and inputs of such a half.
NEAR, INPUTS = 8, 32


@dataclasses.dataclass(frozen=True)
class Block:
    """What a kernel is compiled for. channels: output channels of a block; resident: blocks that fit a multiprocessor;
    by_groups: whether warp groups multiply, or warps, of 64 channels then.
    """

    channels: int
    resident: int
    by_groups: bool

    @property
    def parts(self) -> int:
        """Rows by 64."""
        return self.channels // ROWS

    @property
    def words(self) -> int:
        """Weights of a step."""
        return self.channels * DEPTH


class Places(NamedTuple):
    """The integers of a launch that a Problem decides."""

    units: int
    out_channels: int
    channel_blocks: int
    out_d: int
    out_h: int
    out_w: int
    kernel_d: int
    kernel_h: int
    kernel_w: int
    stride_d: int
    stride_h: int
    stride_w: int
    dilation_d: int
    dilation_h: int
    dilation_w: int
    in_d: int
    in_h: int
    in_w: int
    groups: int
    relu: int


def units(problem: Problem) -> int:
    """Records of a pixel, in one group."""
    return -(-problem.in_channels // problem.groups // DEPTH)


def steps(problem: Problem) -> int:
    """Taps of so many channels each."""
    return units(problem) * math.prod(problem.kernel)


def channel_blocks(problem: Problem, block: Block) -> int:
    """Blocks of output channels, of one group."""
    return -(-(problem.out_channels // problem.groups) // block.channels)


def places(problem: Problem, block: Block) -> Places:
    """Those of a launch."""
    sides = (problem.out_spatial, problem.kernel, problem.stride, problem.dilation, problem.spatial)
    return Places._make(
        (
            units(problem),
            problem.out_channels // problem.groups,
            channel_blocks(problem, block),
            *(side for values in sides for side in (1, 1, *values)[-3:]),
            problem.groups,
            int(problem.activation == "relu"),
        )
    )


@inlined
def take(factors, to, weight, at, part, eights, count):  # type: ignore[no-untyped-def]
    """So many products' weights of 64 rows from one of eight inputs on."""
    for i in range(count):
        found = four(weight, np.uint64(at) + np.uint64(THREADS * (EIGHTS * part + eights + i)))
        for k in range(4):
            factors[to + 4 * i + k] = found[k]


@inlined
def add(sums, first, factors, at, inputs, deep):  # type: ignore[no-untyped-def]
    """A warp's products of 16 rows by half of the columns, with the first eight of `inputs` or the last."""
    for n in range(NEAR):
        result = multiplied(
            factors[at],
            factors[at + 1],
            factors[at + 2],
            factors[at + 3],
            inputs[4 * n + 2 * deep],
            inputs[4 * n + 2 * deep + 1],
            sums[first + 4 * n],
            sums[first + 4 * n + 1],
            sums[first + 4 * n + 2],
            sums[first + 4 * n + 3],
        )
        for i in range(4):
            sums[first + 4 * n + i] = result[i]


@inlined
def add_half(sums, half, factors, inputs, window, at):  # type: ignore[no-untyped-def]
    """The products of a warp's rows by half of the columns, with 16 inputs."""
    for n in range(NEAR):
        found = four(window, np.uint64(at) + np.uint64(STAGE // 8 * half + 64 * n))
        for k in range(4):
            inputs[4 * n + k] = found[k]
    add(sums, SUMS // 2 * half, factors, 0, inputs, 0)
    add(sums, SUMS // 2 * half, factors, 4, inputs, 1)


@inlined
def store(out, to, here, left, pixels, floats, at, thread, sums, bias, channel, part, low, relu, alone):  # type: ignore[no-untyped-def]
    """Eight channels of each 16 of 64: through shared memory, so that neighbouring threads store neighbours."""
    for half in range(2):
        for c in range(2):
            for n in range(NEAR):
                place = np.uint64(at) * np.uint64(4) + np.uint64(PIXELS // 2 * half + PIXELS // 4 * c + n)
                floats[place] = sums[SUMS * part + SUMS // 2 * half + 4 * n + 2 * low + c]
    cuda.syncthreads()
    for i in range(np.int32(ROWS // 2)):
        co = np.int32(ROWS * part + i // 8 * 16 + 8 * low + i % 8)
        if here and co < left:
            total = floats[np.uint32(i * OUT_PITCH + thread)]
            if alone:
                total = total + bias[channel + co]
                if relu and total < np.float32(0):
                    total = np.float32(0)
            out[to + np.int64(co) * pixels] = total
    cuda.syncthreads()


@functools.cache
def build(block: Block) -> Any:
    """The kernel.

    Arguments: records, weight (records.py), bias and the padding's value, depth, height, width (padded position ->
    position or -1), places, out (flat) and where in it the first image lies; steps of each part; if there are several,
    elements from the sums of one to the next, else 0; pixels of all images.
    """
    parts, by_groups = block.parts, block.by_groups
    # Products by eights whose weights are in registers: all of a step, or half.
    at_once = EIGHTS if by_groups else EIGHTS // 2
    sums_size, factors_size, step_words = SUMS * parts, 4 * at_once * parts, block.words // 4

    def correlate(records, weight, bias, depth, height, width, places, out, first, each, size, total):  # type: ignore[no-untyped-def]
        window = cuda.shared.array(WORDS, np.uint32, alignment=ATOM)
        floats = window.view(np.float32)
        sums = cuda.local.array(sums_size, np.float32)
        found = cuda.local.array(8, np.int32)
        factors = cuda.local.array(factors_size, np.uint32)
        later = cuda.local.array(factors_size, np.uint32)
        inputs = cuda.local.array(INPUTS, np.uint32)
        for i in range(sums_size):
            sums[i] = np.float32(0)
        thread = np.uint32(cuda.threadIdx.x)
        lane, warp = np.uint32(thread % np.uint32(32)), np.uint32(thread // np.uint32(32))
        across, down = np.uint32(lane // np.uint32(4)), np.uint32(lane % np.uint32(4))
        unit_count, out_channels = np.int32(places[0]), np.int32(places[1])
        out_h, out_w = np.int32(places[4]), np.int32(places[5])
        pixels = np.int32(np.int32(places[3]) * out_h * out_w)
        kernel_d, kernel_h, kernel_w = np.int32(places[6]), np.int32(places[7]), np.int32(places[8])
        dilation_d, dilation_h, dilation_w = np.int32(places[12]), np.int32(places[13]), np.int32(places[14])
        taps = np.int32(kernel_d * kernel_h * kernel_w)
        row_step = np.int32(places[17])
        plane_step = np.int32(np.int32(places[16]) * row_step)
        unit_step = np.int32(np.int32(places[15]) * plane_step)
        group = np.int32(np.int32(cuda.blockIdx.y) // np.int32(places[2]))
        co = np.int32((np.int32(cuda.blockIdx.y) - group * np.int32(places[2])) * (ROWS * parts))
        # The pixel whose records this thread finds, the last for those beyond, and whose results it stores.
        mine = np.int32(np.int32(cuda.blockIdx.x) * PIXELS + np.int32(thread))
        here = mine < np.int32(total)
        mine = np.int32(min(mine, np.int32(total) - 1))
        n = np.int32(mine // pixels)
        pixel = np.int32(mine - n * pixels)
        row = np.int32(pixel // out_w)
        d0 = np.int32(np.int32(row // out_h) * np.int32(places[9]))
        h0 = np.int32(np.int32(row % out_h) * np.int32(places[10]))
        w0 = np.int32(np.int32(pixel - row * out_w) * np.int32(places[11]))
        image = np.int32(((n * np.int32(places[18]) + group) * unit_step + 1) * unit_count)
        # Eight neighbours copy a record, each fourth of the pixels of their warp. These are columns of products in such
        # an order that each lane's results are neighbours.
        fourth, eighth = np.int32(lane // np.uint32(8)), np.uint32(lane % np.uint32(8))
        odd = np.uint32(warp % np.uint32(2))
        copy_to = np.uint32(
            warp // np.uint32(2) * np.uint32(STAGE // 8) + np.uint32(fourth) * np.uint32(64) + odd * np.uint32(8)
        )
        weight_at = np.uint32(np.int32(cuda.blockIdx.y) * unit_count * taps * step_words)
        weight_at = np.uint32(weight_at + thread)

        # The first step of this part: of which channels, which tap.
        begin = np.int32(np.int32(cuda.blockIdx.z) * np.int32(each))
        count = np.int32(min(np.int32(each), unit_count * taps - begin))
        weight_at = np.uint32(weight_at + begin * step_words)
        unit = np.int32(begin // taps)
        tap = np.int32(begin - unit * taps)
        line = np.int32(tap // kernel_w)
        kw = np.int32(tap - line * kernel_w)
        kd = np.int32(line // kernel_h)
        kh = np.int32(line - kd * kernel_h)
        if count > 0:
            take(factors, 0, weight, weight_at, 0, 0, at_once)
            if parts > 1:
                take(factors, 4 * at_once, weight, weight_at, 1, 0, at_once)
        # Places that a tap meets on the axes are looked up three steps before its products, and its records copied two.
        d = depth[np.int32(d0 + kd * dilation_d)]
        h = height[np.int32(h0 + kh * dilation_h)]
        w = width[np.int32(w0 + kw * dilation_w)]
        arriving, leaving = np.uint32(0), np.uint32(0)
        for turn in range(np.int32(-2), count):
            step = np.int32(turn)
            # The next step's weights; after the last, the same once more.
            following = np.uint32(weight_at + np.uint32(step_words)) if step + 1 < count else weight_at
            if step >= 0:
                wait_for_copies()
                if by_groups:
                    show_copies()
                # The step's records are there, and nobody reads those of the step before any more.
                cuda.syncthreads()
                if by_groups:
                    # Before the products start: registers that change while they run would make them wait.
                    take(later, 0, weight, following, 0, 0, at_once)
                    if parts > 1:
                        take(later, 16, weight, following, 1, 0, at_once)
                    stage = described(window) + np.uint64(leaving) * np.uint64(STAGE // 4)
                    start_products(sums, 0, factors, 0, stage)
                    if parts > 1:
                        start_products(sums, 64, factors, 16, stage)
            at = np.int32(image + unit * unit_step + d * plane_step + h * row_step + w)
            at = at if d >= 0 and h >= 0 and w >= 0 else unit
            kw = np.int32(kw + 1)
            if kw == kernel_w:
                kw, kh = np.int32(0), np.int32(kh + 1)
            if kh == kernel_h:
                kh, kd = np.int32(0), np.int32(kd + 1)
            if kd == kernel_d:
                kd, unit = np.int32(0), np.int32(unit + 1)
            d = depth[np.int32(d0 + kd * dilation_d)]
            h = height[np.int32(h0 + kh * dilation_h)]
            w = width[np.int32(w0 + kw * dilation_w)]
            for i in range(8):
                found[i] = cuda.shfl_sync(0xFFFFFFFF, at, np.int32(fourth + 4 * i))
            if step + 2 < count:
                to = np.uint32(copy_to + arriving * np.uint32(STAGE // 4))
                for i in range(8):
                    turned = np.uint64(eighth ^ (odd + np.uint32(i // 2 * 2)))
                    there = np.uint64(to) + np.uint64(i % 2 * 256 + i // 2 * 16) + turned
                    copy_16_bytes(window, there, records, np.uint32(found[i]) * 8 + eighth)
            commit_copies()
            arriving = np.uint32(arriving + np.uint32(1)) if arriving < STAGES - 1 else np.uint32(0)
            if step >= 0:
                if by_groups:
                    end_products(sums, 0)
                    if parts > 1:
                        end_products(sums, 64)
                    for i in range(factors_size):
                        factors[i] = later[i]
                else:
                    at_stage = np.uint32(leaving * np.uint32(STAGE // 4) + across * np.uint32(8))
                    at_first = np.uint32(at_stage + (np.uint32(2) * down ^ across))
                    at_second = np.uint32(at_stage + ((np.uint32(2) * down + np.uint32(1)) ^ across))
                    take(later, 0, weight, weight_at, 0, at_once, at_once)
                    add_half(sums, 0, factors, inputs, window, at_first)
                    add_half(sums, 1, factors, inputs, window, at_first)
                    take(factors, 0, weight, following, 0, 0, at_once)
                    add_half(sums, 0, later, inputs, window, at_second)
                    add_half(sums, 1, later, inputs, window, at_second)
                weight_at = following
                leaving = np.uint32(leaving + np.uint32(1)) if leaving < STAGES - 1 else np.uint32(0)
        cuda.syncthreads()

        relu, alone = places[19] != 0, size == 0
        left = np.int32(out_channels - co)
        channel = np.int64(group * out_channels + co)
        target = np.int64(cuda.blockIdx.z) * size + first + pixel
        target += (np.int64(n) * places[18] * out_channels + channel) * pixels
        stage_at = np.uint32((warp * np.uint32(8) + across) * np.uint32(OUT_PITCH // 4) + np.uint32(2) * down)
        # Written out, since a loop over them would not unroll.
        store(out, target, here, left, pixels, floats, stage_at, thread, sums, bias, channel, 0, 0, relu, alone)
        store(out, target, here, left, pixels, floats, stage_at, thread, sums, bias, channel, 0, 1, relu, alone)
        if parts > 1:
            store(out, target, here, left, pixels, floats, stage_at, thread, sums, bias, channel, 1, 0, relu, alone)
            store(out, target, here, left, pixels, floats, stage_at, thread, sums, bias, channel, 1, 1, relu, alone)

    return kernel(correlate, THREADS, block.resident)
