"""What test_widths.py asks of a process that compiles for another processor.

``python bits.py tiled:float32 loops:float64 ...`` prints, as JSON, what the machine is taken for, how many golden cases
every method serves in the dtype asked for and which of them have other bits, and the tiles that spill or the methods
that refuse.
"""

from __future__ import annotations

import contextlib
import json
import re
import sys

import golden
import numpy as np

from numconv.cpu import channel_tiles, pixel_tiles, tiled
from numconv.cpu.simd.tiles import tile
from numconv.machine import machine
from numconv.methods import methods
from numconv.testing import CASES

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


PIXELS = [(height, 1, vectors, False, finishing)
          for height, vectors in pixel_tiles.EXTENTS for finishing in (False, True)]  # fmt: skip
CHANNELS = [(height, run, vectors, True, False)
            for rows, run in (*channel_tiles.EXTENTS, *channel_tiles.NARROW.values()) for height in {rows, 1}
            for vectors in (channel_tiles.VECTORS, 1)]  # fmt: skip


def spill(extents, dtype):
    """What is wrong with a tile's code, or None: sums must stay in registers."""
    groups, run, vectors, *kind = extents
    assembly = tile(groups, run, vectors, np.dtype(dtype), *kind).assembly()
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
        "golden": {f"{name}:{dtype}": differing(name, dtype) for name, dtype in pairs},
        "spills": [wrong for extents, dtype in tiles if (wrong := spill(extents, dtype))],
    }


if __name__ == "__main__":
    json.dump(report(sys.argv[1:]), sys.stdout)
