"""The bits that methods give, as digests: what test_widths.py compares between processes of other vector widths.

``python bits.py tiled:float32 loops:float64 ...`` prints, as JSON, what the machine is taken for, every digest of every
method and dtype asked for, and the tiles that spill or the methods that refuse.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import sys

import numpy as np

from numconv.cpu import channel_tiles, pixel_tiles, tiled
from numconv.cpu.simd.tiles import tile
from numconv.machine import machine
from numconv.methods import methods
from numconv.testing import CASES, Case, arrays

DENSE = ("bias", "stride and dilation", "circular", "groups", "odd channels", "wide", "segments by channel", "3-D")
PLANES = (
    CASES["depthwise times two"],
    CASES["large kernel"],
    Case("rows in place", (1, 2, 20, 151), (2, 1, 3, 3), {"groups": 2}),
    Case("rows by two", (1, 2, 20, 75), (2, 1, 3, 3), {"groups": 2, "stride": 2, "padding": 1}),
    Case("narrow 5x5", (2, 3, 14, 7), (3, 1, 5, 5), {"groups": 3, "padding": 2}),
    Case("narrow 7x7", (1, 3, 9, 8), (3, 1, 7, 7), {"groups": 3, "padding": 3}),
)
ALL = (*(CASES[name] for name in DENSE), *PLANES)
METHODS = {method.NAME: method for method in methods()}


@contextlib.contextmanager
def only(shape):
    """Leave `tiled` one shape of tile; its choices are forgotten before and after."""
    before = tiled.SHAPES
    try:
        tiled.SHAPES = {shape: before[shape]}
        forget()
        yield
    finally:
        tiled.SHAPES = before
        forget()


def forget():
    """Have `tiled` choose anew."""
    for choice in (tiled._choose, tiled._shape, tiled._launch):
        choice.cache_clear()


def run(method, problem, on, x, weight, bias, garbage=0xFF):
    """One call of a method, with scratch full of garbage."""
    out = np.full(problem.out_shape, np.nan, problem.accumulator)
    scratch = np.full(method.scratch_bytes(problem, on), garbage, np.uint8)
    prepared = method.prepare(problem, on, weight, bias)
    method.run(problem, on, prepared, x.reshape(problem.x_shape), out, scratch)
    return out


def digests(name, dtype):
    """Case -> digests of the method's results, of `tiled` by both shapes of tile. Cases that it refuses are missing."""
    method, on, found = METHODS[name], machine(2), {}
    for case in ALL:
        problem = case.problem(dtype)
        if method.why_not(problem, on) is None:
            for shape in tiled.SHAPES if name == "tiled" else ("",):
                with only(shape) if shape else contextlib.nullcontext():
                    result = run(method, problem, on, *arrays(problem))
                found.setdefault(case.name, []).append(hashlib.sha256(result.tobytes()).hexdigest())
    return found


PIXELS = [(height, 1, vectors, False) for height in (pixel_tiles.CHANNELS, pixel_tiles.FEW_CHANNELS, 1)
          for vectors in (pixel_tiles.VECTORS, 1)]  # fmt: skip
CHANNELS = [(height, run, vectors, True)
            for rows, run in (*channel_tiles.EXTENTS, *channel_tiles.NARROW.values()) for height in {rows, 1}
            for vectors in (channel_tiles.VECTORS, 1)]  # fmt: skip


def spill(extents, dtype):
    """What is wrong with a tile's code, or None: sums must stay in registers."""
    groups, run, vectors, by_table = extents
    assembly = tile(groups, run, vectors, np.dtype(dtype), by_table).assembly()
    ((name, body),) = re.findall(r"^(numconv_tile_\w+):\n(.*?)^\.Lfunc_end", assembly, re.MULTILINE | re.DOTALL)
    if body.count("vfmadd") < groups * run * vectors:
        return f"{name} has fewer multiply-adds than sums"
    return f"{name} spills" if re.findall(r"[xyz]mm\d+, .*\(%rsp\)|\(%rsp\), %[xyz]mm", body) else None


def report(wanted):
    """Everything, for `wanted` pairs "method:dtype"."""
    pairs = [pair.split(":") for pair in wanted]
    here, problem = machine(2), CASES["depthwise"].problem(np.float32)
    tiles = [(extents, dtype) for name, dtype in pairs if name == "tiled" for extents in PIXELS + CHANNELS]
    return {
        "machine": [here.vector_bytes, here.has_fma],
        "refusals": {name: method.why_not(problem, here) for name, method in METHODS.items()},
        "digests": {f"{name}:{dtype}": digests(name, dtype) for name, dtype in pairs},
        "spills": [wrong for extents, dtype in tiles if (wrong := spill(extents, dtype))],
    }


if __name__ == "__main__":
    json.dump(report(sys.argv[1:]), sys.stdout)
