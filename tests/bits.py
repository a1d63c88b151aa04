"""What test_widths.py asks of a process that compiles for another processor.

``python bits.py tiled:float32 loops:float64 ...`` prints, as JSON, what the machine is taken for, how many golden cases
every method serves in the dtype asked for and which of them have other bits, and the tiles that spill or the methods
that refuse.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import re
import sys

import golden
import numpy as np

from numconv.cpu import channel_lanes, channel_runs, pixel_tiles, planar, row_strips, tiled
from numconv.cpu.simd.ir import WIDE
from numconv.cpu.simd.outputs import EVERYTHING, outputs_tile
from numconv.cpu.simd.pixels import pixels_tile
from numconv.cpu.simd.strips import most_vectors, strip_tile
from numconv.cpu.simd.tiles import NOTHING, tile
from numconv.machine import machine
from numconv.methods import methods
from numconv.testing import CASES, Case

METHODS = {method.NAME: method for method in methods()}


@contextlib.contextmanager
def only(shape):
    """Have `tiled` take one shape of tile."""
    chosen = tiled._shape
    try:
        tiled._shape = lambda problem, machine: shape
        yield
    finally:
        tiled._shape = chosen


def forget():
    """Have `tiled` choose anew."""
    for choice in (tiled._choose, tiled._shape, tiled._launch):
        choice.cache_clear()


def differing(name, dtype):
    """How many golden cases a method serves in a dtype, and those with other bits; `tiled` by each shape of tile."""
    expected, found, wrong = golden.golden(), [], []
    for variant in golden.VARIANTS:
        for shape in (tiled.SHAPES if name == "tiled" else ("",)) if variant.startswith(dtype) else ():
            with only(shape) if shape else contextlib.nullcontext():
                digests = golden.digests(METHODS[name], variant, machine(2))
            found.append(len(digests))
            wrong += [f"{variant}: {case} {shape}" for case in digests if digests[case] != expected[variant][case]]
    return min(found), wrong


PIXELS = [(height, 1, vectors, False, finishing, NOTHING, copying) for height, vectors in pixel_tiles.EXTENTS
          for finishing, copying in ((False, False), (True, False), (True, True))]  # fmt: skip
CHANNELS = [(height, run, vectors, True, False, NOTHING)
            for rows, run in (*channel_runs.EXTENTS, *channel_runs.NARROW.values()) for height in {rows, 1}
            for vectors in (channel_runs.VECTORS, 1)]  # fmt: skip


def sparing(kernel, sizes):
    """Tiles with channels in the lanes that leave out taps, for maps of those sizes that keep their size."""
    found = set()
    for size in sizes:
        case = Case("map", (1, 1, size, size), (1, 1, kernel, kernel), {"padding": kernel // 2})
        rows, run = channel_runs.extent(size)
        ends = set(channel_runs.left_out(case.problem(), size)) - {NOTHING}
        heights, widths = {rows if run == size else 1, 1}, (channel_runs.VECTORS, 1)
        found |= set(itertools.product(heights, [run], widths, [True], [False], ends))
    return found


EVERY_RUN = (28, 14, 13, 12, 10, 9, 8, 7, 5, 4, 3, 2, 1)
SPARING = sorted(sparing(3, EVERY_RUN) | sparing(5, (3, 7, 10, 28)) | sparing(7, (5, 14)))
# Rows of the runs that take several rows at once are finished where they go alone, in wider blocks.
ALONE = {channel_runs.extent(columns) for columns in range(1, 57) if columns > channel_runs.run_length(columns)}
FINISHING = [(1, run, vectors, True, True, NOTHING) for rows, run in channel_runs.EXTENTS if WIDE
             if rows == 1 or (rows, run) in ALONE for vectors in (channel_runs.VECTORS, 1)]  # fmt: skip
DENSE = PIXELS + CHANNELS + SPARING + FINISHING + [(2, pixel_tiles.CHANNELS, 1, False, False)]

# (rows, the kernel's rows or 0 for any, its columns at once, stride, pixels): the widest tiles of channels last.
LANES = [(channel_lanes.ROWS, kernel, kernel, stride, channel_lanes.WIDTHS[0])
         for kernel in channel_lanes.KERNELS for stride in (1, 2)]  # fmt: skip
LANES += [(rows, 0, run, stride, channel_lanes.WIDTHS[0] * channel_lanes.ROWS // rows)
          for rows in (1, channel_lanes.ROWS) for run in (1, *channel_lanes.RUNS) for stride in (1, 2)]  # fmt: skip

# (kernel, stride, rows, vectors)
STRIPS = [(kernel, stride, row_strips.LOW, 1) for kernel in row_strips.KERNELS for stride in row_strips.STRIDES]
STRIPS += [(kernel, stride, row_strips.TALL, vectors) for kernel, stride, *_ in STRIPS for vectors in (1, 2, 3, 4)
           if vectors <= max(1, most_vectors(kernel, stride))]  # fmt: skip
# With 16 registers, what is the same for all rows, such as the bias, lies on the stack; their sums must not.
SIDE_BY_SIDE = [] if WIDE else [extents for extents in STRIPS if extents[-1] > 1]

# (channels, rows, columns, one number for all lanes): tiles of common layers, of a column, of a row.
OUTPUTS = [(1, *extents, False) for extents in ((3, 3), (5, 5), (4, 7), (planar.SUMS, 1), (1, planar.SUMS))
           if extents[0] * extents[1] <= planar.SUMS]  # fmt: skip
OUTPUTS += [(most, 3, 3, bool(planes)) for planes, most in enumerate(planar.MOST_CHANNELS)
            if most * 10 <= planar.REGISTERS]  # fmt: skip


def sparing_outputs(size, kernel):
    """Tiles that leave out padding: those of the gradients of layers that keep a map's size."""
    case = Case("map", (1, 1, 2, size, size), (2, 1, 1, size, size), {"padding": (0, kernel // 2, kernel // 2)})
    problem = case.problem()
    met, (channels, *extents) = planar._met(problem, planar._choose(problem, machine(1))), planar._tile(problem, 1)
    return [(most, *extents, True, met) for most in {1, channels} if met != EVERYTHING]


OUTPUTS += sparing_outputs(7, 3) + sparing_outputs(14, 3) + sparing_outputs(7, 5)


# What a line has that writes a vector to the stack, and one that reads it from there.
STACK = (r"[xyz]mm\d+, .*\(%rsp\)", r"\(%rsp\), %[xyz]mm")


def spill(native, least, same=0):
    """What is wrong with a tile's code, or None: it has so many multiply-adds, whose sums must stay in registers; the
    stack may get so many vectors that are the same for all rows.
    """
    ((name, body),) = re.findall(r"^(numconv_\w+):\n(.*?)^\.Lfunc_end", native.assembly(), re.MULTILINE | re.DOTALL)
    if body.count("vfmadd") < least:
        return f"{name} has too few multiply-adds"
    stored, loaded = (len(re.findall(access, body)) for access in STACK)
    return f"{name} spills" if stored > same or (loaded and not same) else None


def multiply_adds(groups, run, vectors, by_table, finishing, skips=NOTHING, copying=False):
    """Those of a round of a dense tile's steps."""
    return groups * vectors * sum(run - before - behind for before, behind in skips)


def spills(name, dtype):
    """What is wrong with the tiles of `tiled`, of `planar` or, with the channels last, of `depthwise`."""
    dtype = np.dtype(dtype)
    if name == "tiled":
        found = [spill(tile(*extents[:3], dtype, *extents[3:]), multiply_adds(*extents)) for extents in DENSE]
    elif name == "planar":
        found = [spill(outputs_tile(dtype, *extents), math.prod(extents[:3])) for extents in OUTPUTS]
    else:
        lanes, strips = (LANES, SIDE_BY_SIDE) if name == "depthwise" else ([], [])
        found = [spill(pixels_tile(dtype, *extents), extents[0] * extents[-1]) for extents in lanes]
        found += [spill(strip_tile(dtype, *extents), extents[0] ** 2 * extents[2], 4) for extents in strips]
    return [wrong for wrong in found if wrong]


def report(wanted):
    """Everything, for `wanted` pairs "method:dtype"."""
    pairs = [pair.split(":") for pair in wanted]
    here, problem = machine(2), CASES["depthwise"].problem(np.float32)
    return {
        "machine": [here.vector_bytes, here.has_fma],
        "refusals": {name: method.why_not(problem, here) for name, method in METHODS.items()},
        "golden": {f"{name}:{dtype}": differing(name, dtype) for name, dtype in pairs},
        "spills": [wrong for name, dtype in pairs for wrong in spills(name, dtype)],
    }


if __name__ == "__main__":
    json.dump(report(sys.argv[1:]), sys.stdout)
