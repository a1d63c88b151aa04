"""The geometry of a register tile: what its kernel (tile.py) is compiled for, and which one suits a Problem."""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any, NamedTuple

import numpy as np

from ..machine import Machine
from ..method import Work
from ..problem import Problem

THREADS = 128
# Blocks that should fit on a multiprocessor: 16 of 64 warps, and 128 registers a thread.
RESIDENT = 4
PIXELS = 8
CHANNELS = 8
# Channels of each thread whose results are on their way through shared memory at a time.
STAGED = 4
MAX_COLUMNS = 12
SHARED_BYTES = 48 << 10
# Beside the sums: what a row of taps meets, and the chunk to come with its places.
REGISTERS = 25
# Pairs of weights on their way at a time, where registers are short.
BATCH = 3
# Elements of the input, so that 32-bit positions hold all of them; a position in the padding lies below -LIMIT.
LIMIT = 1 << 30
MAX_GRID = 65535
FLOATS = (np.float32, np.float64)


@dataclasses.dataclass(frozen=True)
class Row:
    """What a row of pixels and of taps says of a kernel. columns: groups of `pixels` neighbouring pixels, one group to
    a thread; itemsize: of the floats.
    """

    kernel_w: int
    stride_w: int
    dilation_w: int
    columns: int
    pixels: int
    itemsize: int

    @property
    def real(self) -> type[np.floating[Any]]:
        """What it is computed in."""
        return np.float32 if self.itemsize == 4 else np.float64

    @property
    def unit(self) -> int:
        """Elements that are read at once: 128 bits."""
        return 16 // self.itemsize

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


