"""Minimal filtering: what `winograd` and `winograd2` have in common, the methods of 3x3 kernels by transforms.

A tile of m x m outputs is a product of transforms of its inputs and of the taps, (m + 2)**2 of them element by element
where direct summation takes 9 m**2 [1]_. Summed over channels, these are matrix products, by the register tiles of
direct summation. A task fills a window of the input, transforms all of its tiles with tiles in the vector lanes, and
goes through the output channels in bands: products, transform back, bias and activation. The weights are
transformed once, in float64. Where an output meets NaN, inf or an overflow, direct sums replace its tile.

The bound: an output is a sum of products of transformed inputs and weights. Each goes through no more roundings than a
row has elements, in each of the two passes of either transform, one of the weights, one for each plane that is summed
and one for the bias; and the sizes of the terms add up to at most `growth` times max|x| sum|w| [2]_.
The expected error is direct summation's, times how much larger the largest error was seen to be: 1.6 for m = 2 and 4.1
for m = 4, over 40 pairs of distributions of x and w, with 16 to 256 channels. With fewer channels the transforms' own
roundings weigh more, for which steps are added.

.. [1] A. Lavin and S. Gray, "Fast algorithms for convolutional neural networks", CVPR 2016.
.. [2] B. Barabasz, A. Anderson, K. Soodhalter and D. Gregg, "Error analysis and improving the accuracy of Winograd
   convolution for deep neural networks", ACM TOMS 46, 2020, section 4.
"""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import numpy as np

from .. import aligned
from ..accuracy import summed_bound, summed_expected
from ..machine import Machine
from ..method import Array, Work, allowed_scratch
from ..problem import Problem
from .blocks import blocks, even_sizes, tasks
from .operands import CACHE_LINE, best_that_fits, biases, no_room, no_vectors, three_axes
from .pixel_tiles import kinds
from .repair import repair
from .simd.fields import packed
from .simd.tiles import tile
from .simd.winograd import input_transform, output_transform
from .tile_choice import far_bytes
from .toom_cook import TAPS, as_floats, growth, transforms
from .window import Tables, Window, window
from .window_axes import copy_cycles, total_planes
from .winograd_blocks import BAND, UNIT, WIDTH, Squares, correlate, pack

# Share of the FMA peak that the cycles below were measured to run at (bench/peers.py).
EFFICIENCY = 0.75
WINDOW_BYTES = 64 << 10
PARTS = (1, 2, 4, 8, 16, 32, 64)
# Bytes of a task's transformed inputs at most: 7 MB, which share the last cache with other threads' and the weights,
# were 9% slower than 2 MB on 3x3 128@112, where fewer tasks should have been faster.
TRANSFORMED_BYTES = 4 << 20
# The most that errors were seen to exceed direct summation's, and the steps that a transform's roundings are worth.
SEEN_GROWTH = {2: 1.6, 4: 4.1}
TRANSFORM_STEPS = 16
# Cycles that a vector of tiles takes through the transforms of inputs and of results.
INPUT_CYCLES = {2: 130, 4: 520}
OUTPUT_CYCLES = {2: 30, 4: 150}
TILE_START = 130
# Bytes of transformed weights that come in a cycle from beyond the second-level cache: a task multiplies by each but a
# few times, which does not hide that they come. 512->512 at 7 and at 14 take them at 28 and 22 GB/s a core.
WEIGHT_BYTES = 5


class Choice(NamedTuple):
    """Rows and columns of tiles, and the output channels, of a task."""

    rows: int
    columns: int
    channels: int


class Prepared(NamedTuple):
    """transformed: as `row_of` in winograd_blocks.py has it; weight: (groups, co, taps), for what is summed directly
    after all; bias: (groups * co,).
    """

    transformed: Array
    weight: Array
    bias: Array


