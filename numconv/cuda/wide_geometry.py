"""The geometry of a tile for wide kernels: what wide_tile.py is compiled for, and which one suits a Problem.

A correlation of few outputs and very many taps is a matrix product: a row for each output channel, a column for each
output of each *plane*, and sums as long as the kernel is large. Planes are what lies one step apart in input and output
and meets the same taps: the images of a batch or, of one image, the slices that a kernel of one slice meets. Gradients
of layers by their weights have the layer's input channels there. Of a column's place, only the step of its plane tells
it from those of other planes: so a thread that fetches some planes of one output looks up once where its tap meets it.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from collections.abc import Iterator

from ..machine import Machine
from ..method import Work, allowed_scratch
from ..problem import Problem
from .arrays import LIMIT, too_long
from .tiling import MAX_GRID, THREADS, Floats, floats_alone, is_framed

# Sums of a thread, channels by columns: fewer give a small problem more blocks. Blocks that fit a multiprocessor, for
# which the compiler leaves 168 registers a thread, 128, 96 and 72; and how many of them may hold what is fetched, and
# from where: with 40, 56 and 40 ptxas spilled, and of the others no more is asked than was tried.
SUMS = {(8, 8): (3, 36), (8, 4): (4, 48), (4, 4): (5, 36), (4, 2): (7, 24)}
SUMS_OF_DOUBLES = {(4, 4): (3, 28), (4, 2): (4, 20)}
# Of the threads, how many stand side by side along the channels.
GROUPS = (4, 8, 16)
# Taps between two barriers, which neighbouring threads fetch: twice eight, but with the most sums registers are short.
LANES, LANES_OF_MOST = 16, 8
MOST = 64
# Of fewer taps side by side, neighbouring threads would fetch what lies far apart: other methods take such kernels.
LEAST_ROW = 4
# Instructions beside the multiply-adds, of a chunk of taps: for an element, for a place looked up, and for all else.
ELEMENT, PLACE, CHUNK = 5, 12, 30
# Share of the cycles in which a scheduler starts an instruction, with so many blocks on a multiprocessor, each with a
# warp on each of its four schedulers; and the clock under load. Those of `tiled`, measured on an H100.
ISSUED = (0.62, 0.80, 0.90, 0.95)
# Cycles of the first-level cache, or shared memory, that four warps take it for: to read 128 bits, and for each run of
# elements that a warp fetches, which lies over a line's end by this chance.
SCHEDULERS, READ, ASTRIDE = 4, 2, 0.4
LOADED = 0.85
# How much longer than these say, by the sums of a thread: measured on an H100 with gradients of 3x3 layers.
LONGER = {(8, 8): 1.15, (8, 4): 1.4, (4, 4): 1.3, (4, 2): 0.95}
# Cycles of a chunk at least, from fetching it to its sums, however few blocks there are: with those of 1x1 layers.
ROUND = 1050


@dataclasses.dataclass(frozen=True)
class Wide(Floats):
    """A kernel's constants. rows, columns: of a thread's sums; groups: threads side by side along the channels; lanes:
    taps of a chunk, each fetched by a thread of its own; planes: those of one output that a thread fetches one after
    another; deep: planes have a depth; framed: the padding holds another number than zero; resident: blocks that fit
    a multiprocessor.
    """

    rows: int
    columns: int
    groups: int
    lanes: int
    planes: int
    deep: bool
    framed: bool
    resident: int

    @property
    def parts(self) -> int:
        """Threads that fetch the same tap."""
        return THREADS // self.lanes

    @property
    def height(self) -> int:
        """Output channels of a block."""
        return self.rows * self.groups

    @property
    def width(self) -> int:
        """Columns of a block."""
        return self.columns * (THREADS // self.groups)

    @property
    def fetched(self) -> tuple[int, int]:
        """Weights and inputs of a chunk that each thread fetches."""
        return self.height // self.parts, self.width // self.parts

    @property
    def fetching(self) -> int:
        """Registers of what a thread fetches and from where, and of the units' places."""
        return 2 * sum(self.fetched) + 4 * (self.fetched[1] // self.planes)

    @property
    def units(self) -> int:
        """Outputs, of some planes each, of a block."""
        return self.width // self.planes

    @property
    def pitches(self) -> tuple[int, int]:
        """Elements from the weights of one tap to the next in shared memory, and from the inputs: neighbouring threads
        store neighbouring taps, eight of which meet all banks, and all is read by 128 bits.
        """
        return self.height + self.unit, self.width + self.unit

    @property
    def shared_elements(self) -> int:
        """Elements of shared memory: two buffers."""
        return 2 * self.lanes * sum(self.pitches)

    @property
    def reads(self) -> int:
        """Reads of a chunk from shared memory."""
        return self.lanes * sum(-(-side // self.unit) for side in (self.rows, self.columns))

    @property
    def instructions(self) -> int:
        """What a thread executes for a chunk."""
        places = self.fetched[1] // self.planes
        # A multiprocessor adds up half as many float64, where it does so at all.
        adds = self.lanes * self.rows * self.columns * (self.itemsize // 4)
        return adds + self.reads + ELEMENT * sum(self.fetched) + PLACE * places + CHUNK

    def accesses(self, run: int) -> float:
        """Cycles that a warp's part of a chunk takes the first-level cache: of the input, runs of so many taps lie side
        by side.
        """
        several = 32 // self.lanes
        lines = [several * (1 + ASTRIDE), several * (1 + ASTRIDE + max(0.0, self.lanes / run - 1))]
        fetching = sum(count * (1 + line) for count, line in zip(self.fetched, lines, strict=True))
        return READ * self.reads + fetching


def of_slices(problem: Problem, deep: bool) -> bool:
    """Whether planes are slices of a volume, not images: those of a tile that is not `deep`."""
    return problem.rank == 3 and not deep


def planes(problem: Problem, deep: bool) -> int:
    """How many there are."""
    return problem.out_spatial[0] if of_slices(problem, deep) else problem.batch


def outputs(problem: Problem, deep: bool) -> tuple[int, int, int]:
    """The output's depth, height and width in one plane."""
    depth, height, width = (1, 1, *problem.out_spatial)[-3:]
    return depth if deep else 1, height, width


def is_deep(problem: Problem) -> bool:
    """Whether a volume's slices are no planes."""
    slices = problem.batch == 1 and problem.kernel[0] == 1 and not any(problem.padding[0])
    return problem.rank == 3 and not slices


def segments(problem: Problem) -> tuple[int, int]:
    """(segments of the order of summation, those of one period)."""
    period, segment = problem.segments
    each = -(-period // segment)
    periods, rest = divmod(problem.taps, period)
    return periods * each + -(-rest // segment), each


def grid(problem: Problem, wide: Wide) -> tuple[int, int, int]:
    """Blocks: of columns, of channels, of segments."""
    channels = problem.out_channels // problem.groups
    units = math.prod(outputs(problem, wide.deep)) * -(-planes(problem, wide.deep) // wide.planes)
    return -(-units // wide.units), problem.groups * -(-channels // wide.height), segments(problem)[0]


def geometries(problem: Problem) -> Iterator[Wide]:
    """All that could be compiled for a Problem."""
    itemsize = problem.accumulator.itemsize
    sums = SUMS if itemsize == 4 else SUMS_OF_DOUBLES
    for ((rows, columns), (resident, most)), groups, few in itertools.product(sums.items(), GROUPS, (8, 4, 2, 1)):
        wide = Wide(
            rows=rows,
            columns=columns,
            groups=groups,
            lanes=LANES_OF_MOST if rows * columns == MOST else LANES,
            planes=few,
            itemsize=itemsize,
            deep=is_deep(problem),
            framed=is_framed(problem),
            resident=resident,
        )
        if wide.fetched[1] % few == 0 and wide.fetching <= most:
            yield wide


def time(problem: Problem, wide: Wide, multiprocessors: int) -> float:
    """Cycles of the multiprocessor with most blocks: it starts instructions, or waits for its first-level cache."""
    busiest = -(-math.prod(grid(problem, wide)) // multiprocessors)
    issued = ISSUED[min(max(1, busiest), len(ISSUED)) - 1]
    chunk = max(wide.instructions / issued, SCHEDULERS * wide.accesses(problem.kernel[-1]))
    return busiest * chunk * chunks(problem, wide) * LONGER[wide.rows, wide.columns]


def chunks(problem: Problem, wide: Wide) -> int:
    """Chunks of a segment's taps."""
    return -(-min(problem.taps, problem.segments[1]) // wide.lanes)


@functools.lru_cache(maxsize=1024)
def choose(problem: Problem, multiprocessors: int) -> Wide:
    """The geometry that takes least time on so many multiprocessors; of several, one of few places and large blocks."""
    return min(
        geometries(problem),
        key=lambda wide: (time(problem, wide, multiprocessors), -wide.planes, -wide.rows * wide.columns),
    )


def together(problem: Problem, machine: Machine) -> int:
    """How many segments run at a time: as many as may leave their sums in scratch, but one at least."""
    each = max(1, math.prod(problem.out_shape) * problem.accumulator.itemsize)
    return max(1, min(segments(problem)[0], allowed_scratch(problem, machine) // each, MAX_GRID))


def scratch_bytes(problem: Problem, machine: Machine) -> int:
    """The sums of segments, where there are several."""
    several = segments(problem)[0] > 1
    return several * together(problem, machine) * math.prod(problem.out_shape) * problem.accumulator.itemsize


def why_not(problem: Problem, machine: Machine) -> str | None:
    """What the tiles cannot do."""
    if reason := floats_alone(problem):
        return reason
    if not problem.taps:
        return "there are no taps to add up"
    if problem.kernel[-1] < LEAST_ROW:
        return f"the kernel's width is {problem.kernel[-1]}, but its threads fetch {LEAST_ROW} or more side by side"
    if (pixels := math.prod(outputs(problem, is_deep(problem)))) > problem.taps:
        return f"an output plane has {pixels} pixels, but it is for no more than the {problem.taps} taps of each"
    if reason := too_long(problem):
        return reason
    for name, shape in (("weight", problem.weight_shape), ("output", problem.out_shape)):
        if math.prod(shape) >= LIMIT:
            return f"the {name} has {math.prod(shape)} elements, but its positions hold {LIMIT} at most"
    if grid(problem, choose(problem, machine.multiprocessors))[1] > MAX_GRID:
        return "there are more than 65535 blocks of channels, but a grid has no more"
    return None


def work(problem: Problem, machine: Machine) -> Work:
    """Every block computes a whole tile, and the multiprocessor with most blocks ends last."""
    assert machine.gpu is not None
    wide = choose(problem, machine.multiprocessors)
    cycles = max(time(problem, wide, machine.multiprocessors), ROUND * chunks(problem, wide))
    rate = LOADED * machine.flop_rate(problem.accumulator)
    flops = cycles / (LOADED * machine.gpu.clock) * rate
    count = segments(problem)[0]
    moved = 2.0 * count * math.prod(problem.out_shape) * problem.accumulator.itemsize if count > 1 else 0.0
    launches = 2 * -(-count // together(problem, machine)) if count > 1 else 1
    return Work(
        max(flops, problem.flops),
        rate,
        problem.bytes + moved,
        machine.launch * launches,
        float(math.prod(problem.weight_shape)) * 8,
    )