class Tile(NamedTuple):
    """A kernel's constants. groups: of 8 output channels; columns: groups of 8 pixels in a row of the tile;
    chunk: input channels between two barriers. together: channels of a 1x1 kernel that one round adds up.
    """

    kernel_d: int
    kernel_h: int
    kernel_w: int
    stride_d: int
    stride_h: int
    stride_w: int
    dilation_d: int
    dilation_h: int
    dilation_w: int
    groups: int
    columns: int
    chunk: int
    together: int

    @property
    def rows(self) -> int:
        """Rows of pixels."""
        return THREADS // self.groups // self.columns

    @property
    def width(self) -> int:
        """Pixels in a row."""
        return PIXELS * self.columns

    @property
    def channels(self) -> int:
        """Output channels."""
        return CHANNELS * self.groups

    @property
    def taps(self) -> int:
        """Taps of one input channel."""
        return self.kernel_d * self.kernel_h * self.kernel_w

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
        return -(-(self.width + self.shift) // 4) * 4

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
        """Elements from one row of the window to the next: without bank conflicts between 4 neighbouring threads."""
        pitch = self.phases * self.pitch
        while len({self._bank(thread, pitch) for thread in range(4)}) < 4:
            pitch += 4
        return pitch

    def _bank(self, thread: int, pitch: int) -> int:
        row, column = divmod(thread, self.columns)
        return (PIXELS * column + row * self.row_step * pitch) % 32 // 4

    def copies(self) -> int:
        """Elements of one channel's window that each thread copies."""
        return -(-self.kernel_d * self.window_rows * self.row_pitch() // THREADS)

    def weight_pairs(self) -> int:
        """Pairs of weights of one chunk: they are copied by 64 bits."""
        return self.chunk * self.taps * self.channels // 2

    def shared_floats(self) -> int:
        """Elements of shared memory: two buffers of weights and window, or later the results."""
        buffers = 4 * self.weight_pairs() + 2 * self.chunk * self.copies() * THREADS
        return max(buffers, STAGED * self.groups * self.stage_pitch())

    def stage_pitch(self) -> int:
        """Elements from one channel of results to the next, on their way through shared memory."""
        return self.rows * self.width + 4


@functools.lru_cache(maxsize=1024)
def choose(problem: Problem) -> Tile | None:
    """The tile that wastes least on a Problem's pixels and channels, or None where none fits shared memory."""
    constants = [(1, 1, *values)[-3:] for values in (problem.kernel, problem.stride, problem.dilation)]
    kernel, stride, dilation = constants
    volume = math.prod(kernel)
    inner = max(1, problem.in_channels // problem.groups)
    together = 2 if volume == 1 else 1
    # About 8 taps or more between two barriers, but no channels that are not there.
    chunk = next((c for c in (8, 4, 2) if c * volume <= 18 and c <= -(-inner // 2) * 2), together)
    segment = problem.segments[0] // volume
    while inner > segment and segment % chunk:
        chunk //= 2
    best: tuple[tuple[int, int, int], Tile] | None = None
    for groups in (8, 4, 2, 1):
        for columns in (16, 8, 4, 2, 1):
            if groups * columns <= THREADS:
                tile = Tile._make((*kernel, *stride, *dilation, groups, columns, chunk, together))
                if 4 * tile.shared_floats() <= SHARED_BYTES - 64:
                    # Then many channels, for which a window is read once, and a small window.
                    cost = (blocks(problem, tile), -groups, tile.copies())
                    if best is None or cost < best[0]:
                        best = (cost, tile)
    return best[1] if best else None


def grid(problem: Problem, tile: Tile) -> tuple[int, int, int]:
    """Blocks: tiles of pixels, blocks of channels, images."""
    out_d, out_h, out_w = (1, 1, *problem.out_spatial)[-3:]
    channels = problem.out_channels // problem.groups
    tiles = out_d * -(-out_h // tile.rows) * -(-out_w // tile.width)
    return tiles, problem.groups * -(-channels // tile.channels), problem.batch


def blocks(problem: Problem, tile: Tile) -> int:
    """The number of blocks."""
    return math.prod(grid(problem, tile))


def floats_alone(problem: Problem) -> str | None:
    """The refusal of other dtypes than float32 and float64."""
    for name, dtype in (("input", problem.x_dtype), ("sums", problem.accumulator), ("output", problem.output)):
        if dtype not in FLOATS or dtype != problem.accumulator:
            return f"the {name} is {dtype.name}, but its kernels take float32, or float64, alone"
    return None


def why_not(problem: Problem) -> str | None:
    """What the tile cannot do, whichever method asks."""
    if reason := floats_alone(problem):
        return reason
    if problem.accumulator != np.float32:
        return f"the sums are {problem.accumulator.name}, but its tiles are of float32"
    if problem.kernel[-1] > MAX_COLUMNS:
        return f"the kernel is {problem.kernel[-1]} columns wide, but its tiles take {MAX_COLUMNS} at most"
    reach = (problem.kernel[-1] - 1) * problem.dilation[-1] // problem.stride[-1]
    if reach > MAX_COLUMNS:
        return f"the kernel reaches over {reach + 1} columns, but a thread holds {MAX_COLUMNS + 1} at most"
    if math.prod(problem.x_shape) >= LIMIT:
        return f"the input has {math.prod(problem.x_shape)} elements, but its positions hold {LIMIT} at most"
    tile = choose(problem)
    if tile is None:
        return f"a window of the input and its weights take more than {SHARED_BYTES >> 10} KiB of shared memory"
    if max(grid(problem, tile)[1:]) > MAX_GRID:
        return "there are more than 65535 images or blocks of channels, but a grid has no more"
    return None


def work(problem: Problem, machine: Machine, efficiency: float) -> Work:
    """Every block computes a whole tile, and the multiprocessor with most blocks ends last."""
    tile = choose(problem)
    assert tile is not None
    busiest = -(-blocks(problem, tile) // machine.multiprocessors) * machine.multiprocessors
    flops = 2.0 * busiest * THREADS * PIXELS * CHANNELS * problem.taps
    rate = efficiency * machine.flop_rate(problem.accumulator)
    return Work(
        max(flops, problem.flops), rate, problem.bytes, machine.launch, float(math.prod(problem.weight_shape)) * 8
    )