class MinimalFiltering:
    """What a method of that name, of tiles of so many by so many outputs, offers."""

    def __init__(self, name: str, outputs: int) -> None:
        self.name = name
        self.outputs = outputs

    def why_not(self, problem: Problem, machine: Machine) -> str | None:
        if reason := no_vectors(problem, machine, "transforms"):
            return reason
        if problem.rank == 1 or problem.kernel[-2:] != (TAPS, TAPS):
            return "its transforms are of kernels of 3x3 taps in the last two axes"
        if problem.stride[-2:] != (1, 1) or problem.dilation[-2:] != (1, 1):
            return "its tiles have a stride and a dilation of 1 in the last two axes"
        if not total_planes(problem):
            return "there are no input channels to transform"
        return no_room(problem, machine, self.scratch_bytes(problem, machine), "blocks")

    def error_bound(self, problem: Problem) -> float:
        data, _, result = transforms(self.outputs)
        passes = 2 * sum(max(sum(map(bool, row)) for row in matrix) for matrix in (data, result))
        # U is computed in float64: two products with G, whose elements are rounded, of three terms each. In float32 all
        # of that is less than a rounding, and storing U is another.
        of_weights = 2 if problem.accumulator.itemsize == 4 else 2 * (TAPS + 1)
        steps = passes + of_weights + total_planes(problem) + problem.has_bias
        return growth(self.outputs) * summed_bound(problem, steps)

    def expected_error(self, problem: Problem) -> float:
        steps = problem.taps + problem.has_bias + TRANSFORM_STEPS
        return SEEN_GROWTH[self.outputs] * summed_expected(problem, steps)

    def work(self, problem: Problem, machine: Machine) -> Work:
        cycles = machine.threads * _busiest(problem, machine, self.outputs, _choose(problem, machine, self.outputs))
        share = machine.efficiency(self.name, problem.accumulator, EFFICIENCY)
        rate = share * machine.flop_rate(problem.accumulator)
        transformed = problem.out_channels * self._planes(problem) * problem.accumulator.itemsize
        moved = problem.bytes + transformed - math.prod(problem.weight_shape) * problem.accumulator.itemsize
        flops = 2.0 * cycles * machine.lanes(problem.accumulator)
        return Work(flops, rate, moved, 2 * machine.launch, 2.0 * transformed)

    def _planes(self, problem: Problem) -> int:
        """Elements of the transformed weights of an output channel."""
        return (self.outputs + TAPS - 1) ** 2 * total_planes(problem)

    def scratch_bytes(self, problem: Problem, machine: Machine) -> int:
        return _scratch(problem, machine, self.outputs, _choose(problem, machine, self.outputs))

    def prepare(self, problem: Problem, machine: Machine, weight: Array, bias: Array | None) -> Prepared:
        channels, planes = problem.out_channels // problem.groups, total_planes(problem)
        rows = weight.astype(problem.accumulator, order="C", copy=False)
        rows = rows.reshape(problem.groups, channels, planes * TAPS**2)
        kernel = as_floats(transforms(self.outputs).kernel)
        transformed = aligned.empty((problem.out_channels * self._planes(problem),), problem.accumulator)
        # Of each share: a unit's squares of taps, those times G, and the transforms.
        buffers = np.empty((machine.threads, TAPS**2 + len(kernel) * TAPS + len(kernel) ** 2, UNIT))
        pack(machine.threads, rows, kernel, transformed, buffers)
        return Prepared(transformed, rows, biases(problem, bias))

    def run(
        self,
        problem: Problem,
        machine: Machine,
        prepared: Prepared,
        x: Array,
        out: Array,
        scratch: Array,
        stream: object = None,
    ) -> None:
        if not out.size:
            return
        integers, size = _launch(problem, machine, self.outputs)
        shape = _flags_shape(problem, self.outputs)
        flags = scratch[: math.prod(shape)].reshape(shape)
        flags[...] = 0
        start = _flags_bytes(problem, self.outputs)
        shares = scratch[start : start + machine.threads * size * out.itemsize].view(out.dtype)
        correlate(
            machine.threads,
            three_axes(x, problem.spatial),
            prepared.transformed,
            prepared.bias,
            three_axes(out, problem.out_spatial),
            flags,
            shares.reshape(machine.threads, size),
            integers,
        )
        tile = (1, self.outputs, self.outputs)
        repair(problem, machine, prepared.weight, prepared.bias, x, out, flags, tile)


