"""Both shapes of register tile give the bits of `loops`, stay in registers, and stay inside their arrays."""

from __future__ import annotations

import re

import numpy as np
import pytest

from numconv import jit
from numconv.cpu import channel_tiles, loops, pixel_tiles, tiled
from numconv.cpu.simd.tiles import tile
from numconv.machine import machine
from numconv.testing import EDGES, RESNET50, arrays

shapes = pytest.mark.parametrize("shape", list(tiled.SHAPES))


@pytest.fixture
def only(monkeypatch):
    """Leave the method one shape of tile; its choices are forgotten before and after."""

    def choose(shape):
        monkeypatch.setattr(tiled, "SHAPES", {shape: tiled.SHAPES[shape]})
        forget()

    def forget():
        tiled._choose.cache_clear()
        tiled._launch.cache_clear()
        tiled._layout.cache_clear()

    yield choose
    monkeypatch.undo()
    forget()


def run(method, problem, on, x, weight, bias, garbage=0xFF):
    out = np.full(problem.out_shape, np.nan, problem.accumulator)
    scratch = np.full(method.scratch_bytes(problem, on), garbage, np.uint8)
    prepared = method.prepare(problem, on, weight, bias)
    method.run(problem, on, prepared, x.reshape(problem.x_shape), out, scratch)
    return out


def assert_same_bits(ours, theirs):
    kind = f"u{ours.itemsize}"
    np.testing.assert_array_equal(ours.view(kind), theirs.view(kind))


@shapes
@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("case", EDGES, ids=lambda case: case.name)
def test_the_bits_are_those_of_loops_for_any_number_of_shares(only, case, dtype, threads, shape):
    problem = case.problem(dtype)
    data = arrays(problem)
    only(shape)
    assert_same_bits(run(tiled, problem, machine(threads), *data), run(loops, problem, machine(threads), *data))


@shapes
@pytest.mark.parametrize("case", RESNET50[9:], ids=lambda case: case.name)
def test_the_bits_of_real_layers_are_those_of_loops(only, case, shape):
    problem, on = case.problem(np.float32), machine(jit.threads())
    data = arrays(problem)
    only(shape)
    assert_same_bits(run(tiled, problem, on, *data), run(loops, problem, on, *data))


@shapes
@pytest.mark.parametrize("width", range(1, 40))
def test_every_width_of_map_is_covered(only, shape, width):
    only(shape)
    for options in ({}, {"padding": 1}, {"stride": 2, "padding": 1}):
        case = EDGES[1].__class__("map", (1, 2, 3, width + 2), (9, 2, 3, 3), options)
        problem = case.problem(np.float32)
        data = arrays(problem)
        assert_same_bits(run(tiled, problem, machine(2), *data), run(loops, problem, machine(2), *data))


@shapes
@pytest.mark.parametrize("width", [1, 2, 3])
def test_narrow_maps_of_many_rows_and_wide_kernels_are_covered(only, shape, width):
    # The gradients by weights: the output is the kernel, and has its channels' rows one below the other.
    only(shape)
    for height in (1, 3, 14, 17):
        for padding in (0, 1):
            x_shape = (1, 2, height + 8 - 2 * padding, width + 10 - 2 * padding)
            case = EDGES[1].__class__("kernel", x_shape, (35, 2, 9, 11), {"padding": padding})
            problem = case.problem(np.float32)
            data = arrays(problem)
            assert_same_bits(run(tiled, problem, machine(2), *data), run(loops, problem, machine(2), *data))


@shapes
@pytest.mark.parametrize("turn", [lambda w: w[:, :, ::-1, ::-1], lambda w: w.swapaxes(0, 1).copy().swapaxes(0, 1)])
def test_weights_that_are_a_view_are_packed_as_their_copy_is(only, shape, turn):
    only(shape)
    problem = EDGES[1].__class__("view", (1, 70, 5, 5), (140, 70, 3, 3), {"groups": 1}).problem(np.float32)
    x, weight, bias = arrays(problem)
    expected = run(tiled, problem, machine(2), x, turn(weight).copy(), bias)
    assert_same_bits(run(tiled, problem, machine(2), x, turn(weight), bias), expected)
    on = machine(2)
    strided, packed = (tiled.prepare(problem, on, w, bias) for w in (turn(weight), turn(weight).copy()))
    assert strided.finite == packed.finite


@shapes
def test_integers_beside_floats_are_converted_as_loops_does(only, shape):
    only(shape)
    problem = EDGES[1].problem(np.uint64, np.float64)
    data = arrays(problem)
    assert_same_bits(run(tiled, problem, machine(2), *data), run(loops, problem, machine(2), *data))


PIXELS = [(height, 1, vectors, False) for height in (pixel_tiles.CHANNELS, pixel_tiles.FEW_CHANNELS, 1)
          for vectors in (pixel_tiles.VECTORS, 1)]  # fmt: skip
EXTENTS = [*channel_tiles.EXTENTS, *channel_tiles.NARROW.values()]
CHANNELS = [(height, run, vectors, True) for rows, run in EXTENTS for height in {rows, 1}
            for vectors in (channel_tiles.VECTORS, 1)]  # fmt: skip


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("groups", "run", "vectors", "by_table"), PIXELS + CHANNELS)
def test_no_tile_that_ships_spills_a_vector(groups, run, vectors, by_table, dtype):
    assembly = tile(groups, run, vectors, np.dtype(dtype), by_table).assembly()
    ((name, body),) = re.findall(r"^(numconv_tile_\w+):\n(.*?)^\.Lfunc_end", assembly, re.MULTILINE | re.DOTALL)
    assert body.count("vfmadd") >= groups * run * vectors
    assert not re.findall(r"[xyz]mm\d+, .*\(%rsp\)|\(%rsp\), %[xyz]mm", body), f"{name} spills"
