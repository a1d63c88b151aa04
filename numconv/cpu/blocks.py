"""Blocks: how the output falls into tasks, and tasks into even shares, one for each thread."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence
from typing import NamedTuple

from ..problem import Problem
from .simd.shares import Share, counted, njit, portion
from .window import Window

# Sizes of blocks are no nearer to one another than such a share of them.
APART = 32


class Blocks(NamedTuple):
    """How the output falls into tasks: (image, group, channels, plane, rows, columns), columns fastest.

    Channels of a task; unit of them that share a block of weights; and for each unit, so many rows of so many sums.
    Rows and pixels of a tile with channels in the lanes.
    relu and skip are flags; skip leaves out the taps that meet zero padding alone. panel is where, in a thread's
    scratch, the window begins, and first_weight where the weights do. far is a flag, too: whether weights come from
    beyond the second-level cache.
    """

    groups: int
    channels: int
    channel_blocks: int
    unit: int
    out_d: int
    row_blocks: int
    column_blocks: int
    sum_rows: int
    sum_columns: int
    tile_rows: int
    tile_run: int
    relu: int
    skip: int
    panel: int = 0
    first_weight: int = 0
    far: int = 0


def even_sizes(length: int, most: int | None = None) -> list[int]:
    """Sizes of blocks, `most` at most, that cut an axis into even parts, the largest first: all there are, or, of more
    than some, those that are a few percent apart.
    """
    size, found = min(length, most or length), []
    while size > 0:
        # The largest block of no fewer parts.
        parts = -(-length // size)
        found.append(-(-length // parts))
        size = found[-1] - max(1, found[-1] // APART)
    return found or [1]


def tasks(problem: Problem, rows: int, columns: int, channels: int) -> int:
    """The number of tasks of so many output rows, columns and channels."""
    out_d, out_h, out_w = (1, 1, *problem.out_spatial)[-3:]
    group_channels = problem.out_channels // problem.groups
    in_image = -(-group_channels // channels) * out_d * -(-out_h // rows) * -(-out_w // columns)
    return problem.batch * problem.groups * in_image


def share_costs(
    problem: Problem, rows: int, columns: int, channels: int, threads: int, cost: Callable[[int, int, int], int]
) -> list[int]:
    """What each share costs, where `cost` tells it of a task of so many output rows, columns and channels."""

    def sizes(length: int, block: int) -> list[int]:
        return [min(block, length - start) for start in range(0, length, block)]

    out_d, out_h, out_w = (1, 1, *problem.out_spatial)[-3:]
    plane = list(itertools.product(sizes(out_h, rows), sizes(out_w, columns))) * out_d
    cost = functools.cache(cost)
    group = [cost(*part, count) for count in sizes(problem.out_channels // problem.groups, channels) for part in plane]
    return even_shares(group * (problem.batch * problem.groups), threads)


def even_shares(costs: Sequence[int], threads: int) -> list[int]:
    """What each share costs of tasks that cost so much: even shares, neighbours together."""
    ends = [len(costs) * share // threads for share in range(threads + 1)]
    return [sum(costs[start:end]) for start, end in itertools.pairwise(ends)]


def imbalance(costs: Sequence[int]) -> float:
    """The busiest share over the mean: 1 is even, and the number of shares is one that does everything."""
    return max(costs) * len(costs) / max(1, sum(costs))


def blocks(
    problem: Problem,
    rows: int,
    columns: int,
    channels: int,
    unit: int = 1,
    sum_rows: int = 0,
    sum_columns: int = 0,
    tile_rows: int = 0,
    tile_run: int = 0,
    skip: bool = False,
) -> Blocks:
    """The tasks of so many output rows, columns and channels each."""
    out_d, out_h, out_w = (1, 1, *problem.out_spatial)[-3:]
    return Blocks(
        groups=problem.groups,
        channels=channels,
        channel_blocks=-(-(problem.out_channels // problem.groups) // channels),
        unit=unit,
        out_d=out_d,
        row_blocks=-(-out_h // rows),
        column_blocks=-(-out_w // columns),
        sum_rows=sum_rows,
        sum_columns=sum_columns,
        tile_rows=tile_rows,
        tile_run=tile_run,
        relu=int(problem.activation == "relu"),
        skip=int(skip and skips_taps(problem)),
    )


def skips_taps(problem: Problem) -> bool:
    """Whether rows skip the taps that meet zero padding alone: such a row goes without its neighbours, which is worth
    it from a quarter of the kernel's rows on.
    """
    kernel_h, dilation_h = ((1, *values)[-2] for values in (problem.kernel, problem.dilation))
    return problem.padding_mode == "zeros" and 4 * max(((0, 0), *problem.padding)[-2]) >= kernel_h * dilation_h


@njit()
def take(share: Share, most: int, batch: int, blocks: Blocks) -> tuple[int, int]:
    """(first task, end) of the next tasks, `most` at most, for the thread of a share; none left: first is end.

    A thread works through its own share, so that in a next call the same inputs are in its caches, and then helps with
    the others': a thread that was interrupted or began late keeps nobody waiting.
    """
    tasks = batch * blocks.groups * blocks.channel_blocks * blocks.out_d * blocks.row_blocks * blocks.column_blocks
    for turn in range(share.total):
        other = (share.number + turn) % share.total
        begin, end = portion(tasks, Share(other, share.total, share.counters))
        task = begin + counted(share, other, most)
        if task < end:
            return task, min(task + most, end)
    return 0, 0


@njit()
def locate(task: int, window: Window, blocks: Blocks) -> tuple[int, int, int, int, int, int]:
    """(image, group, first channel of the group, output plane, first row, first column) of a task."""
    rest, column_block = divmod(task, blocks.column_blocks)
    rest, row_block = divmod(rest, blocks.row_blocks)
    rest, od = divmod(rest, blocks.out_d)
    rest, channel_block = divmod(rest, blocks.channel_blocks)
    n, group = divmod(rest, blocks.groups)
    first = channel_block * blocks.channels
    return n, group, first, od, row_block * window.block_rows, column_block * window.block_columns