def _squares(problem: Problem, machine: Machine, outputs: int, choice: Choice) -> Squares:
    lanes = machine.lanes(problem.accumulator)
    # Short rows of tiles come several in a vector: by halves, or by quarters.
    rows = next(rows for rows in (4, 2, 1) if rows <= outputs and choice.columns * rows <= max(lanes, choice.columns))
    pitch = lanes // rows if rows == 4 else choice.columns
    places = -(-(-(-choice.rows // rows) * rows * pitch + lanes) // lanes) * lanes
    extent = outputs + TAPS - 1
    return Squares(
        outputs=outputs,
        extent=extent,
        columns=choice.columns,
        pitch=pitch,
        rows=rows,
        places=places,
        # A line more, lest all elements of a tile meet in one set of the first-level cache: 1.5 times as fast.
        tile_step=total_planes(problem) * places + lanes,
        sum_step=min(BAND, choice.channels) * places + lanes,
        buffer=2 * outputs * extent * lanes,
        together=1 if problem.layout == "NCHW" else UNIT,
        starts=np.zeros(0, np.int64),
    )


@functools.lru_cache(maxsize=1024)
def _launch(problem: Problem, machine: Machine, outputs: int) -> tuple[Array, int]:
    """What `correlate` is told of a Problem, and the elements of a share."""
    choice = _choose(problem, machine, outputs)
    rows, columns, lanes = choice.rows * outputs, choice.columns * outputs, machine.lanes(problem.accumulator)
    squares, dtype = _squares(problem, machine, outputs, choice), problem.accumulator
    geometry, tables = _window(problem, machine, outputs, choice)
    split = blocks(problem, rows, columns, choice.channels)._replace(panel=_before_window(squares))
    transforms_at = np.array([native(outputs, dtype).address for native in (input_transform, output_transform)])
    most = min(choice.channels, problem.out_channels // problem.groups)
    pair = tile(2, UNIT, 1, dtype, False, False).address if most >= 2 * UNIT else 0
    tiles = np.concatenate([kinds(problem, choice.channels, False), transforms_at, [pair]])
    tables = tables._replace(offsets=squares.places * np.arange(geometry.total_planes), tiles=tiles)
    together = outputs // squares.rows
    starts = [part // together * outputs * geometry.pitch + part % together * lanes for part in range(outputs)]
    squares = squares._replace(starts=np.array([*starts, *(start + outputs for start in starts)]))
    return packed(geometry, split, tables, squares), _elements(problem, machine, outputs, choice)


def _window(problem: Problem, machine: Machine, outputs: int, choice: Choice) -> tuple[Window, Tables]:
    lanes = machine.lanes(problem.accumulator)
    return window(problem, choice.rows * outputs, choice.columns * outputs, lanes, WINDOW_BYTES, phased=True)


def _elements(problem: Problem, machine: Machine, outputs: int, choice: Choice) -> int:
    """Of a share's scratch."""
    squares, lanes = _squares(problem, machine, outputs, choice), machine.lanes(problem.accumulator)
    geometry, _ = _window(problem, machine, outputs, choice)
    # The last vectors of tiles read what lies behind the window: rows of tiles that are none, and columns.
    beyond = squares.rows * outputs * geometry.pitch + 2 * outputs * lanes
    size = _before_window(squares) + geometry.planes * geometry.plane_size + beyond
    return -(-size // CACHE_LINE) * CACHE_LINE


def _before_window(squares: Squares) -> int:
    """Elements of a share's scratch for checks, a transform, results, sums and transformed inputs."""
    results = squares.places * (1 + squares.together * squares.outputs**2)
    return results + squares.buffer + squares.extent**2 * (squares.tile_step + squares.sum_step)


def _scratch(problem: Problem, machine: Machine, outputs: int, choice: Choice) -> int:
    shares = machine.threads * _elements(problem, machine, outputs, choice) * problem.accumulator.itemsize
    return _flags_bytes(problem, outputs) + shares


def _flags_shape(problem: Problem, outputs: int) -> tuple[int, ...]:
    """(batch, planes, rows, columns) of the tiles."""
    depth, *extent = (1, *problem.out_spatial)[-3:]
    return problem.batch, depth, *(-(-pixels // outputs) for pixels in extent)


def _flags_bytes(problem: Problem, outputs: int) -> int:
    """Where scratch, which begins at a cache line, has the next behind the flags: no vector shall cross one."""
    return aligned.whole_lines(math.prod(_flags_shape(problem, outputs)))


@functools.lru_cache(maxsize=1024)
def _choose(problem: Problem, machine: Machine, outputs: int) -> Choice:
    """The choice whose busiest thread has the least work, of those whose scratch is allowed; or the smallest."""
    cost, scratch = (functools.partial(of, problem, machine, outputs) for of in (_busiest, _scratch))
    return best_that_fits(_choices(problem, outputs), cost, scratch, allowed_scratch(problem, machine))


def _choices(problem: Problem, outputs: int) -> list[Choice]:
    tall, wide = (-(-pixels // outputs) for pixels in problem.out_spatial[-2:])
    units = max(1, -(-(problem.out_channels // problem.groups) // UNIT))
    channels = sorted({-(-units // part) * UNIT for part in PARTS}, reverse=True)
    a_tile = (outputs + TAPS - 1) ** 2 * total_planes(problem) * problem.accumulator.itemsize
    most = max(1, TRANSFORMED_BYTES // a_tile)
    sizes = [(r, c) for r in even_sizes(tall, most) for c in even_sizes(wide, most // r)]
    return [Choice(*size, co) for size in sizes for co in channels]


def _busiest(problem: Problem, machine: Machine, outputs: int, choice: Choice) -> int:
    """Cycles of the busiest thread, if all tasks were whole."""
    rows, columns = choice.rows * outputs, choice.columns * outputs
    count = tasks(problem, rows, columns, choice.channels)
    return -(-count // machine.threads) * _task_cycles(problem, machine, outputs, choice)


def _task_cycles(problem: Problem, machine: Machine, outputs: int, choice: Choice) -> int:
    squares, planes = _squares(problem, machine, outputs, choice), total_planes(problem)
    lanes = machine.lanes(problem.accumulator)
    rows, columns = choice.rows * outputs, choice.columns * outputs
    channels = min(choice.channels, problem.out_channels // problem.groups)
    copying = copy_cycles(problem, rows, columns, lanes, phased=True)
    strips = -(-choice.rows // squares.rows) * -(-choice.columns * squares.rows // lanes)
    vectors = -(-((choice.rows - 1) * squares.pitch + choice.columns) // lanes)
    wide, single = divmod(vectors, WIDTH)
    a_unit = wide * (WIDTH * UNIT * planes + TILE_START) + single * ((UNIT + 1) * planes + TILE_START)
    adding = squares.extent**2 * -(-channels // UNIT) * a_unit
    storing = channels * vectors * OUTPUT_CYCLES[outputs]
    if problem.layout == "NCHW":
        storing += channels * rows * (20 + 6 * columns // lanes)
    else:
        storing += -(-channels // UNIT) * rows * -(-columns // lanes) * 12 * lanes
    weights = far_bytes(problem, machine, rows, columns, channels, squares.extent**2 * planes)
    return copying + planes * strips * INPUT_CYCLES[outputs] + adding + storing + weights // WEIGHT_BYTES
