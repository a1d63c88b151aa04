"""Repaired tiles have the bits of `loops`, NaN, inf and all, and the others stay as they were."""

from __future__ import annotations

import math

import numpy as np
import pytest

import numconv as nc
from numconv.cpu import loops, repair
from numconv.machine import machine
from numconv.testing import EDGES, Case, arrays

FUNCTIONS = {1: nc.conv1d, 2: nc.conv2d, 3: nc.conv3d}
NAMES = [
    *("bias", "relu", "stride and dilation", "padding by side", "reflect", "circular", "constant", "groups"),
    *("segments by row", "1-D reflect", "3-D", "3-D circular"),
]
# Hang over the output's end, meet it, and are larger than it.
TILES = ((1, 3, 4), (2, 1, 2), (9, 99, 99))


def repaired(problem, data, flags, tile, threads=2):
    """What `repair` makes of an output of sevens."""
    x, weight, bias = data
    on = machine(threads)
    prepared = loops.prepare(problem, on, weight, bias)
    out = np.full(problem.out_shape, 7, problem.accumulator)
    repair.repair(problem, on, prepared.weight, prepared.bias, x.reshape(problem.x_shape), out, flags, tile)
    return out


def spoilt(problem, data):
    """The arrays with NaN, inf and numbers that overflow in them."""
    x = data[0].copy()
    for place, value in enumerate((np.nan, np.inf, -np.inf, np.finfo(x.dtype).max)):
        x.reshape(-1)[place * 7919 % x.size] = value
    return x, *data[1:]


def marks(shape, tile):
    """Whether each output pixel lies in a tile that is flagged, every third, and the flags."""
    size = (1, 1, *shape[2:])[-3:]
    flags = np.zeros((shape[0], *(-(-s // t) for s, t in zip(size, tile, strict=True))), np.uint8)
    flags.reshape(-1)[::3] = 1
    wide = flags
    for axis, t in enumerate(tile, 1):
        wide = wide.repeat(t, axis=axis)
    return flags, wide[:, *(slice(s) for s in size)].reshape(shape[0], 1, *shape[2:]).astype(bool)


@pytest.mark.parametrize("tile", TILES, ids=str)
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_flagged_tiles_have_the_bits_of_loops_and_the_others_stay(name, dtype, tile):
    case = next(case for case in EDGES if case.name == name)
    problem = case.problem(dtype)
    data = spoilt(problem, arrays(problem))
    flags, inside = marks(problem.out_shape, tile)
    with np.errstate(all="ignore"):
        expected = FUNCTIONS[case.rank](*data, **case.options, method="loops")
    result = repaired(problem, data, flags, tile)
    np.testing.assert_array_equal(result, np.where(inside, expected.reshape(problem.out_shape), 7))


@pytest.mark.parametrize("limit", [1, 3000, 40_000])
def test_large_tiles_are_gathered_in_blocks(monkeypatch, limit):
    problem = Case("", (2, 6, 31, 33), (4, 3, 3, 5), {"groups": 2, "padding": 2}, bias=True).problem()
    data = arrays(problem)
    flags, inside = marks(problem.out_shape, (1, 13, 14))
    expected = repaired(problem, data, flags, (1, 13, 14))
    assert (expected[~inside.repeat(4, axis=1)] == 7).all()
    monkeypatch.setattr(repair, "GATHERED_BYTES", limit)
    seen = []
    gathered = repair._gathered
    monkeypatch.setattr(repair, "_gathered", lambda *args: seen.append(gathered(*args)) or seen[-1])
    np.testing.assert_array_equal(repaired(problem, data, flags, (1, 13, 14)), expected)
    assert all(math.prod(x.shape[-3:]) == 15 or x.nbytes <= limit for x in seen)


def test_nothing_is_done_where_nothing_is_flagged(monkeypatch):
    monkeypatch.setattr(repair, "correlate", None)
    problem = EDGES[1].problem()
    flags, _ = marks(problem.out_shape, (1, 2, 2))
    assert (repaired(problem, arrays(problem), flags * 0, (1, 2, 2)) == 7).all()
