"""Which tiles `tiled` may take, how much of the output a task of them may be, and how long its busiest thread works."""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

from ..machine import Machine
from ..problem import Problem
from . import channel_tiles, pixel_tiles
from .blocks import even_sizes, share_costs, tasks
from .channel_runs import reads_inside, run_length
from .window import WINDOW_BYTES
from .window_axes import copy_cycles, lies_in_place, phases, pitch, total_planes, window_elements

# Cycles that a task takes besides its copies and sums: depthwise layers are a task a channel.
TASK_COST = 900
# Bytes of a plane up to which the planes of an input are near one another: at 28x28 tiles took 1.1 times as long where
# they lie as from a window, at 56x56 1.2 to 1.4 times, at 14x14 and 7x7 0.96 and 0.9.
NEAR = 1 << 10
# Of so many tasks, those at the ends of rows, which are smaller, are counted for what they are.
FEW_TASKS = 32
# Rows of more columns are cut where a caller sets what scratch there is.
SPARING_COLUMNS = 28
# A group's channels are cut into so many parts, so that all threads have work on a small map.
PARTS = (1, 2, 4, 8, 16, 32, 64)
# Bytes of a task's sums, in the second-level cache beside its window and its weights: with 800 KB of them, layers of
# 28x28 took 1.01 to 1.03 times as long as with 400.
SUMS_BYTES = 512 << 10
# Copies to a window there take twice what those to the first cache take, 7 to 10 clocks a vector (3x3 layers of 7 to
# 224 pixels).
FAR_COPY = 2
# The part of a copy that inputs cost which tiles read where they lie, as they come from beyond the second-level cache.
UNCOPIED = 5
# How many times as long a copy takes that tiles do not make while they add up, and of how many channels, so that such
# tiles are few: 1x1 layers of 512 -> 128 channels at 28x28 ran 1.16 times as fast with theirs.
COPIED_BY_TILES, MANY_CHANNELS = 2, 128
# Places of the second-level cache that a line may take.
WAYS = 16
# Cycles that a vector of sums takes to be stored and loaded again, where a window does not hold all planes.
SUM_AGAIN = 6
# Bytes of weights that come in a cycle from beyond the second-level cache. 3x3 layers of 256 channels at 14x14 and 512
# at 28 and 14 ran 1.02 to 1.03 times as fast where each of two threads had half of the channels, not half of the rows,
# a transposed one of 128 channels 1.2 times, where the threads' cores had no cache in common.
WEIGHT_BYTES = 12
SHAPES: dict[str, Any] = {"pixels": pixel_tiles, "channels": channel_tiles}


class Choice(NamedTuple):
    """The shape of tile, and the output rows, columns and channels of a task."""

    shape: str
    rows: int
    columns: int
    channels: int


