"""The geometry of a register tile: what its kernel (tile.py) is compiled for, and which one suits a Problem."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from typing import Any

import numpy as np

from ..machine import Machine
from ..method import Work
from ..problem import Problem
from .arrays import too_long

THREADS = 128
# Pixels side by side of a thread, of float32: fewer give a small problem more blocks.
PIXELS = (8, 4)
# Two registers hold a float64, and ptxas spills 4 pixels of them, but for 1x1.
PIXELS_OF_DOUBLES, PIXELS_OF_DOUBLES_1X1 = (2,), (4,)
# Share of its multiply-adds that a multiprocessor reaches with so many blocks, each with a warp on each of its four
# schedulers, by the pixels of a thread. Measured on an H100.
MOST_REACHED = 0.80
REACHED = {8: (0.51, 0.68, 0.76, MOST_REACHED), 4: (0.51, 0.64, 0.70, 0.74), 2: (0.51, 0.60, 0.65, 0.68)}
# Blocks that should fit on a multiprocessor: 16 of 64 warps, and 128 registers a thread.
RESIDENT = 4
CHANNELS = 8
# Channels of each thread whose results are on their way through shared memory at a time.
STAGED = 4
MAX_COLUMNS = 12
SHARED_BYTES = 48 << 10
# Beside the sums: what a row of taps meets, and the chunk to come with its places.
REGISTERS = 25
# Pairs of weights on their way at a time, where registers are short.
BATCH = 3
MAX_GRID = 65535
# Of the peak at the driver's clock, measured on an H100 with large 3x3 layers: 0.85 of a block's instructions are
# multiply-adds, four in five cycles issue one, and load lowers the clock. And with the 1x1 layers of a ResNet.
EFFICIENCY, EFFICIENCY_1X1 = 0.72, 0.6
# What a block takes besides, in multiply-adds of a thread: from its start to its end, and for each element of the first
# window that a thread copies, whose place it works out. Fitted to 60 layers on an H100, most within a tenth; with one
# channel and 9 taps that is nine tenths of all.
START, COPY = 2400, 240
FLOATS = (np.float32, np.float64)


@dataclasses.dataclass(frozen=True)
class Floats:
    """What its floats say of a kernel, by their itemsize."""

    itemsize: int

    @property
    def real(self) -> type[np.floating[Any]]:
        """What it is computed in."""
        return np.float32 if self.itemsize == 4 else np.float64

    @property
    def unit(self) -> int:
        """Elements that are read at once: 128 bits."""
        return 16 // self.itemsize


@dataclasses.dataclass(frozen=True)
class Row(Floats):
    """What a row of pixels and of taps says of a kernel. columns: groups of `pixels` neighbouring pixels, one group to
    a thread.
    """

    kernel_w: int
    stride_w: int
    dilation_w: int
    columns: int
    pixels: int

    @property
    def width(self) -> int:
        """Pixels in a row."""
        return self.pixels * self.columns

    @property
    def period(self) -> int:
        """After how many taps of a row the phases of the columns repeat."""
        return self.stride_w // math.gcd(self.stride_w, self.dilation_w)

    @property
    def phases(self) -> int:
        """Phases of the columns that some tap meets."""
        return min(self.period, self.kernel_w)

    @property
    def shift(self) -> int:
        """Columns that a row's last tap lies after its first, in its phase."""
        return (self.kernel_w - 1) * self.dilation_w // self.stride_w

    @property
    def pitch(self) -> int:
        """Elements from one phase of a row to the next."""
        return -(-(self.width + self.shift) // self.unit) * self.unit


@dataclasses.dataclass(frozen=True)
class Tile(Row):
    """A kernel's constants. groups: of 8 output channels; chunk: input channels between two barriers; together:
    channels of a 1x1 kernel that one round adds up; framed: the padding holds another number than zero.
    """

    kernel_d: int
    kernel_h: int
    stride_d: int
    stride_h: int
    dilation_d: int
    dilation_h: int
    groups: int
    chunk: int
    together: int
    framed: bool

    @property
    def rows(self) -> int:
        """Rows of pixels."""
        return THREADS // self.groups // self.columns

    @property
    def channels(self) -> int:
        """Output channels."""
        return CHANNELS * self.groups

    @property
    def taps(self) -> int:
        """Taps of one input channel."""
        return self.kernel_d * self.kernel_h * self.kernel_w

    @property
    def row_unit(self) -> int:
        """Rows of the input from one row of the window to the next: one row of taps needs no rows in between."""
        return self.stride_h if self.kernel_h == 1 else 1

    @property
    def row_step(self) -> int:
        """Rows of the window from one row of pixels to the next."""
        return self.stride_h // self.row_unit

    @property
    def window_rows(self) -> int:
        """Rows of the window."""
        return (self.rows - 1) * self.row_step + (self.kernel_h - 1) * self.dilation_h + 1

    def row_pitch(self) -> int:
        """Elements from one row of the window to the next, with which 4 neighbouring threads meet most banks."""
        least = self.phases * self.pitch
        pitches = range(least, least + 8 * self.unit, self.unit)
        return max(pitches, key=lambda pitch: len({self._bank(thread, pitch) for thread in range(4)}))

    def _bank(self, thread: int, pitch: int) -> int:
        row, column = divmod(thread, self.columns)
        return (self.pixels * column + row * self.row_step * pitch) // self.unit % 8

    def copies(self) -> int:
        """Elements of one channel's window that each thread copies."""
        return -(-self.kernel_d * self.window_rows * self.row_pitch() // THREADS)

    def weight_pairs(self) -> int:
        """Pairs of float32, or float64, among the weights of one chunk: they are copied by 64 bits."""
        return self.chunk * self.taps * self.channels * self.itemsize // 8

    def shared_elements(self) -> int:
        """Elements of shared memory: two buffers of weights and window, or later the results."""
        buffers = 2 * self.chunk * (self.taps * self.channels + self.copies() * THREADS)
        return max(buffers, STAGED * self.groups * self.stage_pitch())

    def stage_pitch(self) -> int:
        """Elements from one channel of results to the next, on their way through shared memory: 8 neighbouring threads,
        4 groups of pixels by 2 of channels, meet all banks.
        """
        return self.rows * self.width + self.unit * (4 if self.pixels == self.unit else 1)


def is_framed(problem: Problem) -> bool:
    """Whether the padding holds another number than zero."""
    return problem.padding_mode == "constant" and any(map(any, problem.padding))


@functools.lru_cache(maxsize=1024)
def choose(problem: Problem, multiprocessors: int) -> Tile | None:
    """The tile that takes least time on so many multiprocessors, or None where none fits shared memory."""
    constants = [(1, 1, *values)[-3:] for values in (problem.kernel, problem.stride, problem.dilation)]
    kernel, stride, dilation = constants
    volume = math.prod(kernel)
    inner = max(1, problem.in_channels // problem.groups)
    together = 2 if volume == 1 else 1
    itemsize = problem.accumulator.itemsize
    # About 8 taps or more between two barriers, but no channels that are not there.
    chunk = next((c for c in (8, 4, 2) if c * volume <= 18 and c <= -(-inner // 2) * 2), together)
    segment = problem.segments[0] // volume
    while inner > segment and segment % chunk:
        chunk //= 2
    of_doubles = PIXELS_OF_DOUBLES_1X1 if volume == 1 else PIXELS_OF_DOUBLES
    best: tuple[tuple[float, ...], Tile] | None = None
    for pixels, groups, columns in itertools.product(
        PIXELS if itemsize == 4 else of_doubles, (8, 4, 2, 1), (16, 8, 4, 2, 1)
    ):
        if groups * columns > THREADS:
            continue
        tile = Tile(
            kernel_d=kernel[0],
            kernel_h=kernel[1],
            kernel_w=kernel[2],
            stride_d=stride[0],
            stride_h=stride[1],
            stride_w=stride[2],
            dilation_d=dilation[0],
            dilation_h=dilation[1],
            dilation_w=dilation[2],
            groups=groups,
            columns=columns,
            chunk=chunk,
            together=together,
            pixels=pixels,
            itemsize=itemsize,
            framed=is_framed(problem),
        )
        if itemsize * tile.shared_elements() <= SHARED_BYTES - 64:
            # Then few pixels in vain, many channels, for which a window is read once, and a small window.
            wasted = blocks(problem, tile) * pixels
            cost = (time(problem, tile, multiprocessors), wasted, -groups, tile.copies())
            if best is None or cost < best[0]:
                best = (cost, tile)
    return best[1] if best else None


def time(problem: Problem, tile: Tile, multiprocessors: int) -> float:
    """What the multiprocessor with most blocks takes, in multiply-adds of a thread."""
    busiest = -(-blocks(problem, tile) // multiprocessors)
    reached = REACHED[tile.pixels]
    share = reached[min(busiest, len(reached)) - 1] if busiest else 1.0
    if tile.taps == 1:
        share *= EFFICIENCY_1X1 / EFFICIENCY
    adding = CHANNELS * tile.pixels * problem.taps / share
    return busiest * (adding + (START + COPY * tile.copies() * tile.chunk) / MOST_REACHED)


def grid(problem: Problem, tile: Tile) -> tuple[int, int, int]:
    """Blocks: tiles of pixels, blocks of channels, images."""
    out_d, out_h, out_w = (1, 1, *problem.out_spatial)[-3:]
    channels = problem.out_channels // problem.groups
    tiles = out_d * -(-out_h // tile.rows) * -(-out_w // tile.width)
    return tiles, problem.groups * -(-channels // tile.channels), problem.batch


def blocks(problem: Problem, tile: Tile) -> int:
    """The number of blocks."""
    return math.prod(grid(problem, tile))


def no_product(problem: Problem) -> str | None:
    """Why a correlation is no matrix product of its images as they lie."""
    if math.prod(problem.kernel) != 1:
        return f"the kernel has {math.prod(problem.kernel)} taps, but a matrix product takes 1x1"
    if any(step != 1 for step in problem.stride) or any(map(any, problem.padding)):
        return "it takes the pixels in one row, but stride or padding break it up"
    return None


def floats_alone(problem: Problem) -> str | None:
    """The refusal of other dtypes than float32 and float64."""
    # Integers are made of the sums.
    output = problem.output if problem.overflow is None else problem.accumulator
    for name, dtype in (("input", problem.x_dtype), ("sums", problem.accumulator), ("output", output)):
        if dtype not in FLOATS or dtype != problem.accumulator:
            return f"the {name} is {dtype.name}, but its kernels take float32, or float64, alone"
    return None


def why_not(problem: Problem, machine: Machine) -> str | None:
    """What the tile cannot do, whichever method asks."""
    if reason := floats_alone(problem):
        return reason
    if problem.kernel[-1] > MAX_COLUMNS:
        return f"the kernel is {problem.kernel[-1]} columns wide, but its tiles take {MAX_COLUMNS} at most"
    reach = (problem.kernel[-1] - 1) * problem.dilation[-1] // problem.stride[-1]
    if reach > MAX_COLUMNS:
        return f"the kernel reaches over {reach + 1} columns, but a thread holds {MAX_COLUMNS + 1} at most"
    if reason := too_long(problem):
        return reason
    tile = choose(problem, machine.multiprocessors)
    if tile is None:
        return f"a window of the input and its weights take more than {SHARED_BYTES >> 10} KiB of shared memory"
    if max(grid(problem, tile)[1:]) > MAX_GRID:
        return "there are more than 65535 images or blocks of channels, but a grid has no more"
    return None


def work(problem: Problem, machine: Machine) -> Work:
    """Every block computes a whole tile, and the multiprocessor with most blocks ends last."""
    tile = choose(problem, machine.multiprocessors)
    assert tile is not None
    adds = MOST_REACHED * time(problem, tile, machine.multiprocessors)
    flops = max(2.0 * machine.multiprocessors * THREADS * adds, problem.flops)
    rate = EFFICIENCY * machine.flop_rate(problem.accumulator)
    return Work(flops, rate, problem.bytes, machine.launch, float(math.prod(problem.weight_shape)) * 8)
