"""Matrix products on tensor cores, in TF32: the method for many channels where ten bits of each factor are enough.

The idea: a correlation is a product of weights and gathered pixels [1]_. A first launch rounds the inputs to TF32 and
brings 32 channels of a pixel together, so that a second one gathers whole cache lines, wherever taps meet padding of
any mode, stride and dilation, and hands them to the tensor cores. Where outputs are few, the products are shared out
among more blocks, whose sums a third launch adds up. The order of summation is the hardware's own. The kernels are in
tensor_tile.py and records.py.

It wins where an `rtol` of two thousandths is asked for, on GPUs of compute capability 8.0 and later.

.. [1] S. Chetlur, C. Woolley, P. Vandermersch, J. Cohen, J. Tran, B. Catanzaro, E. Shelhamer, "cuDNN: efficient
   primitives for deep learning", arXiv:1410.0759, 2014.
"""

from __future__ import annotations

import functools
import itertools
import math
from typing import Any

import numpy as np

from ..machine import Machine
from ..method import Work, allowed_scratch
from ..problem import Problem
from . import pack, records, tensor_tile, tf32, wide_tile
from .arrays import LIMIT, too_long
from .driver import simulated
from .kernels import Memory, allocate
from .tensor_tile import DEPTH, PIXELS, Block, channel_blocks, steps, units
from .tiling import MAX_GRID, THREADS

NAME = "tensor"
REPRODUCIBLE = False
NEEDS_RTOL = True
STRIDED_OUT = False
GROUPS_APART = False

# Kernels by warps and, on compute capability 9, by warp groups; with the cycles of a multiprocessor for a step of one
# block, where as many as fit take turns, and where it is alone. Measured on an H100.
BY_WARPS = {Block(64, 2, by_groups=False): (1430, 2000)}
BY_GROUPS = {Block(128, 2, by_groups=True): (1260, 1980), Block(64, 3, by_groups=True): (760, 1390)}
CYCLES = BY_WARPS | BY_GROUPS
# What blocks take besides, and a launch.
START, LAUNCH = 14000, 24000
# Steps of a part at least, and at most, which bounds the error; and parts that are worth adding up.
LEAST_STEPS, MOST_STEPS, MOST_PARTS = 8, 1024, 64


def error_bound(problem: Problem) -> float:
    """Both factors are rounded once, and each sum is truncated: of a part, then of all parts."""
    most = MOST_STEPS * DEPTH
    parts = MOST_PARTS + problem.taps // most
    return tf32.bound(tf32.ROUNDED, min(problem.taps, most) + DEPTH + parts + problem.has_bias)


# Truncation errs to one side, and one large product may be all there is.
expected_error = error_bound


def why_not(problem: Problem, machine: Machine) -> str | None:
    if simulated():
        return "numba's simulator has no tensor cores"
    if reason := tf32.why_not(problem, machine):
        return reason
    if reason := too_long(problem):
        return reason
    block = next(iter(BY_WARPS))
    if max(problem.groups * units(problem), _grid(problem, block, 1)[1]) > MAX_GRID:
        return "there are more than 65535 blocks of channels, but a grid has no more"
    for name, elements in (("weight", _words(problem, block)), ("records", records.size(problem, 1))):
        if elements >= LIMIT:
            return f"in its order the {name} has {elements} elements, but its positions hold {LIMIT} at most"
    return None


def _words(problem: Problem, block: Block) -> int:
    """Elements of the weights in order."""
    return problem.groups * channel_blocks(problem, block) * steps(problem) * block.words