def choices(problem: Problem, machine: Machine, name: str) -> list[Choice]:
    """What may be chosen with a shape of tile."""
    shape = SHAPES[name]
    out_h, out_w = (1, *problem.out_spatial)[-2:]
    step = shape.channel_step(machine, problem)
    tiles = max(1, -(-(problem.out_channels // problem.groups) // step))
    channels = sorted({-(-tiles // part) * step for part in PARTS}, reverse=True)
    most_sums = SUMS_BYTES // problem.accumulator.itemsize
    # Short rows only where there would be too few tasks, or too much scratch.
    uncut = shape.UNCUT_COLUMNS if machine.workspace is None else SPARING_COLUMNS
    parts = max(-(-out_w // uncut), machine.threads // max(1, tasks(problem, 1, out_w, step)))
    parted = {size for size in even_sizes(out_w, shape.MAX_PIXELS) if size >= -(-out_w // max(1, parts))}
    if problem.rank == math.prod(problem.kernel) == 1:
        # Such blocks share no inputs: all but the last may be of whole tiles.
        tile = shape.VECTORS * machine.lanes(problem.accumulator)
        parted.update(range(tile, min(out_w, shape.WHOLE_TILES * tile + 1), tile))
    columns = sorted(parted, reverse=True)
    found = []
    for c in columns:
        width = pitch(problem, c, True) if shape.PHASED else c
        most = max(1, shape.MAX_PIXELS // width)
        rows = even_sizes(out_h, most)
        found += [Choice(name, r, c, co) for r in rows for co in channels if r == 1 or r * c * co <= most_sums]
    return found


def busiest(problem: Problem, machine: Machine, choice: Choice) -> int:
    """Cycles of the busiest thread; of many tasks, as if all were whole. Shares that are uneven cost a little more than
    even ones, as a thread that is late has less help.
    """
    shape, rows, columns, channels = choice
    cost, count = functools.partial(task_cycles, problem, machine, shape), tasks(problem, rows, columns, channels)
    if count <= FEW_TASKS:
        costs = share_costs(problem, rows, columns, channels, machine.threads, cost)
        return max(costs) + (max(costs) - sum(costs) // machine.threads) // 4
    return -(-count // machine.threads) * cost(rows, columns, min(channels, problem.out_channels // problem.groups))


def task_cycles(problem: Problem, machine: Machine, shape: str, rows: int, columns: int, channels: int) -> int:
    """Cycles of a task of so many output rows, columns and channels."""
    lanes = machine.lanes(problem.accumulator)
    there = in_place(problem, machine, Choice(shape, rows, columns, channels))
    copying = copy_cycles(problem, rows, columns, lanes, SHAPES[shape].PHASED)
    adding: int = SHAPES[shape].cycles(problem, machine, rows, columns, channels)
    if math.prod(problem.kernel) == 1:  # whose sums were measured with all that follows
        if there:
            copying = 0
        elif shape == "pixels" and channels >= MANY_CHANNELS and pixel_tiles.copies(problem, rows, columns):
            copying //= COPIED_BY_TILES
        return TASK_COST + copying + adding
    reading = far_bytes(problem, machine, rows, columns, channels, problem.taps) // WEIGHT_BYTES
    if there:
        return TASK_COST + FAR_COPY * copying // UNCOPIED + reading + adding
    size = window_elements(problem, rows, columns, SHAPES[shape].PHASED) * problem.accumulator.itemsize
    again = max(0, -(-size // WINDOW_BYTES) - 1) * channels * rows * -(-columns // lanes) * SUM_AGAIN
    return TASK_COST + FAR_COPY * copying + reading + adding + again


def far_bytes(problem: Problem, machine: Machine, rows: int, columns: int, channels: int, elements: int) -> int:
    """Bytes of weights, of so many elements an output channel, that come from beyond the second-level cache for a task
    of so many output rows, columns and channels: none if half of it holds those of all tasks of a thread, and once for
    its tasks that share them if it holds a task's.
    """
    channels = max(1, channels)
    size, room = channels * elements * problem.accumulator.itemsize, sum(machine.caches[:2]) // 2
    different = -(-(problem.out_channels // problem.groups) // channels) * problem.groups
    count = tasks(problem, rows, columns, channels)
    in_a_thread, alike = max(1, -(-count // machine.threads)), max(1, count // max(1, problem.batch * different))
    if size * min(different, -(-in_a_thread // alike)) <= room:
        return 0
    return size // (min(alike, in_a_thread) if size <= room else 1)


def in_place(problem: Problem, machine: Machine, choice: Choice, finite: bool = True) -> bool:
    """Whether tiles read a contiguous input where it lies, for weights that are all finite or any: what a block meets
    lies in the second-level cache meanwhile; of kernels of one tap, planes that are small.
    """
    if choice.shape != "channels":
        return False
    plane = math.prod(problem.spatial) * problem.accumulator.itemsize
    if math.prod(problem.kernel) == 1:
        return plane <= NEAR and lies_in_place(problem, choice.rows, choice.columns, run_length(choice.columns))
    rows, cache = phases(problem, -2, False).length(choice.rows), machine.caches[:2][-1]
    # Planes whose distance is a multiple of a power of two share the places of as many bytes, and no others.
    apart = math.gcd(plane, cache // WAYS)
    room = total_planes(problem) * -(-rows * problem.spatial[-1] * problem.accumulator.itemsize // apart) * apart
    return finite and room <= cache // 4 and reads_inside(problem, choice.columns)