def _grid(problem: Problem, block: Block, images: int) -> tuple[int, int]:
    """Blocks of pixels, of so many images, and of channels."""
    return -(-images * problem.pixels // PIXELS), problem.groups * channel_blocks(problem, block)


def _time(problem: Problem, block: Block, parts: int, images: int, multiprocessors: int) -> float:
    """Cycles of the multiprocessor with most blocks, for so many images at a time."""
    taking_turns, alone = CYCLES[block]
    each = -(-steps(problem) // parts)
    whole, rest = divmod(problem.batch, images)
    total = 0.0
    for count, some in ((whole, images), (min(1, rest), rest)):
        busiest = -(-math.prod(_grid(problem, block, some)) * parts // multiprocessors)
        turns, left = divmod(busiest, block.resident)
        total += count * (turns + (left > 0)) * START + count * (2 + (parts > 1)) * LAUNCH
        for several, together in ((turns, block.resident), (min(1, left), left)):
            total += count * several * each * max(together * taking_turns, alone)
    return total


@functools.lru_cache(maxsize=1024)
def choose(problem: Problem, by_groups: bool, multiprocessors: int, scratch: int) -> tuple[Block, int, int]:
    """The block that takes least time; in how many parts; and for how many images at a time, whose records and sums
    fit in so many bytes, if one's do.
    """
    of_image = problem.out_channels * problem.pixels * problem.accumulator.itemsize
    least = -(-steps(problem) // MOST_STEPS)
    counts = range(max(1, least), max(1, least, min(MOST_PARTS, steps(problem) // LEAST_STEPS)) + 1)
    best: tuple[tuple[float, int], tuple[Block, int, int]] | None = None
    for block, parts in itertools.product(BY_GROUPS if by_groups else BY_WARPS, counts):
        if of_image * parts > scratch and parts > counts[0]:
            break
        image = max(1, records.size(problem, 1) * 4 + of_image * parts * (parts > 1))
        most = max(1, min(problem.batch, scratch // image, MAX_GRID, LIMIT * 4 // image))
        # As many as fit, or as many each time.
        for images in {most, -(-problem.batch // max(1, -(-problem.batch // most)))} - {0}:
            cost = _time(problem, block, parts, images, multiprocessors), parts
            if best is None or cost < best[0]:
                best = cost, (block, parts, images)
    assert best is not None
    return best[1]


def _chosen(problem: Problem, machine: Machine) -> tuple[Block, int, int]:
    assert machine.gpu is not None
    # Later GPUs have other instructions for warp groups.
    by_groups = machine.gpu.cc[0] == 9
    return choose(problem, by_groups, machine.multiprocessors, allowed_scratch(problem, machine))


def work(problem: Problem, machine: Machine) -> Work:
    assert machine.gpu is not None
    block, parts, images = _chosen(problem, machine)
    # Records are written and read before and between the products, and so are the sums of parts.
    moved = 4.0 * math.prod(problem.x_shape) + 8.0 * records.size(problem, problem.batch)
    moved += 8.0 * parts * math.prod(problem.out_shape) * (parts > 1)
    seconds = _time(problem, block, parts, images, machine.multiprocessors) / machine.gpu.clock
    seconds += moved / machine.gpu.bandwidth
    flops = 2.0 * math.prod(_grid(problem, block, problem.batch)) * block.channels * PIXELS * steps(problem) * DEPTH
    packing = float(math.prod(problem.weight_shape)) * 8
    flops = max(flops, problem.flops, 1.0)
    return Work(flops, flops / seconds, problem.bytes, machine.launch, packing)


def scratch_bytes(problem: Problem, machine: Machine) -> int:
    """The records of so many images as go together, and the sums of several parts."""
    _, parts, images = _chosen(problem, machine)
    sums = images * problem.out_channels * problem.pixels * parts * (parts > 1)
    return problem.accumulator.itemsize * (records.size(problem, images) + sums)


def prepare(problem: Problem, machine: Machine, weight: Any, bias: Any) -> pack.Prepared:
    block, parts, images = _chosen(problem, machine)
    words = _words(problem, block)
    packed = pack.room(weight, words, np.uint32)
    if words:
        records.pack_weights(problem, block, weight, packed)
    launch = tensor_tile.build(block), block, parts, images
    return pack.prepare(problem, weight, bias, 1, 1, tensor_tile.places(problem, block), launch, packed)


def run(
    problem: Problem, machine: Machine, prepared: pack.Prepared, x: Any, out: Any, scratch: Any, stream: Any = None
) -> None:
    """For as many images as scratch has room for: their records, the products, and, of several parts, the sum."""
    memory, (start, *strides) = pack.reached(problem, x, out, stream)
    weight, bias, *tables, (correlate, block, parts, images) = prepared
    on, each, images = stream or 0, -(-steps(problem) // parts), min(images, problem.batch)
    of_image = problem.out_channels * problem.pixels
    there = allocate(max(1, records.size(problem, images)), np.uint32, stream)
    sums = allocate(parts * images * of_image, problem.accumulator, stream) if parts > 1 else out
    for first in range(0, problem.batch, images):
        some = min(images, problem.batch - first)
        if steps(problem):
            records.fill(problem, some, memory, (start + first * strides[0], *strides), bias, there, stream)
        size, grid = some * of_image, (*_grid(problem, block, some), parts)
        to, step = (first * of_image, 0) if parts == 1 else (0, size)
        correlate[grid, THREADS, on](there, weight, bias, *tables, sums, to, each, step, some * problem.pixels)
        if parts > 1:
            relu, shape = int(problem.activation == "relu"), (size, problem.pixels, problem.out_channels)
            into = Memory(out.owner, size, out.dtype, out.pointer + first * of_image * out.dtype.itemsize)
            wide_tile.build_sums()[-(-size // THREADS), THREADS, on](sums, bias, into, parts, 0, 1, relu, *shape)
